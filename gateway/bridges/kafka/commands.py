"""Commands across a joint: a gateway that serves asks the one that polls, by topic, and hears what became of it.

On the asking side this is a controller. Its commands keep their ids, so on the other side one that comes twice is
executed once, and what is told of an id is told of the same command.
"""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from gateway.api.bridge import Context
from gateway.bridges.kafka import schema
from gateway.bridges.kafka.joined import Joined
from gateway.bridges.kafka.schema import YEARS, BadMessageError, CommandMessage, EventMessage
from gateway.bridges.kafka.settings import JoinSettings, PublishSettings
from gateway.bridges.kafka.skipped import Skipped
from gateway.core.controller import Outcome
from gateway.core.model import Command, CommandState, Origin
from gateway.journal.journal import JournalError
from gateway.kafka import Consumer, Producer, Received

AT_FIRST: Final = 60.0
"""Seconds after a start in which a command may come for a device that has not been found yet."""
LOOK_AGAIN: Final = 0.5
MAX_EARLY_COMMANDS: Final = 10_000
"""Commands that wait for their devices."""
NOT_UNDERSTOOD: Final = "not understood"

_ENDS: Final[Mapping[CommandState, CommandState]] = {
    CommandState.SUCCEEDED: CommandState.SUCCEEDED,
    CommandState.FAILED: CommandState.FAILED,
    CommandState.UNKNOWN: CommandState.UNKNOWN,
    CommandState.REJECTED: CommandState.FAILED,
    CommandState.EXPIRED: CommandState.FAILED,
    CommandState.SUPERSEDED: CommandState.FAILED,
}
"""How a command ends here that has ended so there: it was sent, as far as this side is concerned."""


class Asking:
    """The controller of a gateway that has joined another one."""

    def __init__(self, settings: JoinSettings, context: Context, joined: Joined, skipped: Skipped) -> None:
        self._context = context
        self._joined = joined
        self._skipped = skipped
        self._is_on = settings.commands
        self.commands_topic = settings.topics.name("commands")
        self.events_topic = settings.topics.name("events")

    def takes(self, serial: str, setpoint: str) -> bool:
        """See `Controller.takes`."""
        device = self._joined.devices.get(serial)
        return self._is_on and device is not None and setpoint in device.setpoints

    async def send(self, command: Command, timeout: float, producer: Producer) -> str:
        """See `Controller.send`. The id is the receipt."""
        message = schema.encode(schema.of_command(self._context.gateway_id, command))
        await self._context.keep_receipt(command.id, command.id)
        await producer.send(
            self.commands_topic,
            message,
            key=command.serial,
            timeout=timeout,
            may_leave=partial(self._context.may_leave, command.id),
            still_wanted=partial(self._context.still_wanted, command.id),
        )
        return command.id

    async def hear(self, consumer: Consumer) -> None:
        """Read what the other gateway tells of commands, until cancelled."""
        async for batch in consumer.batches():
            for message in batch:
                try:
                    await self._event(message)
                except BadMessageError as error:
                    self._skipped.note(message, error.kind, str(error))
                except JournalError:
                    raise  # it is read again
                except Exception as error:
                    self._context.log.debug("traceback", exc_info=error)
                    self._skipped.note(message, NOT_UNDERSTOOD, f"it can't be used ({type(error).__name__})")
            consumer.commit(batch)

    async def _event(self, message: Received) -> None:
        if message.value is None:
            raise BadMessageError(*_no_value(message))
        said = schema.decode(EventMessage, message.value, message.key)
        if said.state not in _ENDS or _asked_by(said.origin) != self._context.gateway_id:
            return
        detail = said.detail if said.reason is None else f"{said.reason}: {said.detail}"
        words = f"{said.gateway} says {said.state}: {detail}" if detail else f"{said.gateway} says {said.state}"
        outcome = Outcome(
            _ENDS[said.state], said.detail if said.state is CommandState.SUCCEEDED else words, said.verified
        )
        # Journaled before the offset is committed, so that a crash in between loses nothing.
        await self._context.result_came(said.id, outcome)


class Answering:
    """The origin of a gateway that others have joined."""

    def __init__(self, settings: PublishSettings, context: Context, skipped: Skipped) -> None:
        self._context = context
        self._skipped = skipped
        self._max_ttl = timedelta(seconds=settings.max_ttl)
        self.topic = settings.topics.name("commands")
        self._early: list[Command] = []

    async def run(self, consumer: Consumer) -> None:
        """Submit what comes, until cancelled."""
        self._context.spawn(self._look_again(), "commands for devices not found yet")
        began = self._context.clock.monotonic()
        async for batch in consumer.batches():
            for message in batch:
                try:
                    await self._take(message, may_wait=self._context.clock.monotonic() - began < AT_FIRST)
                except BadMessageError as error:
                    self._skipped.note(message, error.kind, str(error))
                except Exception as error:
                    self._context.log.debug("traceback", exc_info=error)
                    self._skipped.note(message, NOT_UNDERSTOOD, f"it can't be used ({type(error).__name__})")
            consumer.commit(batch)

    async def _take(self, message: Received, *, may_wait: bool) -> None:
        command = self._command(message)
        if self._context.state(command.serial) is not None:
            await self._context.submit(command)
        elif may_wait and len(self._early) < MAX_EARLY_COMMANDS:
            self._early.append(command)
        # Else it is for another gateway that publishes to the same topics.

    def _command(self, message: Received) -> Command:
        """Return the wish in a message; it expires at the earliest of all times that bound it."""
        if message.value is None:
            raise BadMessageError(*_no_value(message))
        said = schema.decode(CommandMessage, message.value, message.key)
        now = self._context.clock.now()
        bounds = [said.expires, now + self._max_ttl]
        if message.timestamp:
            # By the broker's clock where the topic has LogAppendTime: the asking side's own may be wrong.
            try:
                written = datetime.fromtimestamp(message.timestamp / 1000, UTC)
            except (ValueError, OverflowError, OSError):
                raise BadMessageError("its timestamp is no time") from None
            if written.year not in YEARS:
                raise BadMessageError("its timestamp is out of reach")
            bounds.append(written + min(said.expires - said.created, self._max_ttl))
        return Command(
            id=said.id,
            serial=said.serial,
            setpoint=said.setpoint,
            value=said.value,
            origin=_origin(self._context.name, said),
            created=min(said.created, now),
            expires=min(bounds),
        )

    async def _look_again(self) -> None:
        """Submit commands that came before their devices were found; what expires meanwhile is refused as such."""
        until = self._context.clock.monotonic() + AT_FIRST
        while self._context.clock.monotonic() < until:
            await asyncio.sleep(LOOK_AGAIN)
            waiting, self._early = self._early, []
            for command in waiting:
                if self._context.state(command.serial) is None:
                    self._early.append(command)
                else:
                    await self._context.submit(command)
        self._early.clear()


def _no_value(message: Received) -> tuple[str, str]:
    """Return what is wrong with a message without a value, as `BadMessageError` takes it."""
    if message.oversize:
        return "too large", f"it has {message.oversize} bytes; max_bytes says how many are taken"
    return ("it is empty", "")


def _origin(bridge: str, said: CommandMessage) -> Origin:
    """Return who asks: this bridge, with the far bridge's name as the role, and gateway and origin as detail."""
    role = Origin(said.origin).bridge
    role = role if role.replace("-", "").replace("_", "").isalnum() and role.isascii() else "unnamed"
    return Origin(Origin.of(bridge, role, f"{said.gateway} {said.origin}")[:500])


def _asked_by(origin: str) -> str:
    """Return the gateway that an origin made by `_origin` names."""
    return Origin(origin).detail.partition(" ")[0]
