"""The plants there are: three made by hand, and as many more as a load test wants."""

from typing import Final
from uuid import NAMESPACE_URL, uuid5

from gateway.core.model import DeviceKind
from gateway.simulator.noise import derive, unit
from gateway.simulator.specs import (
    AccessorySpec,
    BatterySpec,
    ChargerSpec,
    DeviceSpec,
    LoadProfile,
    Model,
    PlantSpec,
    Site,
)

GW10K_ET: Final = Model(
    "GW10K-ET", "9010KETU218W", DeviceKind.STORAGE, 10_000, 3, 2, 560, BatterySpec(10.2, 5_000, 410)
)
GW20K_ET: Final = Model(
    "GW20K-ET", "9020KETT221W", DeviceKind.STORAGE, 20_000, 3, 3, 620, BatterySpec(32.0, 15_000, 480)
)
GW20K_DT: Final = Model("GW20K-DT", "9020KDTU219W", DeviceKind.INVERTER, 20_000, 3, 2, 640)
GW50K_MT: Final = Model("GW50K-MT", "9050KMTU220W", DeviceKind.INVERTER, 50_000, 3, 4, 680)
GW5000_EH: Final = Model(
    "GW5000-EH", "95000EHU222W", DeviceKind.STORAGE, 5_000, 1, 2, 380, BatterySpec(6.6, 3_000, 205)
)
GW3600_NS: Final = Model("GW3600-NS", "53600NSU217W", DeviceKind.INVERTER, 3_600, 1, 2, 330)

MODELS: Final = (GW10K_ET, GW20K_DT, GW5000_EH, GW50K_MT, GW3600_NS, GW20K_ET)

MUNICH: Final = Site(48.137, 11.575, "Europe/Berlin", 35)
MADRID: Final = Site(40.417, -3.703, "Europe/Madrid", 25)
AMSTERDAM: Final = Site(52.368, 4.904, "Europe/Amsterdam", 20)
SITES: Final = (
    MUNICH, MADRID, AMSTERDAM,
    Site(52.520, 13.405, "Europe/Berlin"),
    Site(41.902, 12.496, "Europe/Rome"),
    Site(37.984, 23.728, "Europe/Athens"),
    Site(51.507, -0.128, "Europe/London"),
    Site(38.722, -9.139, "Europe/Lisbon"),
)  # fmt: skip

REGION_LENGTH: Final = 30.0
"""km that a region stretches down its wind."""

HOME: Final = LoadProfile(
    260, 900,
    (.15, .1, .1, .1, .1, .2, .55, .8, .6, .4, .35, .4, .55, .45, .35, .35, .45, .7, .95, 1, .95, .8, .55, .3),
    bursts=1_800,
)  # fmt: skip
BAKERY: Final = LoadProfile(
    1_500, 14_000,
    (.2, .5, .9, 1, 1, 1, .9, .75, .6, .5, .45, .4, .35, .3, .25, .25, .2, .15, .1, .05, 0, 0, 0, .05),
    bursts=4_000,
)  # fmt: skip
AUXILIARY: Final = LoadProfile(350, 100, (1.0,) * 24)
PROFILES: Final = (HOME, HOME, BAKERY)


def serial_number(code: str, number: int) -> str:
    """Return a serial number in GoodWe's style, 16 characters. The week of make goes on when numbers run out.

    All of them are made up: SEMS knows none of these devices.
    """
    week, rest = divmod(number, 10_000)
    return f"{code[:-4]}{int(code[-4:-1]) + week:03}W{rest:04}"


def _device(model: Model, number: int, name: str, oversize: float, age: float) -> DeviceSpec:
    return DeviceSpec(serial_number(model.code, number), name, model, model.rated_power * oversize, age)


def _battery(code: str, model: str, number: int, inverter: DeviceSpec) -> AccessorySpec:
    return AccessorySpec(serial_number(code, number), f"{inverter.name} battery", model, "battery", at=inverter.serial)


def _meter(number: int, name: str, model: str = "GM3000", *, at: str = "", generation: bool = False) -> AccessorySpec:
    return AccessorySpec(serial_number("9300GM3U220W", number), name, model, "meter", at=at, generation=generation)


def _plant_id(name: str) -> str:
    return str(uuid5(NAMESPACE_URL, f"https://simulator.invalid/plant/{name}"))


_HOUSE_INVERTER: Final = _device(GW10K_ET, 1, "House", 1.1, 3.5)
HOUSE: Final = PlantSpec(
    _plant_id("House"), "House", MUNICH, HOME, (_HOUSE_INVERTER,),
    (
        _battery("9010LXFU218W", "LX F9.8-H", 1, _HOUSE_INVERTER),
        _meter(1, "House meter", at=_HOUSE_INVERTER.serial),
        AccessorySpec(serial_number("93000HKU219W", 1), "House HomeKit", "HK3000", "homekit"),
        AccessorySpec(
            serial_number("9011KHCA223W", 1), "Garage", "GW11K-HCA", "ev_charger", 11_000,
            charger=ChargerSpec(4_140, 3, 77.0),
        ),
    ),
    0.12,
)  # fmt: skip
_BAKERY_STORE: Final = _device(GW20K_ET, 1, "Bakery store", 1.0, 1.2)
BAKERY_PLANT: Final = PlantSpec(
    _plant_id("Bakery"), "Bakery", MADRID, BAKERY,
    (_BAKERY_STORE, _device(GW20K_DT, 1, "Bakery roof", 1.15, 4.8)),
    (
        _battery("9030LXCU221W", "LX C30-10", 1, _BAKERY_STORE),
        _meter(2, "Bakery meter", at=_BAKERY_STORE.serial),
    ),
    0.15,
)  # fmt: skip
_PARK_LOGGER: Final = serial_number("91000SEC219W", 1)
SOLAR_PARK: Final = PlantSpec(
    _plant_id("Solar park"), "Solar park", AMSTERDAM, AUXILIARY,
    tuple(_device(GW50K_MT, n, f"Park row {n}", 1.25, 2.1) for n in range(1, 6)),
    (
        AccessorySpec(_PARK_LOGGER, "Park logger", "SEC1000", "sec1000", 250_000),
        _meter(3, "Park grid connection", "GM330", at=_PARK_LOGGER),
        _meter(4, "Park generation", "GM330", at=_PARK_LOGGER, generation=True),
        AccessorySpec(serial_number("90000WSU220W", 1), "Park weather", "WS-1", "weather_station"),
    ),
    0.07,
)  # fmt: skip

DEFAULT_FLEET: Final = (HOUSE, BAKERY_PLANT, SOLAR_PARK)
"""3 plants, 8 inverters, 10 other devices."""


def make_fleet(plants: int, *, devices_per_plant: int = 4, seed: int = 1) -> tuple[PlantSpec, ...]:
    """Return a fleet of that many plants: the default ones first, then ones made up from the seed.

    The made-up plants have `devices_per_plant` devices each. A smaller fleet is the beginning of a larger one.
    """
    made_up = (_make_up(n, devices_per_plant, seed) for n in range(1, plants - len(DEFAULT_FLEET) + 1))
    return (*DEFAULT_FLEET[:plants], *made_up)


def _make_up(number: int, devices: int, seed: int) -> PlantSpec:
    name = f"Plant {number:05}"
    dice = derive(seed, "fleet", name)
    first = int(unit(dice, 0) * len(MODELS))
    region = int(unit(dice, 1) * len(SITES))
    return PlantSpec(
        id=_plant_id(name),
        name=name,
        site=SITES[region],
        region=f"region {region + 1}",
        place=REGION_LENGTH * unit(dice, 3),
        load=PROFILES[int(unit(dice, 2) * len(PROFILES))],
        devices=tuple(
            _device(
                MODELS[(first + n) % len(MODELS)],
                # The default fleet has the numbers up to 9.
                10 + number * devices + n,
                f"{name} inverter {n + 1}",
                0.95 + 0.3 * unit(dice, 10 + 2 * n),
                0.2 + 9 * unit(dice, 11 + 2 * n),
            )
            for n in range(devices)
        ),
    )
