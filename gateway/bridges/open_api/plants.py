"""What the account holds: plants and their devices, found through the API and announced."""

from collections.abc import Iterator
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from gateway.core.bridge import Context
from gateway.core.errors import RefusedError, UnsureError
from gateway.core.model import Device, DeviceKind, Range, Value
from gateway.core.points import BATTERY, SETPOINTS
from gateway.sems.catalogue import Catalogue
from gateway.sems.normalise import Reading, entries, read
from gateway.sems.session import Session

PAGE_SIZE: Final = 100
MAX_PAGES: Final = 1000


class Target(msgspec.Struct, frozen=True):
    """Something to poll."""

    device: Device
    interface: str
    argument: str
    """Name of the request argument that takes the serial."""
    zone: ZoneInfo


class Plants:
    """The account's plants and devices."""

    def __init__(self, catalogue: Catalogue, session: Session, context: Context, fallback_zone: ZoneInfo) -> None:
        self._catalogue = catalogue
        self._session = session
        self._context = context
        self._fallback_zone = fallback_zone
        self._targets: dict[str, Target] = {}
        self._odd_zones: set[str] = set()

    def __len__(self) -> int:
        return len(self._targets)

    def __iter__(self) -> Iterator[Target]:
        return iter(list(self._targets.values()))

    def get(self, serial: str) -> Target | None:
        """Return what is known of a serial number."""
        return self._targets.get(serial)

    async def discover(self) -> None:
        """Walk plants and devices; announce what is there and withdraw what is gone.

        Raises what the session raises; then nothing has changed.
        """
        found: dict[str, Target] = {}
        for plant in await self._list_plants():
            serial = str(plant.attributes["serial"])
            try:
                found |= await self._inspect(serial, plant)
            except (UnsureError, RefusedError) as error:
                self._context.log.warning("plant can't be looked into", plant=serial, error=str(error))
                found |= {s: t for s, t in self._targets.items() if serial in (s, t.device.plant)}
        for gone in self._targets.keys() - found.keys():
            self._context.withdraw(gone)
        self._targets = found
        for target in found.values():
            self._context.announce(target.device)

    async def _inspect(self, serial: str, plant: Reading) -> dict[str, Target]:
        """Return a plant and its devices."""
        detail = await self._read_one("GetPlantDetail", plant=serial)
        zone = self._zone(detail.attributes.get("time_zone"))
        name = _text(detail.attributes.get("name")) or _text(plant.attributes.get("name"))
        device = Device(serial=serial, kind=DeviceKind.PLANT, name=name, rated_power=_watts(detail))
        found = {serial: Target(device, "GetPlantDetail", "plant", zone)}
        for reading in await self._read_list("GetInverterList", plant=serial):
            inverter = self._inverter(reading, serial)
            if inverter is not None:
                found[inverter.serial] = Target(inverter, "GetInverterBySN", "serial", zone)
        return found

    async def _list_plants(self) -> list[Reading]:
        plants: list[Reading] = []
        for page in range(1, MAX_PAGES + 1):
            readings = await self._read_list("GetUserPlantList", page=page, page_size=PAGE_SIZE)
            plants += [reading for reading in readings if reading.attributes.get("serial")]
            if len(readings) < PAGE_SIZE:
                break
        return plants

    async def _read_list(self, name: str, **args: object) -> list[Reading]:
        interface = self._catalogue.interface(name)
        data = await self._session.call(name, args)
        now = self._context.clock.now()
        return [read(interface, entry, self._fallback_zone, now) for entry in entries(interface, data)]

    async def _read_one(self, name: str, **args: object) -> Reading:
        readings = await self._read_list(name, **args)
        return readings[0] if readings else Reading({}, {})

    def _inverter(self, reading: Reading, plant: str) -> Device | None:
        said = reading.attributes
        serial = _text(said.get("serial"))
        if not serial:
            return None
        kind = DeviceKind(_text(said.get("kind")) or DeviceKind.INVERTER)
        rated, battery_most = _number(said.get("rated_power")), _number(said.get("battery_power_max"))
        return Device(
            serial=serial,
            kind=kind,
            name=_text(said.get("name")),
            model=_text(said.get("model")),
            plant=plant,
            rated_power=rated,
            setpoints=self._setpoints(kind, rated if battery_most is None else battery_most),
        )

    def _setpoints(self, kind: DeviceKind, battery_most: float | None) -> dict[str, Range]:
        """Return what a device of this kind takes, by the catalogue's control interfaces."""
        taken = [
            SETPOINTS[setpoint]
            for interface in self._catalogue.interfaces
            if not interface.kinds or kind in interface.kinds
            for setpoint in interface.setpoints
        ]
        return {
            point.id: Range(point.low, battery_most if (point.group, point.unit) == (BATTERY, "W") else point.high)
            for point in taken
        }

    def _zone(self, name: Value) -> ZoneInfo:
        if not name:
            return self._fallback_zone
        try:
            return ZoneInfo(str(name))
        except (ZoneInfoNotFoundError, ValueError, OSError):
            if str(name) not in self._odd_zones:
                self._odd_zones.add(str(name))
                self._context.log.warning(
                    "SEMS names a time zone that does not exist", zone=name, using=self._fallback_zone.key
                )
            return self._fallback_zone


def _text(value: Value) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Value) -> float | None:
    return value if isinstance(value, float) else None


def _watts(detail: Reading) -> float | None:
    capacity = detail.values.get("capacity")
    return capacity * 1000 if isinstance(capacity, float) else None
