"""The brokers that the gateway is run against, each of which can be stopped and started again on its port."""

import asyncio

from tests.clients import programs
from tests.kit.mosquitto import Mosquitto
from tests.kit.ports import free_port
from tests.kit.process import PATIENCE


class Broker:
    """A program of protocol.md. It keeps nothing on disk: stopped, it has forgotten all."""

    def __init__(self, program):
        self.port = free_port()
        self._program = program
        self._process = None

    async def start(self):
        self._process = await programs.started(self._program, self.port)
        async with asyncio.timeout(PATIENCE):
            assert await self._process.stdout.readline() == b"ready\n"

    async def stop(self):
        if self._process is not None:
            self._process.kill()
            # What it still had to say is read, or asyncio waits for it.
            await self._process.communicate()
            self._process = None


def make(program, directory):
    return Broker(program) if program.command else Mosquitto(directory)
