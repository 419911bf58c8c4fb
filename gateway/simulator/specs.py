"""What a simulated plant is made of. Nothing here changes while the world runs."""

from collections.abc import Mapping
from functools import cached_property
from zoneinfo import ZoneInfo

import msgspec

from gateway.core.model import DeviceKind


class BatterySpec(msgspec.Struct, frozen=True):
    """A battery at a hybrid inverter."""

    capacity: float
    """kWh, from empty to full."""
    max_power: float
    """W, charging and discharging alike."""
    voltage: float
    """V, nominal."""


class Model(msgspec.Struct, frozen=True):
    """A type of inverter."""

    name: str
    code: str
    """What its serial numbers begin with, 12 characters."""
    kind: DeviceKind
    rated_power: float
    """W, AC."""
    phases: int
    strings: int
    string_voltage: float
    """V, of one string at its working point."""
    battery: BatterySpec | None = None


class DeviceSpec(msgspec.Struct, frozen=True, gc=False):
    """One inverter, with what is wired to it."""

    serial: str
    name: str
    model: Model
    peak_power: float
    """W, of its PV modules under standard test conditions."""
    age: float
    """Years in operation when the simulation starts."""


class ChargerSpec(msgspec.Struct, frozen=True):
    """What an EV charger can do, and the car that comes to it."""

    power: float
    """W that it charges with, as its installer set it."""
    phases: int
    car: float
    """kWh, from empty to full."""


class AccessorySpec(msgspec.Struct, frozen=True):
    """A device that is no inverter."""

    serial: str
    name: str
    model: str
    type: str
    """`battery meter ev_charger sec1000 homekit weather_station`, as the catalogues have it."""
    rated_power: float | None = None
    """W."""
    at: str = ""
    """Serial number of what it is wired to: a battery's inverter, the data logger that reads a meter."""
    generation: bool = False
    """A meter that counts what the inverters give, and not what the grid connection takes."""
    charger: ChargerSpec | None = None
    """Of an EV charger."""


class Site(msgspec.Struct, frozen=True):
    """Where the modules stand. They face the equator."""

    latitude: float
    longitude: float
    """Degrees, north and east positive."""
    zone: str
    """IANA name."""
    tilt: float = 30
    """Degrees from the horizontal."""


class LoadProfile(msgspec.Struct, frozen=True):
    """What a site consumes over a day, by its own clock."""

    base: float
    """W that are always drawn."""
    swing: float
    """W that come on top in the busiest hour."""
    hours: tuple[float, ...]
    """24 parts of `swing`, for each full hour."""
    bursts: float = 0
    """W of kettles, ovens and pumps that come and go."""


class PlantSpec(msgspec.Struct, frozen=True, dict=True):
    """A plant: a site, its inverters, what else SEMS sees there, and one grid connection."""

    id: str
    name: str
    site: Site
    load: LoadProfile
    devices: tuple[DeviceSpec, ...]
    accessories: tuple[AccessorySpec, ...] = ()
    tariff: float | None = None
    """What a kWh of yield is reckoned with, in the plant's currency."""
    region: str = ""
    """Whose clouds pass over it; empty: it has clouds of its own."""
    place: float = 0.0
    """km down the wind from where the region's clouds come."""

    @cached_property
    def zone(self) -> ZoneInfo:
        """The plant's time zone."""
        return ZoneInfo(self.site.zone)

    @cached_property
    def by_serial(self) -> Mapping[str, int]:
        """Serial number → position in `devices`."""
        return {device.serial: position for position, device in enumerate(self.devices)}

    @cached_property
    def everything(self) -> tuple[DeviceSpec | AccessorySpec, ...]:
        """The inverters, and then the accessories."""
        return (*self.devices, *self.accessories)

    @cached_property
    def extras(self) -> Mapping[str, AccessorySpec]:
        """Serial number → accessory."""
        return {accessory.serial: accessory for accessory in self.accessories}

    @cached_property
    def chargers(self) -> tuple[AccessorySpec, ...]:
        """The EV chargers."""
        return tuple(accessory for accessory in self.accessories if accessory.charger)

    @cached_property
    def metered(self) -> int | None:
        """Position of the device that reads the meter: the first with a battery, which needs it. None without one."""
        return next((n for n, device in enumerate(self.devices) if device.model.battery), None)

    @cached_property
    def turns(self) -> tuple[int, ...]:
        """Positions in the order in which devices find their power: batteries serve what plain inverters leave."""
        return tuple(sorted(range(len(self.devices)), key=lambda n: self.devices[n].model.battery is not None))
