"""What the numbers of a plant have to do with each other: P = U·I, sums, what grows, what a device can do."""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Final

from gateway.learn.columns import Column, Sample, Table
from gateway.learn.report import Kind
from gateway.learn.scales import Relation
from gateway.learn.values import factor
from gateway.sems.catalogue import Use

KILO: Final = 1000.0
HOUR: Final = 3600.0


def relations(table: Table) -> Iterator[Relation]:
    """Yield all that the numbers of a plant have to do with each other."""
    rated = Rated(table)
    yield from _units(table)
    yield from _ranges(table, rated)
    yield from _decimals(table)
    yield from _fractions(table, rated)
    yield from _whole(table, rated)
    for serial, turn in table.subjects:
        yield from _powers(table, serial, turn)
        yield from _same(table, serial, turn)
    yield from _growth(table)
    yield from _hours(table, rated)
    yield from _peaks(table, rated)
    yield from _plants(table)


class Rated:
    """What devices and plants can do, in W, as far as the answers say."""

    def __init__(self, table: Table) -> None:
        self._of: dict[str, float] = {}
        for column in table.of("rated_power"):
            for sample in column.samples:
                if sample.number and sample.serial:
                    self._of[sample.serial] = _watts(sample.number)
        for column in table.of("capacity"):
            for sample in column.samples:
                if sample.number and sample.serial:
                    self._of.setdefault(sample.serial, _watts(sample.number) * 1.5)
        self._homes = table.homes()
        self._plants: dict[str, float] = {}
        for serial, plant in self._homes.items():
            self._plants[plant] = self._plants.get(plant, 0.0) + self._of.get(serial, 0.0)

    def of(self, serial: str) -> float | None:
        """Return the watts of one, or else of its plant; None where that is not known."""
        return self._of.get(serial) or self._plants.get(self._homes.get(serial, serial)) or None


def _watts(said: float) -> float:
    """Return a rating in W: SEMS gives kW; no inverter has a megawatt, so what is larger is in W."""
    return said if said >= 1000 else said * KILO


_RANGES: Final[Mapping[str, tuple[float, float]]] = {
    **{f"l{n}_voltage": (80, 500) for n in (1, 2, 3)},
    **{f"l{n}_frequency": (45, 65) for n in (1, 2, 3)},
    **{f"pv{n}_voltage": (90, 1500) for n in (1, 2, 3, 4)},
    "battery_voltage": (20, 1000),
    **{f"pv{n}_current": (0, 60) for n in (1, 2, 3, 4)},
    **dict.fromkeys(("temperature", "battery_temperature", "module_temperature"), (-40, 99)),
    "ambient_temperature": (-40, 55),
}
"""Point → what it is while it is more than nothing, in its unit."""


OTHERS: Final = 5.0
"""How many times what generates, the grid, the load or a charger may be."""
_HOURS: Final[Mapping[str, float]] = {"today": 24.0, "month": 31 * 24.0, "year": 366 * 24.0, "total": 20 * 366 * 24.0}


def _units(table: Table) -> Iterator[Relation]:
    """Yield what is written behind the numbers."""
    for column, group in table.scaled:
        for unit in column.units:
            size = factor(unit, column.unit)
            if size is not None:
                text = f"{unit} is written behind the number"
                yield Relation(Kind.UNIT, "unit", ((group, 1),), 1 / size, 0.99, 1.01, text, (column,))


def _ranges(table: Table, rated: Rated) -> Iterator[Relation]:
    for column, group in table.scaled:
        for sample in _some(column):
            value = sample.number or 0.0
            low, high = _RANGES.get(column.gives, (0.0, 0.0))
            said = f"{value:g}"
            if not high:
                most = rated.of(sample.serial)
                if most is None:
                    continue
                low, high, value = _bounds(column, value, most)
                if not high:
                    continue
            text = f"{said} is from {low:g} to {high:g} {column.unit} in this scale alone"
            yield Relation(Kind.RANGE, f"range {column.gives}", ((group, 1),), value, low, high, text, (column,))


def _bounds(column: Column, value: float, most: float) -> tuple[float, float, float]:
    """Return what a number can be by the device's rating, and its magnitude."""
    if column.gives in ("ac_power", "pv_power"):
        return 0.0, most * 2, abs(value)
    if column.unit in ("W", "var", "VA"):
        return 0.0, most * OTHERS, abs(value)
    hours = _HOURS.get(column.gives.rpartition("_")[2])
    if column.unit == "kWh" and hours is not None:
        return 0.0, most / KILO * hours * (1 if column.gives.startswith("energy") else OTHERS), abs(value)
    return 0.0, 0.0, value


def _decimals(table: Table) -> Iterator[Relation]:
    """Yield that what has decimals is not counted in tenths, hundredths or thousandths: those are whole numbers."""
    for column, group in table.scaled:
        if any(sample.unit for sample in column.samples):
            continue
        broken = next((value for value in column.numbers if not value.is_integer()), None)
        if broken is not None:
            text = f"{broken:g} has decimals, so it does not count parts of {column.unit}"
            yield Relation(Kind.FORM, f"decimals {column.gives}", ((group, 1),), 1.0, 0.999, 1e9, text, (column,))


def _fractions(table: Table, rated: Rated) -> Iterator[Relation]:
    """Yield that what has hundredths is in thousands: nobody counts hundredths of a W."""
    for column, group in table.scaled:
        if column.unit not in ("W", "var", "VA") or column.units:
            continue
        for sample in _some(column):
            value, most = abs(sample.number or 0.0), rated.of(sample.serial)
            if round(value * 10, 6) % 1 and value < KILO and (most is None or value * KILO <= most * OTHERS):
                text = f"{sample.number:g} has hundredths, so it is in k{column.unit}"
                name = f"hundredths {column.gives}"
                yield Relation(Kind.VALUES, name, ((group, 1),), 1.0, KILO * 0.99, 1e9, text, (column,))
                break


def _whole(table: Table, rated: Rated) -> Iterator[Relation]:
    """Yield that what is whole time and again is not in thousands: so small a device has no whole kW by chance."""
    for column, group in table.scaled:
        if column.unit not in ("W", "var", "VA") or column.units:
            continue
        ratings = [rated.of(sample.serial) for sample in _some(column)]
        small = bool(ratings) and all(most is not None and most <= SMALL for most in ratings)
        if small and all(value.is_integer() for value in column.numbers) and len(set(column.numbers) - {0.0}) >= MANY:
            text = f"it is whole {len(set(column.numbers))} times, so it is not in k{column.unit}"
            yield Relation(Kind.VALUES, f"whole {column.gives}", ((group, 1),), 1.0, 0.0, 1.001, text, (column,))


SMALL: Final = 100_000.0
"""W up to which a device has no whole kW by chance."""
MANY: Final = 4
"""Different whole numbers."""


_PRODUCTS: Final = (
    # voltage and current, their numbers, the powers they make, bounds of the ratio, and what it is
    ("pv{}", range(1, 5), ("pv_power",), (0.8, 1.25), "the sum of U·I of the strings"),
    ("l{}", range(1, 4), ("ac_power", "ac_apparent_power", "ev_power"), (0.6, 1.6), "the sum of U·I of the phases"),
    ("l{}", range(1, 4), ("grid_power",), (0.35, 2.9), "the sum of U·I of the phases"),
    ("battery", range(1), ("battery_power",), (0.8, 1.25), "U·I of the battery"),
)


def _powers(table: Table, serial: str, turn: int) -> Iterator[Relation]:
    """Yield that a power is the sum of U·I; that of the grid only where the device has no power of its own."""
    own = any(table.at(serial, turn, power) for power in _PRODUCTS[1][2])
    for name, numbers, powers, bounds, what in _PRODUCTS:
        if powers == ("grid_power",) and own:
            continue
        pairs = [(f"{name.format(n)}_voltage", f"{name.format(n)}_current") for n in numbers]
        for by_interface in _together(table, serial, turn, [point for pair in pairs for point in pair]):
            sums, used = _products(by_interface, pairs)
            yield from _power_is(table, serial, turn, sums, used, powers, bounds, what)


Cell = tuple[Column, Sample]


def _together(table: Table, serial: str, turn: int, points: list[str]) -> Iterator[dict[str, Cell]]:
    """Yield, for each interface, what it says of these points."""
    found: dict[str, dict[str, Cell]] = {}
    for point in points:
        for column, sample in table.at(serial, turn, point):
            found.setdefault(column.interface.name, {}).setdefault(point, (column, sample))
    yield from found.values()


def _products(cells: Mapping[str, Cell], pairs: list[tuple[str, str]]) -> tuple[float, list[Column]]:
    total, used = 0.0, []
    for voltage, current in pairs:
        if voltage in cells and current in cells:
            (first, u), (second, i) = cells[voltage], cells[current]
            if u.number and i.number:
                total += abs(u.number * i.number)
                used += [first, second]
    return total, used


def _power_is(
    table: Table,
    serial: str,
    turn: int,
    total: float,
    used: list[Column],
    powers: tuple[str, ...],
    bounds: tuple[float, float],
    what: str,
) -> Iterator[Relation]:
    if not used or used[0].group is None or used[1].group is None or not total:
        return
    for power in powers:
        for column, sample in table.at(serial, turn, power):
            if column.group is None or not sample.number or abs(sample.number) < 1e-9:
                continue
            terms = ((used[0].group, 1), (used[1].group, 1), (column.group, -1))
            text = f"{power} is {what}"
            yield Relation(
                Kind.ARITHMETIC, f"{what} {power}", terms, total / abs(sample.number), *bounds, text, (*used, column)
            )


def _same(table: Table, serial: str, turn: int) -> Iterator[Relation]:
    """Two interfaces that say the same point of the same device."""
    for gives, cells in table.gives(serial, turn).items():
        for position, (column, sample) in enumerate(cells):
            for other, its in cells[position + 1 :]:
                if column.group is None or other.group is None or column.group == other.group:
                    continue
                if not sample.number or not its.number:
                    continue
                ratio = abs(sample.number / its.number)
                low, high = (0.97, 1.03) if column.unit in ("kWh", "V", "Hz") else (0.6, 1.6)
                text = f"{other.interface.name} and {column.interface.name} say the same {gives} of one device"
                terms = ((column.group, 1), (other.group, -1))
                yield Relation(Kind.SAME, f"same {gives}", terms, ratio, low, high, text, (column, other))


_GROWS: Final[Mapping[str, tuple[str, ...]]] = {
    **{f"energy_{span}": ("ac_power", "pv_power") for span in ("today", "month", "year", "total")},
    **{f"load_energy_{span}": ("load_power",) for span in ("today", "total")},
    **{f"grid_{way}_{span}": ("grid_power",) for way in ("import", "export") for span in ("today", "total")},
    **{f"battery_{way}_{span}": ("battery_power",) for way in ("charge", "discharge") for span in ("today", "total")},
    "ev_session_energy": ("ev_power",),
    "ev_energy_total": ("ev_power",),
}
"""Total → the powers that make it grow."""


def _growth(table: Table) -> Iterator[Relation]:
    for total, powers in _GROWS.items():
        for column in table.of(total):
            if column.group is None or column.interface.use is Use.SERIES:
                continue
            by_serial: dict[str, list[Sample]] = {}
            for sample in column.samples:
                if sample.number is not None and sample.serial:
                    by_serial.setdefault(sample.serial, []).append(sample)
            for serial, samples in by_serial.items():
                samples.sort(key=lambda sample: sample.time)
                for before, after in pairwise(samples):
                    yield from _grown(table, column, serial, before, after, powers)


def _grown(
    table: Table, column: Column, serial: str, before: Sample, after: Sample, powers: tuple[str, ...]
) -> Iterator[Relation]:
    hours = (after.time - before.time).total_seconds() / HOUR
    grown = (after.number or 0.0) - (before.number or 0.0)
    if column.group is None or hours <= 0 or grown <= 0:
        return
    for power in powers:
        cells = table.at(serial, before.turn, power) + table.at(serial, after.turn, power)
        for other in {id(cell[0]): cell[0] for cell in cells}.values():
            said = [abs(s.number) for c, s in cells if c is other and s.number is not None]
            mean = sum(said) / len(said)
            if other.group is None or mean <= 0:
                continue
            terms = ((column.group, 1), (other.group, -1))
            text = f"{column.gives} grew by {power} times {hours * 60:.1f} min"
            ratio = grown * KILO / (mean * hours)
            yield Relation(Kind.GROWTH, f"growth {column.gives} {power}", terms, ratio, 0.3, 3.0, text, (column, other))


def _hours(table: Table, rated: Rated) -> Iterator[Relation]:
    """Yield that a total is what a device made in its hours: some of its rating, and never more."""
    for column in table.of("energy_total"):
        if column.group is None:
            continue
        for sample in _some(column):
            most, hours = rated.of(sample.serial), table.at(sample.serial, sample.turn, "operating_hours")
            if most is None or not hours or not hours[0][1].number or not sample.number:
                continue
            ratio = abs(sample.number) * KILO / (hours[0][1].number * most)
            text = "energy_total is what the device can make in its hours"
            yield Relation(Kind.ARITHMETIC, "hours", ((column.group, 1),), ratio, 0.004, 1.2, text, (column,))


def _peaks(table: Table, rated: Rated) -> Iterator[Relation]:
    """Yield that the most of a series is some of what a device, or a plant, can do."""
    for column in table.columns:
        if column.group is None or column.interface.use is not Use.SERIES or column.unit not in ("W", "kWh"):
            continue
        by_serial: dict[str, float] = {}
        for sample in column.samples:
            if sample.number is not None:
                by_serial[sample.serial] = max(by_serial.get(sample.serial, 0.0), abs(sample.number))
        for serial, peak in by_serial.items():
            most = rated.of(serial)
            if most is None or not peak:
                continue
            daily = column.gives.endswith("_today")
            if column.unit == "kWh" and not daily:
                continue
            ratio = peak * KILO / most if daily else peak / most
            low, high = (0.05, 24.0) if daily else (0.02, 2.0)
            text = f"the most of the series, {peak:g}, is what its rating can do"
            yield Relation(Kind.RANGE, f"peak {column.gives}", ((column.group, 1),), ratio, low, high, text, (column,))


_SUMMED: Final[Mapping[str, tuple[str, ...]]] = {
    "pv_power": ("pv_power", "ac_power"),
    "energy_today": ("energy_today",),
    "energy_total": ("energy_total",),
    **{
        f"{what}_{span}": (f"{what}_{span}",)
        for what in ("grid_import", "grid_export", "load_energy", "battery_charge", "battery_discharge")
        for span in ("today", "total")
    },
}
"""Of a plant → what of its devices makes it up."""


def _plants(table: Table) -> Iterator[Relation]:
    """Yield that a plant is the sum of its devices, where one answer has all of them; or the same as its one."""
    homes = table.homes()
    members: dict[str, set[str]] = {}
    for serial, plant in homes.items():
        members.setdefault(plant, set()).add(serial)
    for plant, serials in members.items():
        for turn in {turn for serial, turn in table.subjects if serial == plant}:
            for gives, others in _SUMMED.items():
                for column, sample in table.at(plant, turn, gives):
                    if column.group is not None and sample.number:
                        yield from _member_sums(table, column, sample, serials, others)
            for gives in _FLOWS:
                for column, sample in table.at(plant, turn, gives):
                    if column.group is not None and sample.number:
                        yield from _member_flows(table, column, sample, serials)


_FLOWS: Final = ("grid_power", "load_power", "battery_power", "ev_power")
"""Of a plant; several of its devices may each say it for all."""
EQUAL: Final = 0.02


def _member_flows(table: Table, column: Column, sample: Sample, serials: set[str]) -> Iterator[Relation]:
    """Yield that a plant's flow is what one of its devices says, in some scale; of several devices, those that do."""
    for serial in sorted(serials):
        for its, value in table.at(serial, sample.turn, column.gives):
            if column.group is None or its.group is None or not value.number or not sample.number:
                continue
            ratio = abs(sample.number / value.number)
            fits = any(abs(ratio * one / other - 1) <= EQUAL for one in (1, KILO) for other in (1, KILO))
            if fits and abs(sample.number) >= 1e-2:
                text = f"{column.gives} of a plant is that of one of its devices"
                terms = ((column.group, 1), (its.group, -1))
                name = f"flow {column.gives}"
                yield Relation(Kind.SAME, name, terms, ratio, 1 - EQUAL, 1 + EQUAL, text, (column, its))


def _member_sums(
    table: Table, column: Column, sample: Sample, serials: set[str], others: tuple[str, ...]
) -> Iterator[Relation]:
    for other in others:
        sums: dict[int, tuple[Column, float, int]] = {}
        for serial in serials:
            for its, value in table.at(serial, sample.turn, other) or table.at(serial, 0, other):
                if its.group is not None and value.number is not None:
                    _, total, count = sums.get(id(its), (its, 0.0, 0))
                    sums[id(its)] = (its, total + abs(value.number), count + 1)
        for its, total, count in sums.values():
            if not total or its.group is None or column.group is None:
                continue
            alone = its.interface.use is not Use.DEVICES
            if alone and (count > 1 or other.startswith("energy")) and count < _makers(table, serials):
                continue
            text = f"{column.gives} of a plant is that of its devices"
            terms = ((column.group, 1), (its.group, -1))
            ratio = abs(sample.number or 0.0) / total
            low, high = (0.9, 1.1) if column.unit == "kWh" else (0.6, 1.7)
            yield Relation(Kind.SAME, f"plant {column.gives} {other}", terms, ratio, low, high, text, (column, its))


def _makers(table: Table, serials: set[str]) -> int:
    """Return how many of these devices make energy."""
    return len(
        {s for s in serials for turn in (0, 1) if table.at(s, turn, "ac_power") or table.at(s, turn, "energy_total")}
    )


def _some(column: Column) -> list[Sample]:
    return [sample for sample in column.samples if sample.number][:200]
