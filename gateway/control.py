"""What the command line does about control: by the running gateway, or without one."""

from contextlib import aclosing
from datetime import timedelta

import msgspec

from gateway.app import Gateway
from gateway.bridges.local import LocalClient, NotRunningError
from gateway.bridges.local.protocol import (
    ControlState,
    Explain,
    Explained,
    Failed,
    Refused,
    Reply,
    Request,
    ResumeControl,
    StopControl,
)
from gateway.core.clock import SystemClock
from gateway.core.model import Command, Halt, new_command_id
from gateway.core.policy.checks import Verdict
from gateway.core.policy.halt import HaltError
from gateway.core.policy.origins import origin
from gateway.settings import CLI_BRIDGE, Config


class ControlError(Exception):
    """It was not done, or not wholly. The message says what to do."""


class Explanation(msgspec.Struct, frozen=True):
    """What would become of a command."""

    verdict: Verdict
    running: bool
    """A running gateway said so; else it was found out without one, so that nothing has been commanded of late."""


async def halt(config: Config, user: str, reason: str) -> tuple[Halt | None, bool]:
    """Stop control. Returns how it stands, and whether a gateway runs. Raises ControlError or DataDirError."""
    return await _change(config, StopControl(user, reason))


async def resume(config: Config, user: str) -> tuple[Halt | None, bool]:
    """Let commands in again. See `halt`."""
    return await _change(config, ResumeControl(user))


async def explain(config: Config, request: Explain) -> Explanation:
    """Find out what would become of a command: where no gateway runs, from the configuration and what SEMS has.

    Raises ControlError.
    """
    try:
        reply = await _asked(config, request)
    except NotRunningError:
        return Explanation(await _explained_here(config, request), running=False)
    if isinstance(reply, Explained):
        return Explanation(reply.verdict, running=True)
    raise _failure(reply)


async def _change(config: Config, request: StopControl | ResumeControl) -> tuple[Halt | None, bool]:
    try:
        reply = await _asked(config, request)
    except NotRunningError:
        return await _changed_here(config, request), False
    if isinstance(reply, ControlState):
        return reply.halted, True
    raise _failure(reply)


async def _changed_here(config: Config, request: StopControl | ResumeControl) -> Halt | None:
    by = origin(CLI_BRIDGE, detail=request.user)
    async with Gateway(config).at_rest() as policy:
        try:
            if isinstance(request, StopControl):
                await policy.halting.halt(by, request.reason)
            else:
                await policy.resume(by)
        except HaltError as error:
            raise ControlError(str(error)) from error
        return policy.halting.current


async def _explained_here(config: Config, request: Explain) -> Verdict:
    gateway = Gateway(config)
    await gateway.discover()
    now = SystemClock().now()
    return gateway.explain(
        Command(
            id=new_command_id(),
            serial=request.serial,
            setpoint=request.setpoint,
            value=request.value,
            origin=request.origin,
            created=now,
            expires=now + timedelta(seconds=config.root.control.ttl),
            revert_after=request.revert_after,
            revert_value=request.revert_value,
        )
    )


async def _asked(config: Config, request: Request) -> Reply:
    """Return the first reply. Raises NotRunningError."""
    async with aclosing(LocalClient(config.data_dir).ask(request)) as replies:
        async for reply in replies:
            return reply
    raise NotRunningError("the gateway closed the connection")


def _failure(reply: Reply) -> ControlError:
    return ControlError(reply.detail if isinstance(reply, (Failed, Refused)) else "the gateway said something else")
