"""Which device is which unit of which port. Given once and kept, for a SCADA's configuration must not shift."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from gateway.core import files
from gateway.core.bad_json import BAD_JSON
from gateway.core.text import identifier

LAST_UNIT: Final = 247
"""Modbus Messaging on TCP/IP V1.0b, §4.4.2: 1 to 247 are devices, 0 and 255 the gateway itself."""
FORMAT: Final = 1


class UnitsError(OSError):
    """The assignments can't be used as they are. The message says what to do."""


class Place(NamedTuple):
    """Where a device is found."""

    nth: int
    """Which port of the range: 0 for the first. So the range may move as a whole, and all keep their units."""
    unit: int


class _File(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What the file holds."""

    version: int
    units: dict[str, int]
    """Serial → unit."""
    ports: dict[str, int] = {}
    """Serial → which port of the range (0: first), for those that are not on the first one."""


class UnitBook:
    """Serial → place, kept in a JSON file. Pins of the configuration win."""

    def __init__(self, path: Path, pins: Mapping[str, Place], ports: int = 1) -> None:
        self._path = path
        self._pins = pins
        self.ports = ports
        """How many ports there are. A place on one beyond them is kept, and not served."""
        self._places: dict[str, Place] = {}
        self._saved: dict[str, Place] = {}

    def load(self) -> Mapping[str, Place]:
        """Read the file, apply the pins, return serial → place. Writes nothing.

        Raises UnitsError where the file is damaged, or a pin wants the place of another device.
        """
        kept = self._read()
        self._saved = dict(kept)
        self._places = kept | dict(self._pins)
        owners: dict[Place, str] = {}
        for serial, place in self._places.items():
            other = owners.setdefault(place, serial)
            if other != serial:
                raise self._conflict(serial, other, place)
        return self._places

    def ports_for(self, serials: Iterable[str]) -> int:
        """Return how many ports it takes for all of these to have a place, beside what is kept; at least one."""
        kept = [self._places.get(serial) for serial in serials]
        new = kept.count(None)
        count = 1 + max((place.nth for place in kept if place), default=0)
        on = Counter(place.nth for place in self._places.values())
        free = count * LAST_UNIT - sum(on[nth] for nth in range(count))
        while free < new:
            free += LAST_UNIT - on[count]
            count += 1
        return count

    async def assign(self, serials: Iterable[str]) -> list[str]:
        """Give each new device the first free place and store that. Returns those for which none is left.

        Raises OSError where it can't be stored; then the new devices have none.
        """
        places = dict(self._places)
        taken = set(places.values())
        everything = (Place(nth, unit) for nth in range(self.ports) for unit in range(1, LAST_UNIT + 1))
        free = (place for place in everything if place not in taken)
        left_out = []
        for serial in serials:
            if serial in places:
                if self.get(serial) is None:
                    left_out.append(serial)
                continue
            place = next(free, None)
            if place is None:
                left_out.append(serial)
            else:
                places[serial] = place
        if places != self._saved:
            await asyncio.to_thread(self._write, dict(places))
            # Not before: a unit that is shown must be the same after a power cut.
            self._places, self._saved = places, dict(places)
        return left_out

    def free(self, serial: str) -> None:
        """Give the place of a device back, and store that. Raises OSError; then it keeps it."""
        left = {other: place for other, place in self._places.items() if other != serial}
        self._write(left)
        self._places, self._saved = left, dict(left)

    def get(self, serial: str) -> Place | None:
        """Return the place of a device; None where it has none, or one on a port that is not there any more."""
        place = self._places.get(serial)
        return None if place is None or place.nth >= self.ports else place

    def _read(self) -> dict[str, Place]:
        try:
            found = files.read(self._path, _File, FORMAT)
        except FileNotFoundError:
            return {}
        except BAD_JSON as error:
            raise self._damaged(str(error)) from error
        # What names no device was not written by us, and is passed over.
        units = {serial: unit for serial, unit in found.units.items() if identifier(serial) == serial}
        for serial, unit in units.items():
            if not 1 <= unit <= LAST_UNIT:
                raise self._damaged(f"unit {unit} of {serial} is not from 1 to {LAST_UNIT}")
        for serial, nth in found.ports.items():
            if nth < 0 or serial not in found.units:
                raise self._damaged(f"{serial} has a port and no unit, or no such port")
        places = {serial: Place(found.ports.get(serial, 0), unit) for serial, unit in units.items()}
        if len(set(places.values())) < len(places):
            raise self._damaged("two devices have the same unit")
        return places

    def _write(self, places: Mapping[str, Place]) -> None:
        """Replace the file in one step; after a crash either the old or the new one is there."""
        in_order = sorted(places.items(), key=lambda pair: pair[1])
        units = {serial: place.unit for serial, place in in_order}
        ports = {serial: place.nth for serial, place in in_order if place.nth}
        text = msgspec.json.format(msgspec.json.encode(_File(FORMAT, units, ports)), indent=2)
        files.replace(self._path, text + b"\n")

    def _damaged(self, why: str) -> UnitsError:
        return UnitsError(
            f"{self._path}, which keeps the unit of each device, can't be read ({why}); put back a copy of it, "
            "or move it away: then units are given anew, and pins (`units:`) keep those that must not change"
        )

    def _conflict(self, serial: str, other: str, place: Place) -> UnitsError:
        pinned, kept = (serial, other) if serial in self._pins else (other, serial)
        return UnitsError(
            f"unit {place.unit} is pinned to {pinned} (`units:`), but {kept} has had it since before; pin {kept} "
            f"to another unit too, or choose a free unit for {pinned}"
        )


def units_path(data_dir: Path, bridge: str) -> Path:
    """Return where the bridge of this name keeps its assignments."""
    return data_dir / f"{bridge}-units.json"
