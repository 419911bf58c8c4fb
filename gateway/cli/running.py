"""What the gateway that runs answers to a command."""

from gateway.bridges.local import HungUpError, LocalClient
from gateway.bridges.local.protocol import Devices, Inventory
from gateway.cli.target import Target


async def inventory_of(target: Target) -> Inventory:
    """Return what is known. Raises NotRunningError or HungUpError."""
    async for reply in LocalClient(target.data_dir).ask(Devices()):
        if isinstance(reply, Inventory):
            return reply
    raise HungUpError
