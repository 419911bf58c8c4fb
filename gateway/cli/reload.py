"""`sems-gateway reload`."""

from rich.markup import escape

from gateway.bridges.local import HungUpError, NotRunningError
from gateway.bridges.local.protocol import Failed, Refused, Reload, Reloaded
from gateway.cli.config import DataDir, MaybeConfig, target_of
from gateway.cli.loop import run_on_loop
from gateway.cli.output import EXIT_CONFIG, err, fail, out
from gateway.cli.running import first_reply


def reload(config: MaybeConfig = None, data_dir: DataDir = None) -> None:
    """`sems-gateway reload`."""
    try:
        reply = run_on_loop(first_reply(target_of(config, data_dir), Reload()))
    except (NotRunningError, HungUpError) as error:
        fail(str(error))
    if isinstance(reply, Reloaded):
        done, *warnings = reply.done.splitlines()
        out.print(done, markup=False)
        for warning in warnings:
            err.print(f"[yellow]warning:[/] {escape(warning)}")
        return
    if isinstance(reply, Failed | Refused):
        for line in reply.detail.splitlines():
            err.print(line, style="red", markup=False)
    fail("nothing has changed; the gateway goes on with what it had", EXIT_CONFIG)
