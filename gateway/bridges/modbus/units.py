"""Which device is which unit of which port. Given once and kept, for a SCADA's configuration must not shift."""

import asyncio
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import structlog

from gateway.core import files
from gateway.core.bad_json import BAD_JSON
from gateway.core.text import identifier

LAST_UNIT: Final = 247
"""Modbus Messaging on TCP/IP V1.0b, §4.4.2: 1 to 247 are devices, 0 and 255 the gateway itself."""
FORMAT: Final = 1
SUFFIX: Final = "-units.json"
_OLDER: Final = "a file was damaged; what it held before serves"


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
        self._displaced: dict[str, Place] = {}
        """What others had before a pin took it. They stay in the file, and are not served."""

    def load(self) -> Mapping[str, Place]:
        """Read the file, apply the pins, return serial → place. Writes nothing.

        Raises UnitsError where the file is damaged, and what it held before too.
        """
        self._take(self._read())
        return self._places

    def restore(self, log: structlog.stdlib.BoundLogger) -> str:
        """Do as `load` for the bridge that serves them, and log what is wrong with the file, or with a pin.

        Returns why units may not be those they were; "" where they are. Raises OSError.
        """
        lost = ""
        kept: Mapping[str, Place] = {}
        try:
            found = files.whole(self._path, self._decode)
        except FileNotFoundError:
            if _note(self._path).exists():
                lost = f"{self._path}, which keeps the unit of each device, is gone, and its copy too"
                log.error("units are given anew", why=lost)
        except (OSError, *BAD_JSON) as error:
            if isinstance(error, OSError) and not files.is_damage(error):
                raise
            aside = files.put_aside(self._path)
            lost = f"{self._path}, which keeps the unit of each device, can't be read ({error}); it is kept as {aside}"
            log.error("units are given anew", why=lost)
        else:
            kept = found.value
            if found.trouble:
                log.warning(_OLDER, file=str(self._path), error=found.trouble)
                files.mend(self._path)
            with suppress(OSError):  # the next write does it
                self._note_it()
        self._take(kept)
        for why in self.conflicts:
            log.error("a device has no unit", why=why)
        return lost

    @property
    def serials(self) -> Collection[str]:
        """All devices that have a place."""
        return self._places.keys()

    @property
    def conflicts(self) -> list[str]:
        """Which devices have lost their place to a pin, and what to do."""
        owners = {place: serial for serial, place in self._pins.items()}
        return [
            f"unit {place.unit} is pinned to {owners[place]} (`units:`), but {serial} has had it since before, and is "
            f"not served now; pin {serial} to another unit too, choose a free unit for {owners[place]}, or give up "
            f"that of {serial}: `sems-gateway units CONFIG --free {serial}`"
            for serial, place in self._displaced.items()
        ]

    def _take(self, kept: Mapping[str, Place]) -> None:
        taken = set(self._pins.values())
        rest = {serial: place for serial, place in kept.items() if serial not in self._pins}
        self._displaced = {serial: place for serial, place in rest.items() if place in taken}
        self._saved = dict(kept)
        self._places = {s: place for s, place in rest.items() if s not in self._displaced} | dict(self._pins)

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
            if serial in self._displaced:
                left_out.append(serial)
                continue
            if serial in places:
                if self.get(serial) is None:
                    left_out.append(serial)
                continue
            place = next(free, None)
            if place is None:
                left_out.append(serial)
            else:
                places[serial] = place
        if (to_save := self._to_save(places)) != self._saved:
            await asyncio.to_thread(self._write, to_save)
            # Not before: a unit that is shown must be the same after a power cut.
            self._places, self._saved = places, to_save
        return left_out

    def free(self, serial: str) -> None:
        """Give the place of a device back, and store that. Raises OSError; then it keeps it."""
        left = {other: place for other, place in self._places.items() if other != serial}
        displaced = {other: place for other, place in self._displaced.items() if other != serial}
        self._places, self._displaced, before = left, displaced, (self._places, self._displaced)
        try:
            self._write(to_save := self._to_save(left))
        except OSError:
            self._places, self._displaced = before
            raise
        self._saved = to_save

    def move(self, serial: str, to: str) -> None:
        """Give the place of a device to another, e.g. to the inverter it was swapped for. Raises OSError.

        The other one gives up what it had.
        """
        places = {other: place for other, place in self._saved.items() if other not in (serial, to)}
        places[to] = self._saved[serial]
        self._write(places)
        self._take(places)

    def _to_save(self, places: Mapping[str, Place]) -> dict[str, Place]:
        """Return what the file is to hold: of a place that a pin took from another, the other one's."""
        taken = set(self._displaced.values())
        return {serial: place for serial, place in places.items() if place not in taken} | self._displaced

    def get(self, serial: str) -> Place | None:
        """Return the place of a device; None where it has none, or one on a port that is not there any more."""
        place = self._places.get(serial)
        return None if place is None or place.nth >= self.ports else place

    def _read(self) -> dict[str, Place]:
        try:
            return files.whole(self._path, self._decode).value
        except FileNotFoundError:
            return {}
        except (OSError, *BAD_JSON) as error:
            if isinstance(error, OSError) and not files.is_damage(error):
                raise
            raise UnitsError(
                f"{self._path}, which keeps the unit of each device, can't be read ({error}); put back a copy of it; "
                "the gateway begins anew without it, and keeps control closed until `sems-gateway resume`"
            ) from error

    @staticmethod
    def _decode(data: bytes) -> dict[str, Place]:
        """Return what a file says. Raises of BAD_JSON."""
        found = files.decoded(data, _File, FORMAT)
        # What names no device was not written by us, and is passed over.
        units = {serial: unit for serial, unit in found.units.items() if identifier(serial) == serial}
        for serial, unit in units.items():
            if not 1 <= unit <= LAST_UNIT:
                raise msgspec.ValidationError(f"unit {unit} of {serial} is not from 1 to {LAST_UNIT}")
        for serial, nth in found.ports.items():
            if nth < 0 or serial not in found.units:
                raise msgspec.ValidationError(f"{serial} has a port and no unit, or no such port")
        places = {serial: Place(found.ports.get(serial, 0), unit) for serial, unit in units.items()}
        if len(set(places.values())) < len(places):
            raise msgspec.ValidationError("two devices have the same unit")
        return places

    def _write(self, places: Mapping[str, Place]) -> None:
        """Replace the file in one step; after a crash either the old or the new one is there."""
        in_order = sorted(places.items(), key=lambda pair: pair[1])
        units = {serial: place.unit for serial, place in in_order}
        ports = {serial: place.nth for serial, place in in_order if place.nth}
        text = msgspec.json.format(msgspec.json.encode(_File(FORMAT, units, ports)), indent=2)
        files.replace(self._path, text + b"\n")
        # The other copy has the newest units too: a SCADA sets values by them.
        files.replace(files.old(self._path), text + b"\n")
        self._note_it()

    def _note_it(self) -> None:
        """Let it be known that units were given, also where both copies are lost. Raises OSError."""
        if not (note := _note(self._path)).exists():
            files.replace(note, f"{self._path.name} has been written; where it is gone, control is halted\n".encode())


def adopt(path: Path, known: Collection[str], log: structlog.stdlib.BoundLogger) -> None:
    """Take over the units of a bridge that there is no more, where this one has none: perhaps it had another name.

    `known` are the names of all bridges. Which of several it was, nobody can say; that is logged. Raises OSError.
    """
    if path.exists() or files.old(path).exists() or _note(path).exists():
        return
    others = {found.name.removesuffix(SUFFIX): found for found in sorted(path.parent.glob(f"*{SUFFIX}"))}
    gone = {name: found for name, found in others.items() if name not in known}
    if len(gone) > 1:
        log.warning("units are given anew; rename the file of which this bridge is to have them", of=sorted(gone))
    elif gone:
        ((name, found),) = gone.items()
        found.rename(path)
        with suppress(FileNotFoundError):
            files.old(found).rename(files.old(path))
        with suppress(FileNotFoundError):
            _note(found).rename(_note(path))
        log.warning("took over the units of another bridge, which is not configured any more", bridge_before=name)


def _note(path: Path) -> Path:
    """Return what is there once units were given. It tells a bridge that lost them from one that is new."""
    return path.with_name(path.name.removesuffix(".json") + ".given")


def units_path(data_dir: Path, bridge: str) -> Path:
    """Return where the bridge of this name keeps its assignments."""
    return data_dir / f"{bridge}{SUFFIX}"
