"""What the gateway that runs answers to a command."""

from contextlib import aclosing

from gateway.bridges.local import HungUpError, LocalClient
from gateway.bridges.local.protocol import Devices, Inventory, Reply, Request
from gateway.cli.target import Target


async def inventory_of(target: Target) -> Inventory:
    """Return what is known. Raises NotRunningError or HungUpError."""
    reply = await first_reply(target, Devices())
    if isinstance(reply, Inventory):
        return reply
    raise HungUpError


async def first_reply(target: Target, request: Request) -> Reply:
    """Return the first reply. Raises NotRunningError or HungUpError."""
    async with aclosing(LocalClient(target.data_dir).ask(request)) as replies:
        async for reply in replies:
            return reply
    raise HungUpError
