"""A plant at a local midnight."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import lru_cache
from math import ceil, inf
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from gateway.core.model import Value
from gateway.simulator.charger import ChargerState, Garage
from gateway.simulator.flows import INVERTER_EFFICIENCY, DeviceState, harvest
from gateway.simulator.meters import GridMeters, Meter
from gateway.simulator.noise import derive, unit
from gateway.simulator.setpoints import Setpoints
from gateway.simulator.sky import DAY, Climate, irradiance, sun
from gateway.simulator.specs import DeviceSpec, LoadProfile, PlantSpec, Site

COARSE: Final = 7200.0
"""Seconds between looks at the sky where a rough yield will do: thousands of plants are born at once."""
_MEAN_CLEARNESS: Final = 0.65
_MONTH: Final = 30.4
"""Days."""


class Change(NamedTuple):
    """Something that was done to a device."""

    time: float
    """POSIX seconds of the physics clock."""
    serial: str
    setpoints: Mapping[str, Value]
    tripped: bool | None


class InitialState(msgspec.Struct, frozen=True, gc=False):
    """What a plant begins a day with."""

    devices: tuple[DeviceState, ...]
    chargers: tuple[ChargerState, ...]
    grid: GridMeters
    orders: Setpoints


def midnight(spec: PlantSpec, day: date) -> float:
    """Return when a day begins where a plant stands, POSIX seconds."""
    return datetime.combine(day, datetime.min.time(), spec.zone).timestamp()


def yields(spec: PlantSpec, climate: Climate, day: date, step: float) -> tuple[float, ...]:
    """Return the kWh that each inverter's modules give on a day, looked at every `step` seconds."""
    begins, ends = midnight(spec, day), midnight(spec, day + timedelta(days=1))
    looks = (begins + n * step for n in range(round((ends - begins) / step)))
    parts = [harvest(sky) for time in looks if (sky := climate.daylight(time))]
    hours = step / 3600
    return tuple(
        hours
        / 1000
        * sum(min(device.peak_power * part, device.model.rated_power / INVERTER_EFFICIENCY) for part in parts)
        for device in spec.devices
    )


@lru_cache(maxsize=1024)
def _mean_yield(site: Site, day: date) -> float:
    """Return about how many kWh a kWp gives on such a day, without a look at that day's clouds."""
    begins, hours = datetime.combine(day, datetime.min.time(), ZoneInfo(site.zone)).timestamp(), COARSE / 3600
    looks = (begins + n * COARSE for n in range(round(24 / hours)))
    return hours / 1000 * sum(irradiance(sun(site, time), _MEAN_CLEARNESS) for time in looks)


@lru_cache(maxsize=1024)
def _regions_day(site: Site, region: str, seed: int, day: date, until: float) -> tuple[float, ...]:
    """Return what modules in a region give, as parts of their peak power, at each look of a day before `until`."""
    middle = PlantSpec(region, region, site, LoadProfile(0, 0, (0.0,) * 24), (), region=region)
    climate, begins = Climate(middle, seed), midnight(middle, day)
    ends = min(midnight(middle, day + timedelta(days=1)), until)
    skies = (climate.daylight(begins + n * COARSE) for n in range(ceil((ends - begins) / COARSE)))
    return tuple(harvest(sky) for sky in skies if sky)


@lru_cache(maxsize=1024)
def _regions_month(site: Site, region: str, seed: int, start: float) -> tuple[float, float, float]:
    """Return a region's hours of full sun on the month's earlier days, today's before `start`, and today's of light."""
    today = datetime.fromtimestamp(start, ZoneInfo(site.zone)).date()
    gone = sum(sum(_regions_day(site, region, seed, today.replace(day=n), inf)) for n in range(1, today.day))
    parts, hours = _regions_day(site, region, seed, today, start), COARSE / 3600
    return hours * gone, hours * sum(parts), hours * len(parts)


def sketch(spec: PlantSpec, seed: int, start: float) -> InitialState:
    """Return a plant of a region at the time at which its simulation begins, as if it had worked all its years.

    It costs no look at the plant's own sky, for thousands of plants are born at once: what was given so far is reckoned
    from the middle of the region, looked at every `COARSE` seconds.
    """
    today = datetime.fromtimestamp(start, spec.zone).date()
    gone, given, busy = _regions_month(spec.site, spec.region, seed, start)
    months = _MONTH * sum(_mean_yield(spec.site, today.replace(month=n, day=15)) for n in range(1, today.month))
    devices = []
    for device in spec.devices:
        peak = device.peak_power / 1000
        aged = _aged(device, seed, peak * gone, peak * months)
        devices.append(
            msgspec.structs.replace(aged, generated=aged.generated.plus(peak * given), hours=aged.hours.plus(busy))
        )
    return InitialState(tuple(devices), (), _grid(spec, sum(device.generated.total for device in devices)), Setpoints())


def first_dawn(spec: PlantSpec, climate: Climate, garages: Sequence[Garage], seed: int, today: date) -> InitialState:
    """Return a plant on the day on which the simulation begins, as if it had worked all its years."""
    month = [yields(spec, climate, today.replace(day=n), COARSE) for n in range(1, today.day)]
    months = _MONTH * sum(_mean_yield(spec.site, today.replace(month=n, day=15)) for n in range(1, today.month))
    devices = tuple(
        _aged(device, seed, sum(day[n] for day in month), device.peak_power / 1000 * months)
        for n, device in enumerate(spec.devices)
    )
    chargers = tuple(garage.parked(midnight(spec, today)) for garage in garages)
    return InitialState(devices, chargers, _grid(spec, sum(device.generated.total for device in devices)), Setpoints())


def _grid(spec: PlantSpec, generated: float) -> GridMeters:
    """Return the grid connection's counters at the midnight before the simulation."""
    load = spec.load
    mean = load.base + (load.swing + 0.08 * load.bursts) * sum(load.hours) / len(load.hours)
    consumed = mean / 1000 * 8766 * max(device.age for device in spec.devices)
    used = min(0.45 * consumed, 0.6 * generated)
    given = generated * INVERTER_EFFICIENCY
    # The inverters' losses count as load; see PlantFlow.
    counted = (consumed - used, given - used, consumed + generated - given)
    return GridMeters(*(Meter(0.0, 0.0, 0.0, kwh) for kwh in counted))


def _aged(device: DeviceSpec, seed: int, month: float, months: float) -> DeviceState:
    """Return a device with its years. kWh: of this month and of this year's earlier ones."""
    dice = derive(seed, device.serial, "history")
    total = month + device.peak_power / 1000 * device.age * (850 + 300 * unit(dice, 0))
    battery = device.model.battery
    cycles = battery.capacity * device.age * 220 if battery else 0.0
    return DeviceState(
        stored=battery.capacity * (0.3 + 0.4 * unit(dice, 1)) if battery else 0.0,
        generated=Meter(0.0, month, min(month + months, total), total),
        charged=Meter(0.0, 0.0, 0.0, cycles),
        discharged=Meter(0.0, 0.0, 0.0, 0.9 * cycles),
        hours=Meter(0.0, 0.0, 0.0, device.age * DAY / 3600 * 365 * 0.48),
    )
