"""Which arguments a call takes for which plants or devices, and whose the entries of its answer are."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec

from gateway.sems.catalogue import Interface, Json, ResponseField
from gateway.sems.normalise import Reading, entries, read
from gateway.sems.plants import Plants, Target

PLANT_ARGS: Final = frozenset({"plant", "plants"})
SERIAL_ARGS: Final = frozenset({"serial", "serials"})
MAX_SERIAL: Final = 64
MAX_ENTRIES: Final = 20_000
"""Of one answer; what is beyond is not looked at."""
YIELD_AFTER_ENTRIES: Final = 20
"""Entries read before others on the loop have their turn."""


class Entry(msgspec.Struct, frozen=True):
    """One object of an answer."""

    serial: str
    """Whose it is; empty where that is unknown."""
    type: str | None
    """Type of device; "" where the answer does not say, None for one that is not known."""
    said_type: str
    """As SEMS said it."""
    reading: Reading


def by_plant(interface: Interface) -> bool:
    """Return whether a call names plants; otherwise it names devices, or nothing."""
    return bool(interface.args & PLANT_ARGS)


def arguments(targets: Sequence[Target]) -> dict[str, object]:
    """Return the arguments for a call about these: of one type, and no more than the interface's batch."""
    first = targets[0]
    return {
        "plant": first.plant,
        "plants": [target.plant for target in targets],
        "serial": first.serial,
        "serials": [target.serial for target in targets],
        "type": first.type,
    }


async def read_entries(
    interface: Interface, data: Json, asked: Sequence[Target], plants: Plants, now: datetime
) -> AsyncIterator[Entry]:
    """Yield what an answer says, entry by entry; others on the loop have their turn in between.

    An entry without a serial number is about the one that was asked about, where it was but one.
    """
    alone = asked[0].serial if len(asked) == 1 else ""
    for count, entry in enumerate(entries(interface, data)[:MAX_ENTRIES], 1):
        serial = text_of(interface, entry, "serial") or alone
        target = plants.get(serial) or asked[0]
        type_, said_type = _type(interface, entry)
        reading = read(interface, entry, target.zone, now, dates=plants.dates)
        plants.dates.note(interface.name, serial, reading.unread)
        yield Entry(serial, type_, said_type, reading)
        if count % YIELD_AFTER_ENTRIES == 0:
            await asyncio.sleep(0)


def text_of(interface: Interface, entry: Mapping[str, Json], attribute: str) -> str:
    """Return what an entry says as text, before anything is read into it; empty where it says nothing usable."""
    _, raw = _raw(interface, entry, attribute)
    if isinstance(raw, bool) or not isinstance(raw, (str, int)):
        return ""
    text = str(raw).strip()
    return text if len(text) <= MAX_SERIAL and text.isprintable() else ""


def _raw(interface: Interface, entry: Mapping[str, Json], attribute: str) -> tuple[ResponseField | None, Json]:
    """Return the first field with a value for the attribute."""
    for row in interface.response:
        if row.attribute == attribute:
            place: Json = dict(entry)
            for key in row.field.split("."):
                place = place.get(key) if isinstance(place, dict) else None
            if place is not None:
                return row, place
    return None, None


def _type(interface: Interface, entry: Mapping[str, Json]) -> tuple[str | None, str]:
    row, raw = _raw(interface, entry, "type")
    if row is None:
        return "", ""
    key = str(int(raw)) if isinstance(raw, float) and raw.is_integer() else str(raw)
    known = row.options.get(key) if row.options else key
    return (known if isinstance(known, str) else None), key[:MAX_SERIAL]
