"""The resources of 2030.5 that are used, as values of our own: programs, events and what they ask for."""

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from typing import Final

import msgspec

from gateway.bridges.csip.xml import BadXmlError, Node, bits
from gateway.core.text import MAX_ID, identifier


class Unit(StrEnum):
    """What a mode's value is."""

    WATT = "W"
    PERCENT = "%"
    """Of the device's rated power."""
    SWITCH = ""


MODES: Final[Mapping[str, Unit]] = {
    "opModExpLimW": Unit.WATT,
    "opModImpLimW": Unit.WATT,
    "opModGenLimW": Unit.WATT,
    "opModLoadLimW": Unit.WATT,
    "opModMaxLimW": Unit.PERCENT,
    "opModFixedW": Unit.PERCENT,
    "opModTargetW": Unit.WATT,
    "opModStorageTargetW": Unit.WATT,
    "opModEnergize": Unit.SWITCH,
    "opModConnect": Unit.SWITCH,
}
"""What a DERControlBase may ask for, as far as it is understood here."""
SUPPORTED_BITS: Final = {
    "opModConnect": 2,
    "opModEnergize": 3,
    "opModFixedW": 7,
    "opModMaxLimW": 20,
    "opModTargetW": 22,
}
"""Bits of DERControlType."""
ENVELOPE_BITS: Final = {"opModExpLimW": 0, "opModImpLimW": 1, "opModGenLimW": 2, "opModLoadLimW": 3}
"""Bits of CSIP-AUS' DOEControlType."""
MAX_EXPONENT: Final = 9
MOST_RANDOM: Final = 3600
"""Seconds."""
LAST: Final = 32_503_680_000
"""The year 3000: no time lies beyond."""
LONGEST: Final = 366 * 86_400
"""Seconds for which an event may last; a longer one is taken for so long. It keeps times within what dates can hold."""


class EventStatus(IntEnum):
    """What the server says of an event."""

    SCHEDULED = 0
    ACTIVE = 1
    CANCELLED = 2
    CANCELLED_AT_RANDOM = 3
    SUPERSEDED = 4


class ResponseStatus(IntEnum):
    """What is answered of an event, as far as it is used."""

    RECEIVED = 1
    STARTED = 2
    COMPLETED = 3
    CANCELLED = 6
    SUPERSEDED = 7
    PARTIAL = 8
    """A part of it was not carried out: refused by policy, halted by a person, or failed."""
    NONE_OF_IT = 10
    OTHER_PROGRAM = 14
    """Ended by an event of another program."""
    NOT_APPLICABLE = 252
    INVALID = 253
    TOO_LATE = 254


Modes = Mapping[str, float | bool]
"""Mode → W, % or true, as `MODES` has it."""


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """A DERControl. Times are the server's, in seconds since 1970."""

    mrid: str
    created: int
    start: int
    duration: int
    random_start: int = 0
    random_duration: int = 0
    status: EventStatus = EventStatus.SCHEDULED
    status_time: int = 0
    reply_to: str = ""
    required: int = 0
    """Bits: 1 that it was received is to be said, 2 what becomes of it."""
    modes: Modes
    valid: bool = True
    """False where it could not be read: it is never carried out."""

    @property
    def ends(self) -> int:
        """When it ends, as it was specified."""
        return self.start + self.duration


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """A DERProgram with what hangs on it."""

    mrid: str
    primacy: int
    """The lower, the more it counts."""
    default: Modes = {}
    controls: tuple[Control, ...] = ()


def modes_of(base: Node | None) -> Modes:
    """Return what a DERControlBase asks for. Raises BadXmlError."""
    found: dict[str, float | bool] = {}
    for node in base.children if base is not None else ():
        unit = MODES.get(node.name)
        if unit is Unit.WATT:
            found[node.name] = _scaled(node)
        elif unit is Unit.PERCENT:
            found[node.name] = Node("", {}, children=[node]).needed(node.name) / 100
        elif unit is Unit.SWITCH:
            asked = Node("", {}, children=[node]).flag(node.name)
            if asked is None:
                raise BadXmlError(f"{node.name} is empty")
            found[node.name] = asked
    return found


def _scaled(node: Node) -> float:
    exponent = node.number("multiplier") or 0
    if abs(exponent) > MAX_EXPONENT:
        raise BadXmlError(f"{node.name} has a multiplier of {exponent}")
    value = node.needed("value")
    return float(value * 10**exponent) if exponent >= 0 else value / 10**-exponent


def control_of(node: Node) -> Control:
    """Return a DERControl; one that can't be read is not `valid`. Raises BadXmlError where it has not even an mRID."""
    mrid = mrid_of(node)
    try:
        return _control_of(node, mrid)
    except BadXmlError:
        return Control(
            mrid=mrid, created=0, start=0, duration=0, reply_to=_reply_to(node), required=3, modes={}, valid=False
        )


def _control_of(node: Node, mrid: str) -> Control:
    interval, status = node.one("interval"), node.one("EventStatus")
    if interval is None or status is None:
        raise BadXmlError("a DERControl has no interval or no EventStatus")
    try:
        said = EventStatus(status.needed("currentStatus"))
    except ValueError:
        raise BadXmlError(f"a DERControl has the unknown status {status.string('currentStatus')[:10]}") from None
    return Control(
        mrid=mrid,
        created=node.needed("creationTime"),
        start=time_of(interval.needed("start")),
        duration=min(LONGEST, interval.needed("duration")),
        random_start=_random(node, "randomizeStart"),
        random_duration=_random(node, "randomizeDuration"),
        status=said,
        status_time=time_of(status.number("dateTime") or 0),
        reply_to=_reply_to(node),
        required=bits(node.attributes.get("responseRequired", ""), "responseRequired"),
        modes=modes_of(node.one("DERControlBase")),
    )


def _reply_to(node: Node) -> str:
    return node.attributes.get("replyTo", "")


def time_of(seconds: int) -> int:
    """Return a time. Raises BadXmlError for one that no date can hold."""
    if not 0 <= seconds <= LAST:
        raise BadXmlError(f"{seconds} is no time")
    return seconds


def _random(node: Node, name: str) -> int:
    return max(-MOST_RANDOM, min(MOST_RANDOM, node.number(name) or 0))


def mrid_of(node: Node) -> str:
    """Return the mRID of a thing, in upper case. Raises BadXmlError."""
    found = identifier(node.string("mRID"), MAX_ID).upper()
    if not found:
        raise BadXmlError(f"a {node.name} has no mRID")
    return found
