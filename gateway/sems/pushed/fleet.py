"""The devices that pushes tell of: which are taken, what they are, and where they stand."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from gateway.core.bridge import Context
from gateway.core.model import Device, DeviceKind, Value
from gateway.sems.catalogue import Catalogue, Use
from gateway.sems.composite import Composite
from gateway.sems.normalise import Reading
from gateway.sems.pushed.message import SHOWN, Message, is_serial
from gateway.sems.pushed.outcome import BadPushError
from gateway.sems.pushed.settings import IntakeSettings

DEVICES_MOST: Final = 20_000
"""Who has the secret may still make up serial numbers; beyond this many they are refused."""

INVERTERS: Final = frozenset({"inverter", "storage"})
"""Types between which a battery tells; an interface for more of them may be telling of a battery itself."""


class Fleet:
    """What the pushes themselves have told of devices, beside what other bridges know of them."""

    def __init__(self, settings: IntakeSettings, catalogue: Catalogue, context: Context) -> None:
        self._patterns = settings.devices
        self._catalogue = catalogue
        self._context = context
        self._fallback = ZoneInfo(settings.time_zone)
        self._devices: dict[str, Device] = {}
        self._certain: set[str] = set()
        """Serials of those of which a push has said what they are."""
        self._composites: dict[str, Composite] = {}

    def zone(self, *serials: str) -> ZoneInfo:
        """Return the zone of the first of these, or of its plant, that has one; else that of the settings."""
        for serial in serials:
            state = self._context.state(serial) if serial else None
            if state is None:
                continue
            zone = _zone(state.device.time_zone)
            if zone is None and state.device.plant not in ("", *serials):
                zone = self.zone(state.device.plant)
            if zone is not None:
                return zone
        return self._fallback

    def composite(self, serial: str) -> Composite:
        """Return what was pushed of a device, interface by interface."""
        found = self._composites.get(serial)
        if found is None:
            found = self._composites[serial] = Composite(serial, self._context.name)
        return found

    def of_plant(self, plant: str) -> list[str]:
        """Return the devices of a plant that are known, the plant itself among them."""
        devices = (state.device for state in self._context.states())
        return [device.serial for device in devices if plant in (device.serial, device.plant)]

    def announce(self, serial: str, message: Message, reading: Reading) -> None:
        """Make a device known, or known better. Raises BadPushError for one that is not taken."""
        if not is_serial(serial):
            raise BadPushError("no serial", f"{message.interface.name} names no `sn` or `plant_id`")
        known = self._devices.get(serial)
        if known is None:
            self._check(serial)
            known = Device(serial=serial, kind=DeviceKind.INVERTER)
        kind = self._kind(serial, message, reading)
        said = msgspec.structs.replace(
            known,
            kind=kind or known.kind,
            name=reading.text("name") or known.name,
            model=reading.text("model") or known.model,
            plant=self._plant(serial, message, reading) or known.plant,
            time_zone=_name(_zone(reading.text("time_zone"))) or known.time_zone,
            rated_power=_rated(kind, reading) or known.rated_power,
        )
        if said != self._devices.get(serial):
            self._devices[serial] = said
            self._context.announce(said)
        elif self._context.state(serial) is None:
            self._context.announce(said)

    def _check(self, serial: str) -> None:
        if not any(fnmatchcase(serial, pattern) for pattern in self._patterns):
            raise BadPushError("device not taken", f"{serial[:SHOWN]} is not among the devices that are taken")
        if len(self._devices) >= DEVICES_MOST:
            raise BadPushError("too many devices", f"{serial[:SHOWN]} is one device too many; {DEVICES_MOST} are taken")

    @staticmethod
    def _plant(serial: str, message: Message, reading: Reading) -> str:
        plant = reading.text("plant") or message.plant
        return "" if plant == serial else plant

    def _kind(self, serial: str, message: Message, reading: Reading) -> DeviceKind | None:
        """Return what a device is; None where nobody says, and it is taken for an inverter."""
        kind = self._catalogue.kind_of(type_of(serial, message, reading))
        if kind is not None:
            self._certain.add(serial)
            return kind
        if serial in self._certain:
            return None
        if frozenset(message.interface.of) == INVERTERS and _has_battery(reading.values):
            return DeviceKind.STORAGE
        state = self._context.state(serial)
        return None if state is None else state.device.kind


def type_of(serial: str, message: Message, reading: Reading) -> str:
    """Return the type of a device as a push says it; "" where it does not."""
    interface = message.interface
    if type_ := reading.text("type"):
        return type_
    if interface.use is Use.PLANTS:
        return "plant"
    is_asked = serial == message.subject or (not message.subject and interface.use is not Use.ALARMS)
    return interface.of[0] if is_asked and len(interface.of) == 1 else ""


def _has_battery(values: Mapping[str, Value]) -> bool:
    return any(value is not None for point, value in values.items() if point.startswith("battery_"))


def _rated(kind: DeviceKind | None, reading: Reading) -> float | None:
    capacity = reading.values.get("capacity")
    if kind is DeviceKind.PLANT and isinstance(capacity, float):
        return capacity * 1000
    return reading.number("rated_power")


def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def _name(zone: ZoneInfo | None) -> str:
    return zone.key if zone else ""
