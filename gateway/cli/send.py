"""`sems-gateway send`."""

import getpass
import sys
from typing import Annotated

import typer

from gateway.bridges.local import HungUpError, LocalClient, NotRunningError
from gateway.bridges.local.protocol import Outage, Refused, Send, SendFleet, Step
from gateway.cli import fleet as fleet_command
from gateway.cli.config import DataDir, split, target_of
from gateway.cli.loop import run_on_loop
from gateway.cli.output import EXIT_CONFIG, EXIT_FAILED, err, fail, out
from gateway.cli.target import Target
from gateway.core.model import CommandEvent, CommandState
from gateway.terminal import show

_WELL = (CommandState.ACCEPTED, CommandState.SENT, CommandState.SUCCEEDED)


def send(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[CONFIG] SN SETPOINT VALUE",
            help="SN: the device's serial number; none with --fleet",
            show_default=False,
        ),
    ],
    data_dir: DataDir = None,
    wait: Annotated[bool, typer.Option("--wait", help="follow the command to its end")] = False,
    ttl: Annotated[float | None, typer.Option(min=0.001, max=86_400, help="seconds until it expires unsent")] = None,
    revert_after: Annotated[float | None, typer.Option(help="dead-man's timer, seconds")] = None,
    revert_value: Annotated[str | None, typer.Option(help="what to go back to then")] = None,
    fleet: Annotated[bool, typer.Option("--fleet", help="for all devices that match and take it")] = False,
    plant: Annotated[str, typer.Option(help="with --fleet: of this plant only, by its id")] = "",
    kind: Annotated[str, typer.Option(help="with --fleet: of this kind only, e.g. storage")] = "",
    devices_: Annotated[
        list[str] | None, typer.Option("--devices", help="with --fleet: serial numbers or patterns like 9010K*")
    ] = None,
    spread: Annotated[float, typer.Option(min=0, max=86_400, help="with --fleet: seconds to spread it over")] = 0,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="with --fleet: don't ask")] = False,
) -> None:
    """`sems-gateway send`."""
    usage = "send CONFIG SN SETPOINT VALUE, or send CONFIG --fleet SETPOINT VALUE"
    config, rest = split(words, 2 if fleet else 3, data_dir, usage)
    if not fleet and (plant or kind or devices_ or spread or yes):
        fail("--plant, --kind, --devices, --spread and --yes go with --fleet", EXIT_CONFIG)
    target = target_of(config, data_dir)
    if fleet:
        request = SendFleet(
            setpoint=rest[0],
            value=rest[1],
            user=getpass.getuser(),
            plant=plant,
            kind=kind,
            devices=tuple(devices_ or ["*"]),
            ttl=ttl,
            spread=spread,
            revert_after=revert_after,
            revert_value=revert_value,
        )
        _send_fleet(target, request, wait=wait, yes=yes)
        return
    one = Send(
        serial=rest[0],
        setpoint=rest[1],
        value=rest[2],
        user=getpass.getuser(),
        ttl=ttl,
        revert_after=revert_after,
        revert_value=revert_value,
    )
    try:
        last, stranded = run_on_loop(_send(target, one, wait=wait))
    except (NotRunningError, HungUpError) as error:
        fail(str(error))
    if wait and (last is None or not last.state.final):
        err.print("the gateway closed the connection before the command had ended; `audit` shows how it ends")
    well = (CommandState.SUCCEEDED,) if wait or stranded else _WELL
    if last is None or last.state not in well:
        raise typer.Exit(EXIT_FAILED)


def _send_fleet(target: Target, request: SendFleet, *, wait: bool, yes: bool) -> None:
    try:
        wanted = run_on_loop(fleet_command.plan_fleet(target.data_dir, request))
        fleet_command.show_plan(wanted, request, out)
        fleet_command.show_outage(wanted.outage, err)
        if not yes and not sys.stdin.isatty():
            fail("nobody can be asked here; add --yes", EXIT_CONFIG)
        if not yes and not typer.confirm("Send it?"):
            out.print("nothing was sent")
            raise typer.Exit(EXIT_FAILED)
        ending = run_on_loop(fleet_command.carry_out(target.data_dir, request, wanted, out, wait=wait))
    except fleet_command.FleetRefusedError as error:
        fail(str(error), EXIT_CONFIG)
    except (NotRunningError, HungUpError) as error:
        fail(str(error))
    if ending:
        raise typer.Exit(ending)


async def _send(target: Target, request: Send, *, wait: bool) -> tuple[CommandEvent | None, int]:
    """Return the last step that was seen, and whether nobody could carry it out then."""
    last: CommandEvent | None = None
    stranded = 0
    async for reply in LocalClient(target.data_dir).ask(request):
        match reply:
            case Step(event):
                last = event
                out.print(show.step(event))
                if not wait:
                    break
            case Outage():
                stranded = reply.stranded
                fleet_command.show_outage(reply, err)
            case Refused(detail):
                err.print(detail, style="red", markup=False)
            case _:
                pass
    return last, stranded
