"""The devices that pushes are about: which are taken, what they are, and where they stand."""

from collections.abc import Callable
from datetime import tzinfo
from fnmatch import fnmatchcase
from typing import Final

import msgspec

from gateway.api.contexts import SourceContext
from gateway.core.findings import FindingCode
from gateway.core.model import Device, DeviceKind
from gateway.core.zones import zone_name, zone_named
from gateway.sems.account_times import AccountTimes
from gateway.sems.catalogue import Catalogue, Use
from gateway.sems.composite import Composite
from gateway.sems.normalise import Reading
from gateway.sems.pushed.message import SHOWN, Message, is_serial
from gateway.sems.pushed.outcome import BadPushError
from gateway.sems.pushed.settings import IntakeSettings
from gateway.sems.zones import said_zone

MAX_DEVICES: Final = 100_000
"""Who has the secret, or may write to the topic, may make up serial numbers; beyond this many they are refused."""

Admit = Callable[[str], None]
"""Returns where a device may be announced. Raises BadPushError."""

INVERTERS: Final = frozenset({"inverter", "storage"})
"""Types between which a battery decides; an interface for more of them may be about a battery itself."""


class Fleet:
    """What the pushes themselves have said of devices, beside what other bridges know of them."""

    def __init__(
        self,
        settings: IntakeSettings,
        catalogue: Catalogue,
        context: SourceContext,
        times: AccountTimes,
        admit: Admit = lambda _: None,
    ) -> None:
        self._patterns = settings.devices
        self._catalogue = catalogue
        self._context = context
        self._admit = admit
        self._given = zone_named(settings.time_zone)
        self._times = times
        times.on_inferred = self._move
        self._devices: dict[str, Device] = {}
        self._certain: set[str] = set()
        """Serials of those of which a push has said what they are."""
        self._composites: dict[str, Composite] = {}
        self._members: dict[str, set[str]] = {}
        """Plant → devices that were seen in it, so that nobody looks through all for those of one."""

    def zone(self, *serials: str) -> tzinfo | None:
        """Return the zone of the first of these, or of its plant, that has one; else that of the settings, if any."""
        for serial in serials:
            state = self._context.state(serial) if serial else None
            if state is None:
                continue
            zone = zone_named(state.device.time_zone)
            if zone is None and state.device.plant not in ("", *serials):
                zone = self.zone(state.device.plant)
            if zone is not None:
                return zone
        return self._given

    def device(self, serial: str, plant: str) -> Device:
        """Return a device that is known, with what is known of its plant and zone, whoever said it."""
        state = self._context.state(serial)
        known = self._devices[serial] if state is None else state.device
        zone = self.zone(serial, plant)
        home = known.plant or ("" if plant == serial else plant)
        self._members.setdefault(home or serial, set()).add(serial)
        return msgspec.structs.replace(known, plant=home, time_zone=zone_name(zone) if zone else "")

    def composite(self, serial: str) -> Composite:
        """Return what was pushed of a device, interface by interface."""
        found = self._composites.get(serial)
        if found is None:
            found = self._composites[serial] = Composite(serial, self._context.name)
        return found

    def says_nothing(self, serial: str, interface: str) -> None:
        """Say that a push about a device that is known had no value in it: then nothing was measured."""
        if serial in self._devices:
            self._context.find(
                FindingCode.NO_DATA,
                serial,
                f"what is pushed of {serial} ({interface}) has no value in it, so nothing of it is shown",
                "see in the portal whether the device has data; where it has, see overrides in docs/sems.md",
            )

    def of_plant(self, plant: str) -> list[str]:
        """Return the devices of a plant that are known, the plant itself among them."""
        devices = (state.device for state in self._context.announced())
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
        zone = "" if said_zone(reading) is None else self._times.zone(serial, reading)[1]
        said = msgspec.structs.replace(
            known,
            kind=kind or known.kind,
            name=reading.text("name") or known.name,
            model=reading.text("model") or known.model,
            plant=self._plant(serial, message, reading) or known.plant,
            time_zone=zone or known.time_zone,
            rated_power=_rated(kind, reading) or known.rated_power,
        )
        self._members.setdefault(said.plant or serial, set()).add(serial)
        if said != self._devices.get(serial):
            self._devices[serial] = said
            self._context.announce(said)
        elif self._context.state(serial) is None:
            self._context.announce(said)

    def _move(self, plant: str) -> None:
        """Put a plant into the zone that was found by its times."""
        found = self._times.inferred(plant)
        if found is None:
            return
        for serial in sorted(self._members.get(plant, ())):
            if serial in self._devices and plant in (serial, self.device(serial, "").plant):
                self._devices[serial] = msgspec.structs.replace(self._devices[serial], time_zone=found[1])
                self._context.announce(self._devices[serial])

    def _check(self, serial: str) -> None:
        if not any(fnmatchcase(serial, pattern) for pattern in self._patterns):
            raise BadPushError("device not taken", f"{serial[:SHOWN]} is not among the devices that are taken")
        if len(self._devices) >= MAX_DEVICES:
            raise BadPushError("too many devices", f"{serial[:SHOWN]} is one device too many; {MAX_DEVICES} are taken")
        self._admit(serial)

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
        has_battery = any(v is not None for point, v in reading.values.items() if point.startswith("battery_"))
        if frozenset(message.interface.of) == INVERTERS and has_battery:
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


def _rated(kind: DeviceKind | None, reading: Reading) -> float | None:
    capacity = reading.values.get("capacity")
    if kind is DeviceKind.PLANT and isinstance(capacity, float):
        return capacity * 1000
    return reading.number("rated_power")
