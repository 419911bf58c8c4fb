"""Which numbers there are: those of the configuration or its file, or all that the cloud lists; and what they are."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from gateway.bridges.realtime.plan import PAGE_SIZE
from gateway.bridges.realtime.roster import Roster
from gateway.bridges.realtime.settings import RealtimeSettings
from gateway.core.bridge import Context
from gateway.core.model import Device, DeviceKind
from gateway.sems.budget import Priority
from gateway.sems.calls import Entry, told
from gateway.sems.catalogue import Catalogue, Use
from gateway.sems.plants import Plants, Target
from gateway.sems.session import Session
from gateway.sems.whitelist import read_numbers

FILE_LOOK: Final = 10.0
"""Seconds between looks whether the file of numbers has changed."""
MAX_PAGES: Final = 1000
TICK: Final = 0.01


class Described(msgspec.Struct, frozen=True):
    """What the cloud's list says of a device."""

    name: str = ""
    model: str = ""
    plant: str = ""
    rated_power: float | None = None
    time_zone: str = ""


class Listing:
    """Keeps roster and devices in step with whitelist and list."""

    def __init__(
        self, settings: RealtimeSettings, catalogue: Catalogue, session: Session, context: Context, roster: Roster
    ) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._session = session
        self._context = context
        self._roster = roster
        self._interface = next(catalogue.using(Use.DEVICES), None)
        self._fallback = ZoneInfo(settings.time_zone)
        self._nobody = Target(Device(serial="", kind=DeviceKind.INVERTER), "", self._fallback)
        self._described: dict[str, Described] = {}
        self._kinds: dict[str, DeviceKind] = {}
        """Serial → kind, where an answer told it better than the type."""
        self._odd_zones: set[str] = set()
        self.on_changed: Callable[[], None] = lambda: None
        """Called when numbers may have come or gone."""
        self.devices = Plants()
        """What is announced."""

    # the whitelist

    def begin(self) -> None:
        """Take the numbers of the configuration."""
        self._set(self._settings.whitelist.numbers)

    async def watch_file(self) -> None:
        """Read the file of numbers whenever it changes, for ever. One that can't be used changes nothing."""
        file = self._settings.whitelist.file
        if file is None:
            return
        seen, trouble = _mark(file), ""
        while True:
            await asyncio.sleep(FILE_LOOK)
            mark = _mark(file)
            if mark == seen:
                continue
            seen = mark
            try:
                numbers = read_numbers(file)
            except ValueError as error:
                if str(error) != trouble:
                    self._context.log.warning("the whitelist stays as it was", error=str(error))
                trouble = str(error)
                continue
            trouble = ""
            before = len(self._roster)
            self._set(numbers)
            self._context.log.info("the whitelist was read again", numbers=len(numbers), before=before)

    def _set(self, numbers: Sequence[str]) -> None:
        for serial in self._roster.set(numbers):
            self.devices.drop(serial)
            self._described.pop(serial, None)
            self._context.withdraw(serial)
        self.on_changed()

    # the list

    @property
    def has_list(self) -> bool:
        """Whether there is an interface that lists devices."""
        return self._interface is not None

    async def round(self) -> None:
        """Read the list once. Raises what stands in the way; then all stays as it was."""
        listed: dict[str, tuple[str, Described]] = {}
        for page in range(1, MAX_PAGES + 1):
            entries = await self._page(page)
            new = [entry for entry in entries if entry.serial and entry.serial not in listed]
            for entry in new:
                listed[entry.serial] = entry.type or "", _described(entry)
            if not new:
                break
        if self._settings.whitelist.everything:
            self._set(list(listed))
        for serial, (type_, described) in listed.items():
            if serial in self._roster:
                if type_:
                    self._roster.found(serial, type_)
                self._described[serial] = described
                if self.devices.get(serial) is not None:
                    self.know(serial)

    async def _page(self, page: int) -> list[Entry]:
        if self._interface is None:
            return []
        while wait := self._session.budget.wait(Priority.POLLING):
            await asyncio.sleep(max(wait, TICK))
        data = await self._session.call(self._interface.name, {"page": page, "page_size": PAGE_SIZE})
        now = self._context.clock.now()
        return [entry async for entry in told(self._interface, data, [self._nobody], self.devices, now)]

    # devices

    def target(self, serial: str, type_: str) -> Target:
        """Return a device as answers about it are read."""
        known = self.devices.get(serial)
        if known is not None and known.type == type_:
            return known
        return self._target(serial, type_)

    def know(self, serial: str, said_type: str = "") -> Target:
        """Announce a device of which there are data; `said_type` is what its data call it."""
        kind = self._catalogue.kind_of(said_type) if said_type else None
        if kind is not None:
            self._kinds[serial] = kind
        target = self._target(serial, self._roster.type_of(serial))
        if target != self.devices.get(serial):
            self.devices.put(target)
            self._context.announce(target.device)
        return target

    def _target(self, serial: str, type_: str) -> Target:
        said = self._described.get(serial, Described())
        zone, name = self._zone(said.time_zone)
        kind = self._kinds.get(serial) or self._catalogue.kind_of(type_) or DeviceKind.INVERTER
        device = Device(
            serial=serial,
            kind=kind,
            name=said.name,
            model=said.model,
            plant=said.plant,
            rated_power=said.rated_power,
            time_zone=name,
        )
        return Target(device, type_, zone)

    def _zone(self, name: str) -> tuple[ZoneInfo, str]:
        """Return the zone of that name, and its name where somebody has said it."""
        if name:
            try:
                return ZoneInfo(name), name
            except (ZoneInfoNotFoundError, ValueError, OSError):
                if name not in self._odd_zones:
                    self._odd_zones.add(name)
                    self._context.log.warning(
                        "SEMS names a time zone that does not exist", zone=name, using=self._fallback.key
                    )
        return self._fallback, "" if self._fallback.key == "UTC" else self._fallback.key


def _described(entry: Entry) -> Described:
    reading = entry.reading
    return Described(
        name=reading.text("name"),
        model=reading.text("model"),
        plant=reading.text("plant"),
        rated_power=reading.number("rated_power"),
        time_zone=reading.text("time_zone"),
    )


def _mark(file: Path) -> tuple[int, int]:
    """Return what changes when the file does."""
    try:
        found = file.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size
