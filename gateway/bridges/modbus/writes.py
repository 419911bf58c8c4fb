"""From the registers of a write request to commands, and from their refusal to an exception code."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Final, NamedTuple, Protocol, runtime_checkable

from gateway.bridges.modbus.codec import NotAValueError
from gateway.bridges.modbus.codes import ENDINGS, REFUSALS, ExceptionCode
from gateway.bridges.modbus.image import Image, Layout, Unit
from gateway.core.clock import Clock
from gateway.core.model import Command, CommandEvent, CommandState, Reason, Value, new_command_id
from gateway.core.points import Type
from gateway.core.policy.origins import origin

_WHOLE: Final = (Type.BOOLEAN, Type.ENUM, Type.INTEGER)


class WriteRefusedError(Exception):
    """A write that is answered with an exception."""

    def __init__(self, code: ExceptionCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class Wish(NamedTuple):
    """One setpoint, as a request wants it."""

    setpoint: str
    value: Value
    revert_after: float | None = None
    """Dead-man's timer, seconds."""
    revert_value: Value = None


def wishes(layout: Layout, address: int, payload: bytes) -> list[Wish]:
    """Return what the registers from `address` on, big-endian in `payload`, ask for.

    Raises WriteRefusedError where one of them is not writable (02), a value is cut in half (03), or is none (03).
    """
    end = address + len(payload) // 2
    for register in range(address, end):
        if register not in layout.writable and register not in layout.inside:
            raise WriteRefusedError(ExceptionCode.ILLEGAL_DATA_ADDRESS, f"register {register} is not writable")
    found = []
    at = address
    while at < end:
        row, decode = layout.writable.get(at, (None, None))
        if row is None or decode is None or row.end > end:
            raise WriteRefusedError(
                ExceptionCode.ILLEGAL_DATA_VALUE, f"register {at} is half of a value; write both halves at once"
            )
        try:
            value = decode(payload[2 * (at - address) : 2 * (row.end - address)])
        except NotAValueError as error:
            raise WriteRefusedError(ExceptionCode.ILLEGAL_DATA_VALUE, f"register {at}: {error}") from error
        if row.point is not None and row.point.type in _WHOLE and float(value).is_integer():
            value = int(value)
        found.append(Wish(row.field, value))
        at = row.end
    return found


@runtime_checkable
class Acting(Protocol):
    """A family whose registers are no setpoints: what is written there is done by itself."""

    async def act(self, image: Image, address: int, payload: bytes, who: str) -> None:
        """Do what a write asks for. `who` is an origin. Raises WriteRefusedError."""
        ...


class Writer:
    """Turns write requests into commands; all of a request are accepted, or none."""

    def __init__(
        self,
        submit: Callable[..., Awaitable[Sequence[CommandEvent]]],
        clock: Clock,
        bridge: str,
        ttl: float,
        wait: float | None = None,
    ) -> None:
        self._submit = submit
        self._clock = clock
        self._bridge = bridge
        self._ttl = timedelta(seconds=ttl)
        self._wait = wait
        """Seconds to wait for the ends of commands before a write is answered; None: it is answered at once."""
        self._ends: dict[str, asyncio.Future[CommandEvent | None]] = {}
        """Command id → its end, or None for done, where that is waited for."""

    async def write(self, unit: Unit, role: str, peer: str, address: int, payload: bytes) -> None:
        """Ask for what the registers say. Returns once that is accepted and journaled or, with `wait`, done.

        `role` is the client's, "" for none, `peer` its `ip:port`. Raises WriteRefusedError.
        """
        found = unit.find(address)
        if found is None:
            raise WriteRefusedError(ExceptionCode.ILLEGAL_DATA_ADDRESS, f"register {address} is not writable")
        image, _ = found
        who = origin(self._bridge, role, peer)
        if isinstance(image.family, Acting):
            await image.family.act(image, address, payload, who)
            return
        wanted = image.family.wishes(image, address, payload)
        commands = [self._command(unit.serial, who, wish) for wish in wanted]
        ends = self._expect(commands)
        try:
            if commands:
                await self._ask(commands)
            latch = getattr(image.family, "accepted", None)  # see maps.family.Latching, which imports this module
            if latch is not None:
                latch(image, address, payload, {command.setpoint: command.id for command in commands})
            if ends:
                await self._await_ends(ends)
        finally:
            for command in commands:
                self._ends.pop(command.id, None)

    def note(self, event: CommandEvent) -> None:
        """Take in a step of any command."""
        end = self._ends.get(event.command.id)
        if end is not None and event.state.final and not end.done():
            end.set_result(event)

    def done(self, command_id: str) -> None:
        """Take in that the far side says a command is done, while a read-back is waited for.

        That answers a write: it asks whether the cloud has done it, and polling may take longer than a client waits.
        """
        end = self._ends.get(command_id)
        if end is not None and not end.done():
            end.set_result(None)

    def _command(self, serial: str, who: str, wish: Wish) -> Command:
        now = self._clock.now()
        return Command(
            id=new_command_id(),
            serial=serial,
            setpoint=wish.setpoint,
            value=wish.value,
            origin=who,
            created=now,
            expires=now + self._ttl,
            revert_after=wish.revert_after,
            revert_value=wish.revert_value,
        )

    def _expect(self, commands: Sequence[Command]) -> list[asyncio.Future[CommandEvent | None]]:
        if self._wait is None:
            return []
        ends = [asyncio.get_running_loop().create_future() for _ in commands]
        self._ends.update(zip((command.id for command in commands), ends, strict=True))
        return ends

    async def _await_ends(self, ends: Sequence[asyncio.Future[CommandEvent | None]]) -> None:
        """Return when all have succeeded. Raises WriteRefusedError."""
        ended, waiting = await asyncio.wait(ends, timeout=self._wait)
        for event in (end.result() for end in ended):
            if event is not None and event.state in ENDINGS:
                raise WriteRefusedError(ENDINGS[event.state], event.detail or event.state.value)
        if waiting:
            raise WriteRefusedError(ExceptionCode.ACKNOWLEDGE, f"accepted, and not done after {self._wait:g} s")

    async def _ask(self, commands: Sequence[Command]) -> None:
        """Submit commands: all of them, or none. Raises WriteRefusedError."""
        events = await self._submit(*commands)
        rejected = [event for event in events if event.state is CommandState.REJECTED]
        # Beside the culprit, the others of the request are rejected as BAD_REQUEST: it speaks for all.
        culprit = next((e for e in rejected if e.reason is not Reason.BAD_REQUEST), rejected[0] if rejected else None)
        if culprit is not None:
            code = REFUSALS.get(culprit.reason or Reason.BAD_REQUEST, ExceptionCode.SERVER_DEVICE_FAILURE)
            raise WriteRefusedError(code, culprit.detail)
