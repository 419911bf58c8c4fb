"""Which devices there are, whether a gateway runs or not."""

from typing import TYPE_CHECKING

from gateway.bridges.local import HungUpError, NotRunningError
from gateway.bridges.local.protocol import Inventory
from gateway.cli.config import fail_with
from gateway.cli.loop import log_errors_only, run_on_loop
from gateway.cli.output import err, fail
from gateway.cli.running import inventory_of
from gateway.cli.target import NoConfigError, Target
from gateway.config.document import ConfigError

if TYPE_CHECKING:
    from gateway.run.settings import Config


def known(target: Target) -> Inventory:
    """Return what the running gateway knows, or else what SEMS says now."""
    try:
        return run_on_loop(inventory_of(target))
    except HungUpError as error:
        fail(str(error))
    except NotRunningError as not_running:
        log_errors_only()
        try:
            config = target.config()
        except NoConfigError as error:
            fail(str(error))
        except ConfigError as error:
            err.print(str(not_running), style="red", markup=False)
            fail_with(error)
        err.print("No gateway runs with this configuration; asking SEMS.")
        return run_on_loop(discovered(config))


async def discovered(config: "Config") -> Inventory:
    """Return what the account has now."""
    from gateway.run.app import Gateway  # noqa: PLC0415 - a whole gateway, which one that runs makes needless

    gateway = Gateway(config)
    await gateway.discover()
    return Inventory(list(gateway.router.announced()), list(gateway.router.bridges()))
