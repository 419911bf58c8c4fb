"""Finds what the account holds, by the catalogue's interfaces, and announces it as it goes.

What a round has found is known at once, so polling need not wait for the end of it. What a round has not seen is
withdrawn at its end, but for the devices of plants that could not be looked into.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Final, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from gateway.core.bridge import Context
from gateway.core.errors import RefusedError, UnsureError
from gateway.core.model import Device, DeviceKind, Range
from gateway.core.points import BATTERY, SETPOINTS
from gateway.sems.allowance import Allowance
from gateway.sems.budget import Priority
from gateway.sems.calls import PLANT_ARGS, SERIAL_ARGS, Entry, arguments, told
from gateway.sems.catalogue import Catalogue, Interface, Json, Use
from gateway.sems.normalise import Reading
from gateway.sems.plants import PLANT, Plants, Target
from gateway.sems.session import Session

PAGE_SIZE: Final = 100
MAX_PAGES: Final = 1000
MAX_DEVICES: Final = 10_000
"""Of one plant; what is beyond is hostile."""
KILO: Final = 1000.0
TICK: Final = 0.01
"""Seconds that are not worth dividing: sums of times are not exact."""

T = TypeVar("T")


class _Found(msgspec.Struct):
    """A device, as the answers so far describe it; the first that says something is believed."""

    plant: str
    type: str
    name: str = ""
    model: str = ""
    rated_power: float | None = None
    battery_power_max: float | None = None

    def hear(self, reading: Reading) -> None:
        self.name = self.name or reading.text("name")
        self.model = self.model or reading.text("model")
        if self.rated_power is None:
            self.rated_power = reading.number("rated_power")
        if self.battery_power_max is None:
            self.battery_power_max = reading.number("battery_power_max")


class Discovery:
    """Walks plants and devices."""

    def __init__(
        self, catalogue: Catalogue, session: Session, context: Context, plants: Plants, fallback_zone: ZoneInfo
    ) -> None:
        self._catalogue = catalogue
        self._session = session
        self._context = context
        self._plants = plants
        self._fallback_zone = fallback_zone
        self._listing = [i for i in catalogue.using(Use.DEVICES) if i.args & PLANT_ARGS]
        self._describing = [i for i in catalogue.using(Use.DEVICES) if i.args & SERIAL_ARGS and not i.args & PLANT_ARGS]
        self.allowance = Allowance(session.budget.for_polling, context.clock)
        """Calls an hour; the plan says how many."""
        self.complete = False
        """Whether the last round could look into everything."""
        self._seen: set[str] = set()
        self._plant_ids: set[str] = set()
        """Of the plants listed in this round so far."""
        self._absent: set[str] = set()
        """Devices that came along in another's answers, and in its last one did not."""
        self.on_found: Callable[[], None] = lambda: None
        """Called when something has come."""
        self._said: set[tuple[str, str]] = set()
        """What the log has been told once."""

    async def round(self) -> None:
        """Walk once over everything.

        Raises what stands in the way of all; then nothing is withdrawn. One plant's trouble is its own.
        """
        self._seen, self._plant_ids, self.complete = set(), set(), True
        details = next(self._catalogue.using(Use.DETAIL), None)
        batch = min((i.batch for i in [*self._listing, *([details] if details else [])]), default=1)
        async for listed in self._listed():
            for plants in _batches(list(listed.items()), batch):
                await self._look_into(dict(plants), details)
        for target in self._plants:
            if target.serial not in self._seen and not self._still_carried(target):
                self._plants.drop(target.serial)
                self._context.withdraw(target.serial)
        self._absent &= {target.serial for target in self._plants}

    def _still_carried(self, target: Target) -> bool:
        return target.carrier in self._seen and target.serial not in self._absent

    def answered(self, carrier: Target, serials: set[str]) -> None:
        """Take in which devices came along in the last answer about one that may bring some."""
        known = {target.serial for target in self._plants.of(carrier.plant) if target.carrier == carrier.serial}
        self._absent = (self._absent | known) - serials

    def carried(self, carrier: Target, entry: Entry) -> Target | None:
        """Make a device known that came along in another's answer; None where it can't be one."""
        if not entry.type:
            if entry.type is None:
                self._odd_type(entry)
            return None
        found = _Found(carrier.plant, entry.type)
        found.hear(entry.reading)
        target = self._target(entry.serial, found, carrier.zone, carrier.device.time_zone, carrier.serial)
        if target is not None:
            self._know(target)
        return target

    # plants

    async def _listed(self) -> AsyncIterator[dict[str, str]]:
        """Yield the plants page by page, id → name.

        A page may be shorter than asked for and not be the last, so it ends with the first that brings nothing new.
        """
        interface = next(self._catalogue.using(Use.PLANTS))
        short = False
        for page in range(1, MAX_PAGES + 1):
            try:
                data = await self._call(interface, {"page": page, "page_size": PAGE_SIZE})
            except RefusedError:
                if page > 1 and short:
                    return  # there is no such page
                raise
            listed = {e.serial: e.reading.text("name") async for e in self._told(interface, data) if e.serial}
            new = {serial: name for serial, name in listed.items() if serial not in self._plant_ids}
            if not new:
                return
            short = len(listed) < PAGE_SIZE
            self._plant_ids |= new.keys()
            yield new

    async def _look_into(self, names: dict[str, str], details: Interface | None) -> None:
        """Announce plants, one or a batch, and their devices."""
        try:
            found = await self._inspect(names, details)
        except (UnsureError, RefusedError) as error:
            if len(names) > 1:  # whose trouble it is shows when each is asked about alone
                for serial, name in names.items():
                    await self._look_into({serial: name}, details)
                return
            (serial,) = names
            if ("plant", serial) not in self._said:
                self._said.add(("plant", serial))
                self._context.log.warning("plant can't be looked into", plant=serial, error=str(error))
            self._seen |= {target.serial for target in self._plants.of(serial)}
            self.complete = False
            return
        for serial in names:
            if ("plant", serial) in self._said:
                self._said.discard(("plant", serial))
                self._context.log.info("plant can be looked into again", plant=serial)
        for target in found:
            if target.serial not in self._seen:
                self._seen.add(target.serial)
                self._know(target)
                await asyncio.sleep(0)

    async def _inspect(self, names: dict[str, str], details: Interface | None) -> list[Target]:
        known = {serial: self._plant_target(serial, name, Reading({}, {})) for serial, name in names.items()}
        asked = list(known.values())
        if details is not None:
            data = await self._call(details, arguments(asked))
            async for entry in told(details, data, asked, self._plants, self._context.clock.now()):
                if entry.serial in known:
                    known[entry.serial] = self._plant_target(entry.serial, names[entry.serial], entry.reading)
        devices = await self._devices(list(known.values()))
        return [*known.values(), *(d for d in devices if d.serial not in known)]

    def _plant_target(self, serial: str, name: str, detail: Reading) -> Target:
        zone, said = self._zone(detail.text("time_zone"))
        capacity = detail.values.get("capacity")
        device = Device(
            serial=serial,
            kind=DeviceKind.PLANT,
            name=detail.text("name") or name,
            rated_power=capacity * KILO if isinstance(capacity, float) else None,
            time_zone=said,
        )
        return Target(device, PLANT, zone)

    # devices

    async def _devices(self, plants: Sequence[Target]) -> list[Target]:
        """Return the devices of these plants."""
        found: dict[str, _Found] = {}
        asked = {plant.serial: plant for plant in plants}
        failed: list[RefusedError | UnsureError] = []
        for interface in self._listing:
            for some in _batches(plants, interface.batch):
                try:
                    data = await self._call(interface, arguments(some))
                except (RefusedError, UnsureError) as error:
                    failed.append(error)
                    self._keep(interface, some, error)
                    continue
                async for entry in told(interface, data, some, self._plants, self._context.clock.now()):
                    home = entry.reading.text("plant") or (some[0].serial if len(some) == 1 else "")
                    if home in asked and self._is_device(interface, entry) and len(found) < MAX_DEVICES:
                        type_ = entry.type or next(iter(interface.of), "")
                        found.setdefault(entry.serial, _Found(home, type_)).hear(entry.reading)
        if failed and len(failed) == len(self._listing):
            raise failed[0]
        for interface in self._describing:
            await self._describe(interface, found, asked)
        targets = (
            self._target(serial, device, asked[device.plant].zone, asked[device.plant].device.time_zone)
            for serial, device in found.items()
        )
        return [target for target in targets if target is not None]

    def _keep(self, interface: Interface, plants: Sequence[Target], error: Exception) -> None:
        """Let stand what one list would tell of, where the others are there: not every account has every form."""
        if ("list", interface.name) not in self._said:
            self._said.add(("list", interface.name))
            self._context.log.warning("SEMS does not list some devices", interface=interface.name, error=str(error))
        self._seen |= {t.serial for plant in plants for t in self._plants.of(plant.serial) if t.type in interface.of}

    async def _describe(self, interface: Interface, found: dict[str, _Found], asked: dict[str, Target]) -> None:
        """Ask for what else is known of devices. Without an answer they go by what the list says."""
        serials = [serial for serial, device in found.items() if device.type in interface.of]
        for some in _batches(serials, interface.batch):
            plant = asked[found[some[0]].plant]
            args: dict[str, object] = {"serials": some, "serial": some[0]}
            try:
                data = await self._call(interface, args)
            except (RefusedError, UnsureError) as error:
                if (interface.name, "") not in self._said:
                    self._said.add((interface.name, ""))
                    self._context.log.warning("SEMS does not describe devices", interface=interface.name,
                                              error=str(error))  # fmt: skip
                return
            self._said.discard((interface.name, ""))
            async for entry in told(interface, data, [plant], self._plants, self._context.clock.now()):
                serial = some[0] if entry.serial == plant.serial and len(some) == 1 else entry.serial
                if serial in found:
                    found[serial].hear(entry.reading)

    def _is_device(self, interface: Interface, entry: Entry) -> bool:
        if not entry.serial or entry.serial in self._plant_ids:
            return False
        if entry.type is None or (entry.type and entry.type not in interface.of):
            self._odd_type(entry)
            return False
        return True

    def _odd_type(self, entry: Entry) -> None:
        if ("type", entry.said_type) not in self._said:
            self._said.add(("type", entry.said_type))
            self._context.log.warning(
                "SEMS has a type of device that the catalogue does not know; it is left out",
                device_type=entry.said_type,
                serial=entry.serial,
            )

    def _target(self, serial: str, found: _Found, zone: ZoneInfo, said: str, carrier: str = "") -> Target | None:
        kind = self._catalogue.kind_of(found.type)
        if kind is None or kind is DeviceKind.PLANT:
            return None
        most = found.rated_power if found.battery_power_max is None else found.battery_power_max
        device = Device(
            serial=serial,
            kind=kind,
            name=found.name,
            model=found.model,
            plant=found.plant,
            rated_power=found.rated_power,
            time_zone=said,
            setpoints=self._setpoints(found.type, most),
        )
        return Target(device, found.type, zone, carrier)

    def _setpoints(self, type_: str, battery_most: float | None) -> dict[str, Range]:
        """Return what a device of this type takes, by the catalogue's control interfaces."""
        taken = [SETPOINTS[s] for interface in self._catalogue.using(Use.CONTROL, type_) for s in interface.setpoints]
        return {
            point.id: Range(point.low, battery_most if (point.group, point.unit) == (BATTERY, "W") else point.high)
            for point in taken
        }

    def _know(self, target: Target) -> None:
        self._plants.put(target)
        self._context.announce(target.device)
        self.on_found()

    # the way of a call

    async def _call(self, interface: Interface, args: dict[str, object]) -> Json:
        """Make a call when there is one to make: discovery has its own part of the account's calls."""
        while wait := max(self.allowance.wait(), self._session.budget.wait(Priority.POLLING)):
            await asyncio.sleep(max(wait, TICK))
        self.allowance.take()
        return await self._session.call(interface.name, args)

    async def _told(self, interface: Interface, data: Json) -> AsyncIterator[Entry]:
        nobody = self._plant_target("", "", Reading({}, {}))
        async for entry in told(interface, data, [nobody], self._plants, self._context.clock.now()):
            yield entry

    def _zone(self, name: str) -> tuple[ZoneInfo, str]:
        """Return the zone of that name, and its name where it is one that somebody has said."""
        if name:
            try:
                return ZoneInfo(name), name
            except (ZoneInfoNotFoundError, ValueError, OSError):
                if ("zone", name) not in self._said:
                    self._said.add(("zone", name))
                    self._context.log.warning(
                        "SEMS names a time zone that does not exist", zone=name, using=self._fallback_zone.key
                    )
        fallback = self._fallback_zone.key
        return self._fallback_zone, "" if fallback == "UTC" else fallback


def _batches(items: Sequence[T], size: int) -> Iterable[list[T]]:
    return [list(items[start : start + size]) for start in range(0, len(items), size)]
