"""A gateway that sends one command and waits to be killed: `DATA_DIR PREFIX BOOTSTRAP`. Says the command's id."""

import asyncio
import sys
from pathlib import Path
from types import SimpleNamespace

from gateway.core.model import CommandState

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.bridges.batch.kit import HOUSE, Plant, device
from tests.kit.bench import collected, until


async def main(directory, prefix, servers):
    plant = Plant(Path(directory), SimpleNamespace(plaintext=servers), prefix)
    async with plant as it, collected(it.router) as (it.events, _):
        it.announce(device())
        it.join()
        await it.up()
        command = it.command(serial=HOUSE)
        await it.send(command)
        await until(lambda: [e for e in it.steps(command) if e.state is CommandState.SENT])
        print("sent", command.id, flush=True)  # noqa: T201
        await asyncio.sleep(3600)


asyncio.run(main(*sys.argv[1:]))
