"""Finds what the account holds, by the catalogue's interfaces, and announces it as it goes.

What a round has found is known at once, so polling need not wait for the end of it. What a round has not seen is
withdrawn at its end, but for the devices of plants that could not be looked into, and for what only a list that is
doubted does not name any more. What SEMS refuses costs what it alone brings; the configuration may stand in for lists.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import tzinfo
from typing import Final, TypeVar

from gateway.api.bridge import Context
from gateway.bridges.open_api.settings import NOTHING_GIVEN, Given
from gateway.core.errors import RefusedError, UnsureError
from gateway.core.model import Device, DeviceKind, Range
from gateway.core.points import BATTERY, SETPOINTS
from gateway.sems.account_times import AccountTimes
from gateway.sems.budget import HOUR
from gateway.sems.calls import PLANT_ARGS, SERIAL_ARGS, Entry, arguments, read_entries
from gateway.sems.catalogue import Catalogue, Interface, Json, Use
from gateway.sems.discovery import Discovery, Found
from gateway.sems.listed import Listed
from gateway.sems.normalise import Reading
from gateway.sems.plants import PLANT, Plants, Target
from gateway.sems.refusals import Refusals
from gateway.sems.session import Session

MAX_DEVICES: Final = 10_000
"""Of one plant; what is beyond is hostile."""
KILO: Final = 1000.0
RETRY_INCOMPLETE: Final = 300.0
"""Seconds until plants are looked into again of which one could not be."""

T = TypeVar("T")


class PlantDiscovery(Discovery):
    """Walks plants and devices."""

    def __init__(
        self,
        catalogue: Catalogue,
        session: Session,
        context: Context,
        plants: Plants,
        times: AccountTimes,
        given: Given = NOTHING_GIVEN,
        listed: Listed | None = None,
        interval: float = HOUR,
    ) -> None:
        super().__init__(catalogue, session, context, plants, times)
        self._interval = interval
        self._listing = [i for i in catalogue.using(Use.DEVICES) if i.args & PLANT_ARGS]
        self._describing = [i for i in catalogue.using(Use.DEVICES) if i.args & SERIAL_ARGS and not i.args & PLANT_ARGS]
        self.complete = False
        """Whether the last round could look into everything."""
        self._seen: set[str] = set()
        self._plant_ids: set[str] = set()
        """Of the plants listed in this round so far."""
        self._absent: set[str] = set()
        """Devices that came along in another's answers, and in its last one did not."""
        self._said: set[tuple[str, str]] = set()
        """What was logged once."""
        self._given = given
        self._unlisted = False
        """Whether the list of plants was refused in this round."""
        self._refused_alone: set[str] = set()
        """Interfaces of details that were refused for a plant by itself: no batch need be taken apart for that."""
        self._kept = listed
        """Where what is listed is kept over restarts; None where it is not."""
        self._before_restart: list[str] | None = None
        """What was listed before the restart, until it is listed again or believed to be gone; None at first."""
        self.unsure = False
        """Whether what is listed since the start is doubted: there may be more, of which nothing is known here yet."""
        self.refusals = Refusals(context)
        """Interfaces that SEMS refuses; also those that polling asks for."""

    @property
    def interval(self) -> float:
        """See `Discovery.interval`."""
        return self._interval if self.complete else min(self._interval, RETRY_INCOMPLETE)

    @property
    def blind(self) -> bool:
        """See `Discovery.blind`."""
        return not len(self.devices)

    async def round(self) -> None:
        """Walk once over everything.

        Raises what stands in the way of all; then nothing is withdrawn. One plant's trouble is its own.
        """
        self._seen, self._plant_ids, self.complete = set(), set(), True
        if self._before_restart is None:
            self._before_restart = [] if self._kept is None else self._kept.restore()
        before = [target for target in self.devices if not target.carrier]
        details = next(self._catalogue.using(Use.DETAIL), None)
        batch = min((i.batch for i in [*self._listing, *([details] if details else [])]), default=1)
        async for listed in self._listed():
            for plants in _batches(list(listed.items()), batch):
                await self._look_into(dict(plants), details)
        self._know_given()
        await self._doubt(before)
        self._doubt_restart()
        for target in self.devices:
            is_carried = target.carrier in self._seen and target.serial not in self._absent
            if target.serial not in self._seen and not is_carried:
                self.devices.drop(target.serial)
                self._context.withdraw(target.serial)
        known = {target.serial for target in self.devices}
        self._absent &= known
        self._doubts.keep(known | {""})
        if self._kept is not None and self.complete and not self._doubts:
            await self._kept.keep([target.serial for target in self.devices if not target.carrier])

    def _doubt_restart(self) -> None:
        """Doubt a first look that has lost much of what was listed before the restart: nothing else here knows that."""
        had = self._before_restart
        if had and self.complete:
            self.unsure = not self._doubts.believe("", "all that was listed before the restart", had, self._seen)
            self._before_restart = had if self.unsure else []

    async def _doubt(self, before: Sequence[Target]) -> None:
        """Have what is not listed any more count as seen, where its list is doubted."""
        homes: dict[str, list[Target]] = {}
        for target in before:
            homes.setdefault(target.plant, []).append(target)
        plants = [target.serial for target in before if target.type == PLANT]
        believed = not self._unlisted and self._doubts.believe("", "the list of plants", plants, self._plant_ids)
        for plant, members in homes.items():
            if plant not in self._plant_ids:
                if not believed:
                    self._seen.update(target.serial for target in members)
                continue
            for interface in self._listing:
                mine = [target.serial for target in members if target.type in interface.of]
                if mine and not self._doubts.believe(plant, interface.name, mine, self._seen):
                    self._seen.update(mine)
            await asyncio.sleep(0)

    def answered(self, carrier: Target, serials: set[str]) -> None:
        """Take in which devices came along in the last answer about one that may bring some."""
        known = {target.serial for target in self.devices.of(carrier.plant) if target.carrier == carrier.serial}
        if self._doubts.believe(carrier.serial, "what comes along with it", known, serials):
            self._absent |= known
        self._absent -= serials

    def carried(self, carrier: Target, entry: Entry) -> Target | None:
        """Make a device known that came along in another's answer; None where it can't be one."""
        if not entry.type:
            if entry.type is None:
                self._odd_type(entry)
            return None
        found = Found(carrier.plant, entry.type)
        found.add(entry.reading)
        target = self._target(entry.serial, found, carrier.zone, carrier.device.time_zone, carrier.serial)
        if target is not None:
            self._know(target)
        return target

    # plants

    async def _listed(self) -> AsyncIterator[dict[str, str]]:
        """Yield the plants page by page, id → name."""
        interface, self._unlisted = next(self._catalogue.using(Use.PLANTS)), False
        try:
            async for entries in self.pages(interface):
                new = {entry.serial: entry.reading.text("name") for entry in entries}
                self._plant_ids |= new.keys()
                yield new
        except (RefusedError, UnsureError) as error:
            if self._plant_ids or not (self._given.plants or self._given.devices):
                raise
            # Those of the configuration stand in.
            self._unlisted = True
            self.complete = self.complete and isinstance(error, RefusedError)
        given = {plant: "" for plant in self._given.plants if plant not in self._plant_ids}
        self._plant_ids |= given.keys()
        if given:
            yield given

    async def _look_into(self, names: dict[str, str], details: Interface | None) -> None:
        """Announce plants, one or a batch, and their devices."""
        try:
            found = await self._inspect(names, details)
        except (UnsureError, RefusedError):
            # Of a batch alone: whose trouble it is shows when each is asked about by itself.
            for serial, name in names.items():
                await self._look_into({serial: name}, details)
            return
        for target in found:
            if target.serial not in self._seen:
                self._seen.add(target.serial)
                self._know(target)
                await asyncio.sleep(0)

    async def _inspect(self, names: dict[str, str], details: Interface | None) -> list[Target]:
        """Return plants and their devices. Raises, of a batch, what may be the trouble of one of them."""
        known = {serial: self._plant_target(serial, name, Reading({}, {})) for serial, name in names.items()}
        asked = list(known.values())
        trouble: RefusedError | UnsureError | None = None
        if details is not None:
            try:
                data = await self.call(details, arguments(asked))
            except (UnsureError, RefusedError) as error:
                if len(names) > 1 and details.name not in self._refused_alone:
                    raise
                trouble = error
                if isinstance(error, RefusedError):
                    self._refused_alone.add(details.name)
                known |= {s: t for s in names if (t := self.devices.get(s)) is not None and t.type == PLANT}
            else:
                self._refused_alone.discard(details.name)
                async for entry in read_entries(details, data, asked, self.devices, self._context.clock.now()):
                    if entry.serial in known:
                        known[entry.serial] = self._plant_target(entry.serial, names[entry.serial], entry.reading)
        devices, failed = await self._devices(list(known.values()))
        if failed is not None and len(names) > 1:
            raise failed
        if failed is not None:
            self._seen |= {target.serial for serial in names for target in self.devices.of(serial)} - names.keys()
        # What SEMS has refused from the start is said by interface, and no plant's own trouble.
        both = (failed, self._listing), (trouble, [details] if details else [])
        troubles = [e for e, of in both if e is not None and not all(map(self.refusals.refuses, of))]
        for serial in names:
            if troubles:
                self._trouble(serial, troubles[0])
            else:
                self._well(serial)
        return [*known.values(), *(d for d in devices if d.serial not in known)]

    def _trouble(self, plant: str, error: Exception) -> None:
        """Note that a plant could not be looked into; logged once until it can. Polling goes on."""
        self.complete = False
        if ("plant", plant) not in self._said:
            self._said.add(("plant", plant))
            self._context.log.warning("plant can't be looked into", plant=plant, error=str(error))

    def _well(self, plant: str) -> None:
        if ("plant", plant) in self._said:
            self._said.discard(("plant", plant))
            self._context.log.info("plant can be looked into again", plant=plant)

    def _plant_target(self, serial: str, name: str, detail: Reading) -> Target:
        zone, said = self.times.zone(serial, detail)
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

    async def _devices(self, plants: Sequence[Target]) -> tuple[list[Target], RefusedError | UnsureError | None]:
        """Return the devices of these plants; and what was wrong, where no list could be read."""
        found: dict[str, Found] = {}
        asked = {plant.serial: plant for plant in plants}
        failed: list[RefusedError | UnsureError] = []
        for interface in self._listing:
            for some in _batches(plants, interface.batch):
                try:
                    data = await self.call(interface, arguments(some), is_list=True)
                except (RefusedError, UnsureError) as error:
                    failed.append(error)
                    self._keep(interface, some, error)
                    continue
                async for entry in read_entries(interface, data, some, self.devices, self._context.clock.now()):
                    home = entry.reading.text("plant") or (some[0].serial if len(some) == 1 else "")
                    if home in asked and self._is_device(interface, entry) and len(found) < MAX_DEVICES:
                        type_ = entry.type or next(iter(interface.of), "")
                        found.setdefault(entry.serial, Found(home, type_)).add(entry.reading)
        if failed and len(failed) == len(self._listing):
            return [], failed[0]
        for interface in self._describing:
            await self._describe(interface, found, asked)
        targets = (
            self._target(serial, device, asked[device.plant].zone, asked[device.plant].device.time_zone)
            for serial, device in found.items()
        )
        return [target for target in targets if target is not None], None

    def _know_given(self) -> None:
        """Make the configuration's devices known that no list has named."""
        for serial, (type_, plant) in self._given.devices.items():
            if serial in self._seen or serial in self._plant_ids:
                continue
            self._seen.add(serial)
            known, home = self.devices.get(serial), self.devices.get(plant)
            zone, said = (
                (home.zone, home.device.time_zone) if home else self.times.zone(plant or serial, Reading({}, {}))
            )
            found = Found(plant, type_ or (known.type if known else "inverter"))
            target = self._target(serial, found, zone, said)
            if target is not None and (known is None or known.type != target.type):
                self._know(target)

    def _keep(self, interface: Interface, plants: Sequence[Target], error: Exception) -> None:
        """Let stand what one list would name, where the others are there: not every account has every form."""
        if not self.refusals.refuses(interface) and ("list", interface.name) not in self._said:
            self._said.add(("list", interface.name))
            self._context.log.warning("SEMS does not list some devices", interface=interface.name, error=str(error))
        self._seen |= {t.serial for plant in plants for t in self.devices.of(plant.serial) if t.type in interface.of}

    async def _describe(self, interface: Interface, found: dict[str, Found], asked: dict[str, Target]) -> None:
        """Ask for what else is known of devices. Without an answer they go by what the list says."""
        serials = [serial for serial, device in found.items() if device.type in interface.of]
        for some in _batches(serials, interface.batch):
            plant = asked[found[some[0]].plant]
            args: dict[str, object] = {"serials": some, "serial": some[0]}
            try:
                data = await self.call(interface, args)
            except (RefusedError, UnsureError) as error:
                if not self.refusals.refuses(interface) and (interface.name, "") not in self._said:
                    self._said.add((interface.name, ""))
                    self._context.log.warning("SEMS does not describe devices", interface=interface.name,
                                              error=str(error))  # fmt: skip
                return
            self._said.discard((interface.name, ""))
            async for entry in read_entries(interface, data, [plant], self.devices, self._context.clock.now()):
                serial = some[0] if entry.serial == plant.serial and len(some) == 1 else entry.serial
                if serial in found:
                    found[serial].add(entry.reading)

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

    def _target(self, serial: str, found: Found, zone: tzinfo, said: str, carrier: str = "") -> Target | None:
        kind = self._catalogue.kind_of(found.type)
        if kind is None or kind is DeviceKind.PLANT:
            return None
        most = found.rated_power if found.battery_power_max is None else found.battery_power_max
        device = found.device(serial, kind, said, self._setpoints(found.type, most))
        return Target(device, found.type, zone, carrier)

    def _setpoints(self, type_: str, battery_most: float | None) -> dict[str, Range]:
        """Return what a device of this type takes, by the catalogue's control interfaces."""
        taken = [SETPOINTS[s] for interface in self._catalogue.using(Use.CONTROL, type_) for s in interface.setpoints]
        return {
            point.id: Range(point.low, battery_most if (point.group, point.unit) == (BATTERY, "W") else point.high)
            for point in taken
        }

    def _know(self, target: Target) -> None:
        self.devices.put(target)
        named = target.serial in self._given.devices or target.serial in self._given.plants
        self._context.announce(target.device, named=named)
        self.on_found()

    async def call(self, interface: Interface, args: dict[str, object], *, is_list: bool = False) -> Json:
        """See `Discovery.call`. What SEMS refuses is said by interface."""
        try:
            data = await super().call(interface, args, is_list=is_list)
        except RefusedError as error:
            self.refusals.refused(interface, error)
            raise
        self.refusals.answered(interface)
        return data


def _batches(items: Sequence[T], size: int) -> Iterable[list[T]]:
    return [list(items[start : start + size]) for start in range(0, len(items), size)]
