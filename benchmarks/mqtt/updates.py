# ruff: noqa: INP001, T201 - a script that prints
"""A gateway's core with an MQTT bridge, updated now and then: `PORT DEVICES ROUNDS PAUSE QOS`.

A source publishes every device once a round, twenty in a turn of the loop; the time at which each round begins is
printed, in seconds since 1970. Commands are carried out by a controller that says yes at once, and journaled on disk.
"""

import asyncio
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import structlog
import uvloop

sys.path.insert(0, str(Path(__file__).parents[2]))

from gateway.bridges.mqtt import MqttBridge
from gateway.bridges.mqtt.settings import MqttSettings
from gateway.core.model import Snapshot
from gateway.core.points import POINTS, SETPOINTS
from tests.kit.bench import Bench, until

NAMES = [name for name in POINTS if name not in SETPOINTS][:40]
SLICE = 20


async def main(port: int, devices: int, rounds: int, pause: float, qos: int) -> None:
    """Run until the rounds are over and whoever started this closes its input."""
    serials = [f"SN{n:05}" for n in range(devices)]
    with tempfile.TemporaryDirectory() as directory:
        async with Bench(Path(directory)) as gateway:
            for serial in serials:
                gateway.announce(serial=serial)
            runner = gateway.run(MqttBridge, MqttSettings(host="127.0.0.1", port=port, qos=qos), "mqtt")
            await until(lambda: any(status.up for status in gateway.router.bridges()), "the bridge is up")
            await until(lambda: not runner.bridge._outbox.filled, "all was told", 120)  # noqa: SLF001
            print("ready", flush=True)
            await asyncio.to_thread(sys.stdin.readline)
            for n in range(rounds):
                began = time.time()
                print(began, flush=True)
                now = gateway.clock.now() + timedelta(milliseconds=n)
                for start in range(0, devices, SLICE):
                    for k, serial in enumerate(serials[start : start + SLICE], start):
                        values = {name: 1000.5 + n + k + p for p, name in enumerate(NAMES)}
                        gateway.router.publish(
                            Snapshot(serial=serial, time=now, source="source", interval=60, values=values)
                        )
                    await asyncio.sleep(0)
                await asyncio.sleep(max(0.0, began + pause - time.time()))
            print("end", flush=True)
            await asyncio.to_thread(sys.stdin.readline)


structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main(*map(int, sys.argv[1:4]), float(sys.argv[4]), int(sys.argv[5])))
