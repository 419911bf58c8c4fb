"""A gateway that stores and forwards, as a process that can be killed: `python -m … PORT DIRECTORY SNAPSHOTS`."""

import asyncio
import sys
from datetime import timedelta
from pathlib import Path

from gateway.bridges.mqtt import MqttBridge
from gateway.bridges.mqtt.settings import MqttSettings
from gateway.core.model import Snapshot
from tests.kit.acl import login
from tests.kit.bench import INVERTER, Bench, until


async def main(port, directory, count):
    async with Bench(Path(directory)) as gateway:
        gateway.announce()
        settings = MqttSettings(**login(), host="127.0.0.1", port=port, store={"enabled": True, "rate": 200})
        runner = gateway.run(MqttBridge, settings, "mqtt")
        start = gateway.clock.now() - timedelta(hours=1)
        for n in range(count):
            time = start + timedelta(seconds=n)
            values = {"ac_power": float(n)}
            gateway.router.publish(
                Snapshot(serial=INVERTER.serial, time=time, source="scripted", interval=60, values=values)
            )
        await until(lambda: runner.bridge._history and runner.bridge._history.waiting >= count)
        print("stored", flush=True)  # noqa: T201 - to whoever started it
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
