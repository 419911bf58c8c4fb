"""A gateway with only a Sparkplug bridge, as a process that can be killed: `python -m … PORT DIRECTORY`."""

import asyncio
import sys
from pathlib import Path

from gateway.bridges.mqtt import MqttBridge
from gateway.bridges.mqtt.settings import MqttSettings
from tests.kit.acl import login
from tests.kit.bench import Bench


async def main(port, directory):
    async with Bench(Path(directory)) as gateway:
        gateway.announce()
        gateway.publish(ac_power=1.0)
        gateway.run(
            MqttBridge,
            MqttSettings(**login("sparkplug"), host="127.0.0.1", port=port, payload="sparkplug"),
            "mqtt",
        )
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
