"""What the command line does about control: by the running gateway, or without one."""

import asyncio
import os
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from gateway.bridges.local import HungUpError, NotRunningError
from gateway.bridges.local.protocol import (
    ControlState,
    Explain,
    Explained,
    Failed,
    Refused,
    Reply,
    ResumeControl,
    StopControl,
)
from gateway.cli.running import first_reply
from gateway.cli.target import Target
from gateway.commands.policy.halt import FILE_NAME, HaltError, Halting
from gateway.commands.policy.policy import ControlSettings, Policy
from gateway.core.clock import SystemClock
from gateway.core.model import Command, Halt, Origin, new_command_id
from gateway.core.verdict import Verdict
from gateway.journal.file import JOURNAL, JournalError
from gateway.journal.journal import Journal
from gateway.run import data_dir
from gateway.run.own_settings import CLI_BRIDGE

if TYPE_CHECKING:
    from gateway.run.settings import Config

ANSWER_WITHIN: Final = 5.0
"""Seconds that a gateway which holds data_dir has to answer, e.g. while it starts."""
ASK_AGAIN: Final = 0.2


class ControlError(Exception):
    """It was not done, or not wholly. The message says what to do."""


class Explanation(msgspec.Struct, frozen=True):
    """What would become of a command."""

    verdict: Verdict
    running: bool
    """A running gateway said so; else it was found out without one, so that nothing has been commanded of late."""


class Changed(msgspec.Struct, frozen=True):
    """How control stands after a halt or a resume."""

    halted: Halt | None
    before: Halt | None
    """How it stood until then."""
    running: bool
    """A running gateway did it; else the next start finds it so."""


async def halt(target: Target, user: str, reason: str) -> Changed:
    """Stop control. Raises ControlError or DataDirError."""
    return await _change(target, StopControl(user, reason))


async def resume(target: Target, user: str) -> Changed:
    """Let commands in again. See `halt`. Raises ConfigError too, where no gateway runs to say who may."""
    return await _change(target, ResumeControl(user))


async def explain(target: Target, request: Explain) -> Explanation:
    """Find out what would become of a command: where no gateway runs, from the configuration and what SEMS has.

    Raises ControlError; ConfigError or NoConfigError where no gateway runs.
    """
    try:
        reply = await first_reply(target, request)
    except NotRunningError:
        return Explanation(await _explained_here(target.config(), request), running=False)
    except HungUpError as error:
        raise ControlError(str(error)) from error
    if isinstance(reply, Explained):
        return Explanation(reply.verdict, running=True)
    raise _failure(reply)


async def _change(target: Target, request: StopControl | ResumeControl) -> Changed:
    clock = SystemClock()
    over = clock.monotonic() + ANSWER_WITHIN
    while (left := over - clock.monotonic()) > 0:
        try:
            async with asyncio.timeout(left):
                reply = await first_reply(target, request)
        except TimeoutError:
            break
        except NotRunningError:
            with suppress(data_dir.HeldError):
                return await _changed_here(target, request)
        except HungUpError:
            pass  # it stops, or was too full to listen: asked again, and else done on the disk
        else:
            if isinstance(reply, ControlState):
                return Changed(reply.halted, reply.before, running=True)
            raise _failure(reply)
        await asyncio.sleep(ASK_AGAIN)
    held = (
        f"another process holds {target.data_dir} and does not answer (`fuser {target.data_dir / 'lock'}` says which)"
    )
    if isinstance(request, ResumeControl):
        raise ControlError(f"{held}; control may be let in again once it does: halt it anew where that is not wanted")
    await _halted_on_disk(target, request)
    raise ControlError(
        f"{held}; the halt is on the disk, where a gateway that still works finds it within seconds, and the next "
        "start does. One that hangs has to be ended"
    )


async def _changed_here(target: Target, request: StopControl | ResumeControl) -> Changed:
    """Change what the next start finds, with data_dir alone. Raises DataDirError, ControlError, ConfigError."""
    by, clock = Origin.of(CLI_BRIDGE, detail=request.user), SystemClock()
    lock = data_dir.hold(target.data_dir)
    journal = Journal(target.data_dir / JOURNAL, clock=clock, others=data_dir.LEFT_BY_A_START)
    halting = Halting(clock, target.data_dir / FILE_NAME, journal.note)
    try:
        # One that can't be opened is no obstacle here: who writes to it gets the error.
        found = None
        with suppress(JournalError):
            await journal.open()
            found = await journal.halt_in_force()
        halting.load()
        await halting.halt_as_audited(found)
        before = halting.current
        if isinstance(request, StopControl):
            await halting.halt(by, request.reason)
        else:
            await Policy(_who_may_resume(target), clock, lambda _: None, halting).resume(by)
    except HaltError as error:
        raise ControlError(str(error)) from error
    finally:
        await journal.close()
        os.close(lock)
    return Changed(halting.current, before, running=False)


def _who_may_resume(target: Target) -> ControlSettings:
    found = data_dir.may_resume(target.file) if target.file is not None else None
    return ControlSettings() if found is None else ControlSettings(resume=tuple(found))


async def _halted_on_disk(target: Target, request: StopControl) -> None:
    """Leave a halt for the next start. The audit is another process's now. Raises ControlError."""
    halting = Halting(SystemClock(), target.data_dir / FILE_NAME)
    halting.load()
    try:
        await halting.halt(Origin.of(CLI_BRIDGE, detail=request.user), request.reason)
    except HaltError as error:
        raise ControlError(str(error)) from error


async def _explained_here(config: "Config", request: Explain) -> Verdict:
    from gateway.run.app import Gateway  # noqa: PLC0415 - a whole gateway, which a halt has no time for

    gateway = Gateway(config)
    await gateway.discover()
    now = SystemClock().now()
    return gateway.explain(
        Command(
            id=new_command_id(),
            serial=request.serial,
            setpoint=request.setpoint,
            value=request.value,
            origin=Origin(request.origin),
            created=now,
            expires=now + timedelta(seconds=config.root.control.ttl),
            revert_after=request.revert_after,
            revert_value=request.revert_value,
        )
    )


def _failure(reply: Reply) -> ControlError:
    return ControlError(reply.detail if isinstance(reply, (Failed, Refused)) else "the gateway said something else")
