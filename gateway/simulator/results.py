"""How results of batch commands can go wrong on their way back."""

import asyncio
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Annotated, Final, Generic, TypeVar

import msgspec

from gateway.sems.catalogue import Json

LARGE: Final = 10 * 1024 * 1024
"""Bytes of a result that nobody should read to the end."""
STRANGER: Final = "NOBODYS0000W0001"
"""A serial number that no request has named."""

Entry = dict[str, Json]
Encode = Callable[[Sequence[Entry]], bytes]
"""Makes a message of entries."""


class Mishap(StrEnum):
    """What becomes of a message with results."""

    LATE = "late"
    """It comes `delay` seconds later."""
    MISSING = "missing"
    """It never comes. What it reports was done."""
    DOUBLE = "double"
    SPLIT = "split"
    """One message a device."""
    CONTRADICTORY = "contradictory"
    """Another follows that says the opposite of each device."""
    NOT_JSON = "not_json"
    """Before it comes one that makes no sense."""
    LARGE = "large"
    """Before it comes one of 10 MB."""
    STRANGE = "strange"
    """It has a field that nobody knows, and a device that nobody asked for."""


Delay = Annotated[float, msgspec.Meta(ge=0, le=3600)]


class Fault(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What is spoilt: the answers to calls, or the results of batch requests."""

    delay: Delay = 0.0
    """Seconds before they come."""
    api: str = ""
    """Name of the catalogue it concerns; empty for all."""
    interfaces: tuple[str, ...] = ()
    """Names of those it concerns; empty for all."""
    times: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """How many; None: until another order comes."""

    def concerns(self, api: str, interface: str) -> bool:
        """Return whether it spoils what this interface gives, and count it."""
        if self.times == 0 or (self.api and self.api != api) or (self.interfaces and interface not in self.interfaces):
            return False
        if self.times is not None:
            self.times -= 1
        return True


class ResultFault(Fault, kw_only=True, forbid_unknown_fields=True):
    """How results are spoilt."""

    result: Mishap


AnyFault = TypeVar("AnyFault", bound=Fault)


class Faults(Generic[AnyFault]):
    """What is spoilt now."""

    def __init__(self) -> None:
        self.listed: tuple[AnyFault, ...] = ()
        """The first that concerns a call spoils it."""

    def of(self, api: str, interface: str) -> AnyFault | None:
        """Return what spoils what this interface gives."""
        return next((fault for fault in self.listed if fault.concerns(api, interface)), None)


class Wording(msgspec.Struct, frozen=True):
    """What entries are made of, in the words of the catalogue."""

    serial: str
    code: str
    done: str
    not_done: str


def _opposite(entries: Sequence[Entry], words: Wording) -> list[Entry]:
    return [
        entry | {words.code: words.not_done if entry[words.code] == words.done else words.done} for entry in entries
    ]


def _strange(entries: Sequence[Entry], words: Wording) -> list[Entry]:
    return [
        *({**entry, "mood": "fine"} for entry in entries),
        {words.serial: STRANGER, words.code: words.done},
        {"mood": "none"},
    ]


MESSAGES: Final[dict[Mishap, Callable[[Sequence[Entry], Wording, Encode], list[bytes]]]] = {
    Mishap.LATE: lambda entries, _, encode: [encode(entries)],
    Mishap.MISSING: lambda _, __, ___: [],
    Mishap.DOUBLE: lambda entries, _, encode: [encode(entries)] * 2,
    Mishap.SPLIT: lambda entries, _, encode: [encode([entry]) for entry in entries],
    Mishap.CONTRADICTORY: lambda entries, words, encode: [encode(entries), encode(_opposite(entries, words))],
    Mishap.NOT_JSON: lambda entries, _, encode: [b"\xff{not json", b"[]", b"null", encode(entries)],
    Mishap.LARGE: lambda entries, _, encode: [b'{"requestId":"' + b"x" * LARGE + b'"}', encode(entries)],
    Mishap.STRANGE: lambda entries, words, encode: [encode(_strange(entries, words))],
}
"""Mishap → the messages there are instead of one."""


async def spoilt(fault: ResultFault | None, entries: Sequence[Entry], words: Wording, encode: Encode) -> list[bytes]:
    """Return the messages that bring these entries, when their time has come."""
    if fault is None:
        return [encode(entries)] if entries else []
    if fault.delay:
        await asyncio.sleep(fault.delay)
    return MESSAGES[fault.result](entries, words, encode)
