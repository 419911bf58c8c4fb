"""From the registers of a write request to commands, and from their refusal to an exception code."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Final, NamedTuple

from gateway.bridges.modbus.codec import NotAValueError
from gateway.bridges.modbus.codes import REFUSALS, ExceptionCode
from gateway.bridges.modbus.image import Image, Layout
from gateway.core.clock import Clock
from gateway.core.model import Command, CommandEvent, CommandState, Reason, new_command_id
from gateway.core.points import Type

_WHOLE: Final = (Type.BOOLEAN, Type.ENUM, Type.INTEGER)


class WriteRefusedError(Exception):
    """A write that is answered with an exception."""

    def __init__(self, code: ExceptionCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class Wish(NamedTuple):
    """One setpoint, as a request wants it."""

    setpoint: str
    value: float | int


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


class Writer:
    """Turns write requests into commands; all of a request are accepted, or none."""

    def __init__(
        self, submit: Callable[..., Awaitable[Sequence[CommandEvent]]], clock: Clock, bridge: str, ttl: float
    ) -> None:
        self._submit = submit
        self._clock = clock
        self._bridge = bridge
        self._ttl = timedelta(seconds=ttl)

    async def write(self, image: Image, peer: str, address: int, payload: bytes) -> None:
        """Ask for what the registers say. Returns once that is accepted, and journaled.

        `peer` is the client's `ip:port`. Raises WriteRefusedError.
        """
        now = self._clock.now()
        events = await self._submit(
            *(
                Command(
                    id=new_command_id(),
                    serial=image.serial,
                    setpoint=wish.setpoint,
                    value=wish.value,
                    origin=f"{self._bridge}:{peer}",
                    created=now,
                    expires=now + self._ttl,
                )
                for wish in wishes(image.layout, address, payload)
            )
        )
        rejected = [event for event in events if event.state is CommandState.REJECTED]
        # Beside the culprit, the others of the request are rejected as BAD_REQUEST: it speaks for all.
        culprit = next((e for e in rejected if e.reason is not Reason.BAD_REQUEST), rejected[0] if rejected else None)
        if culprit is not None:
            code = REFUSALS.get(culprit.reason or Reason.BAD_REQUEST, ExceptionCode.SERVER_DEVICE_FAILURE)
            raise WriteRefusedError(code, culprit.detail)
