"""Which device is which unit. Given once and kept, for a SCADA's configuration must not shift."""

import asyncio
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

LAST_UNIT: Final = 247
"""Modbus Messaging on TCP/IP V1.0b, §4.4.2: 1 to 247 are devices, 0 and 255 the gateway itself."""
FORMAT: Final = 1


class UnitsError(OSError):
    """The assignments can't be used as they are. The message says what to do."""


class _File(msgspec.Struct, forbid_unknown_fields=True):
    """What the file holds."""

    version: int
    units: dict[str, int]
    """Serial → unit."""


class UnitBook:
    """Serial → unit, kept in a JSON file. Pins of the configuration win."""

    def __init__(self, path: Path, pins: Mapping[str, int]) -> None:
        self._path = path
        self._pins = pins
        self._units: dict[str, int] = {}
        self._saved: dict[str, int] = {}

    def load(self) -> Mapping[str, int]:
        """Read the file, apply the pins, return serial → unit. Writes nothing.

        Raises UnitsError where the file is damaged, or a pin wants the unit of another device.
        """
        kept = self._read()
        self._saved = dict(kept)
        self._units = kept | dict(self._pins)
        owners: dict[int, str] = {}
        for serial, unit in self._units.items():
            other = owners.setdefault(unit, serial)
            if other != serial:
                raise self._conflict(serial, other, unit)
        return self._units

    async def assign(self, serials: Iterable[str]) -> list[str]:
        """Give each new device the lowest free unit and store that. Returns those for which none is left.

        Raises OSError where it can't be stored; then the new devices have no unit.
        """
        before = dict(self._units)
        taken = set(before.values())
        free = (unit for unit in range(1, LAST_UNIT + 1) if unit not in taken)
        left_out = []
        for serial in serials:
            if serial in self._units:
                continue
            unit = next(free, None)
            if unit is None:
                left_out.append(serial)
            else:
                self._units[serial] = unit
        if self._units != self._saved:
            try:
                await asyncio.to_thread(self._write, dict(self._units))
            except OSError:
                self._units = before
                raise
            self._saved = dict(self._units)
        return left_out

    def get(self, serial: str) -> int | None:
        """Return the unit of a device."""
        return self._units.get(serial)

    def _read(self) -> dict[str, int]:
        try:
            found = msgspec.json.decode(self._path.read_bytes(), type=_File)
        except FileNotFoundError:
            return {}
        except msgspec.MsgspecError as error:
            raise self._damaged(str(error)) from error
        if found.version != FORMAT:
            raise self._damaged(f"format {found.version}, this gateway knows {FORMAT}")
        for serial, unit in found.units.items():
            if not 1 <= unit <= LAST_UNIT:
                raise self._damaged(f"unit {unit} of {serial} is not from 1 to {LAST_UNIT}")
        if len(set(found.units.values())) < len(found.units):
            raise self._damaged("two devices have the same unit")
        return found.units

    def _write(self, units: Mapping[str, int]) -> None:
        """Replace the file in one step; after a crash either the old or the new one is there."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        in_order = dict(sorted(units.items(), key=lambda pair: pair[1]))
        text = msgspec.json.format(msgspec.json.encode(_File(FORMAT, in_order)), indent=2)
        new = self._path.with_suffix(".json.new")
        with new.open("wb") as file:
            file.write(text + b"\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _damaged(self, why: str) -> UnitsError:
        return UnitsError(
            f"{self._path}, which keeps the unit of each device, can't be read ({why}); put back a copy of it, "
            "or move it away: then units are given anew, and pins (`units:`) keep those that must not change"
        )

    def _conflict(self, serial: str, other: str, unit: int) -> UnitsError:
        pinned, kept = (serial, other) if serial in self._pins else (other, serial)
        return UnitsError(
            f"unit {unit} is pinned to {pinned} (`units:`), but {kept} has had it since before; pin {kept} "
            f"to another unit too, or choose a free unit for {pinned}"
        )


def units_path(data_dir: Path, bridge: str) -> Path:
    """Return where the bridge of this name keeps its assignments."""
    return data_dir / f"{bridge}-units.json"
