"""What the account holds, as far as it is known: its plants and their devices."""

from collections.abc import Iterator
from datetime import tzinfo

import msgspec

from gateway.core.model import Device
from gateway.sems.times import Dates

PLANT = "plant"
"""The catalogue's type for plants."""


class Target(msgspec.Struct, frozen=True):
    """A plant or a device."""

    device: Device
    type: str
    """As the catalogue has it, e.g. `sec1000` where the device's kind is `data_logger`."""
    zone: tzinfo
    """The plant's, for times that come without one; UTC where `device.time_zone` names none."""
    carrier: str = ""
    """Serial of the device in whose answers it was found, and comes along; empty where a list has it."""

    @property
    def serial(self) -> str:
        """The device's serial number, or the plant's id."""
        return self.device.serial

    @property
    def plant(self) -> str:
        """Id of the plant it belongs to; a plant belongs to itself."""
        return self.device.plant or self.device.serial


class Plants:
    """The account's plants and devices."""

    def __init__(self, dates: Dates | None = None) -> None:
        self.dates = Dates() if dates is None else dates
        """How the account writes dates."""
        self._targets: dict[str, Target] = {}
        self._members: dict[str, set[str]] = {}
        self._former: dict[str, Target] = {}
        """Those that are known no more: what was promised about one can still be done."""
        self.revision = 0
        """Grows when a target comes, goes or moves."""
        self.looked_for = False
        """Whether the account's devices were looked for, to the end, since the start; until then some may yet come."""

    def __len__(self) -> int:
        return len(self._targets)

    def __iter__(self) -> Iterator[Target]:
        return iter(list(self._targets.values()))

    def get(self, serial: str) -> Target | None:
        """Return what is known of a serial number."""
        return self._targets.get(serial)

    def known(self, serial: str) -> Target | None:
        """Return what is, or was, known of a serial number."""
        return self._targets.get(serial) or self._former.get(serial)

    def of(self, plant: str) -> list[Target]:
        """Return a plant and its devices, as far as they are known."""
        return [self._targets[serial] for serial in sorted(self._members.get(plant, ()))]

    def put(self, target: Target) -> None:
        """Make a target known, or known better."""
        known = self._targets.get(target.serial)
        if known == target:
            return
        if known is None or (known.type, known.plant, known.carrier) != (target.type, target.plant, target.carrier):
            if known is not None:
                self._leave(known)
            self._members.setdefault(target.plant, set()).add(target.serial)
            self.revision += 1
        self._targets[target.serial] = target
        self._former.pop(target.serial, None)

    def move(self, plant: str, zone: tzinfo, name: str) -> list[Target]:
        """Put a plant and its devices into a zone, for it was found out; return them."""
        moved = [
            msgspec.structs.replace(target, zone=zone, device=msgspec.structs.replace(target.device, time_zone=name))
            for target in self.of(plant)
        ]
        for target in moved:
            self.put(target)
        return moved

    def drop(self, serial: str) -> None:
        """Forget a target."""
        known = self._targets.pop(serial, None)
        if known is not None:
            self._leave(known)
            self._former[serial] = known
            self.revision += 1

    def _leave(self, target: Target) -> None:
        members = self._members[target.plant]
        members.discard(target.serial)
        if not members:
            del self._members[target.plant]
