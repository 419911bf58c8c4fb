"""Which way SEMS counts the grid and the battery: by the balance pv + battery + grid = load."""

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Final

import msgspec

from gateway.learn.columns import SIGNED, Column, Table
from gateway.learn.report import Evidence, Kind
from gateway.learn.scales import Scales
from gateway.sems.catalogue import Use

TIMES: Final = 2
"""How often the balance must be right: once is chance."""
FITTING: Final = 0.7
"""Part of the entries in which it must be, with either sign."""
MIN_FLOW_WATTS: Final = 100.0
"""W that must flow for a sign to show anything."""
NEAR: Final = 0.03
"""Part of all that flows by which the balance may be off."""
SAME: Final = 0.05
_PARTS: Final = ("pv_power", "battery_power", "grid_power", "load_power")


class Signs:
    """The sign of each column of SIGNED, where it is known: 1 for the gateway's own, -1 for the other."""

    def __init__(self) -> None:
        self.of: dict[int, int] = {}
        """id of a column → sign of SEMS's number to the gateway's."""
        self.why: dict[int, Evidence] = {}
        self._wrong: set[int] = set()

    def say(self, column: Column, sign: int, evidence: Evidence) -> bool:
        """Take in a sign; two that contradict each other are none. Returns whether it is news."""
        key = id(column)
        if key in self._wrong or self.of.get(key) == sign:
            return False
        if key in self.of:
            del self.of[key]
            self._wrong.add(key)
            column.against.append("its sign is now this, now that")
            return True
        self.of[key], self.why[key] = sign, evidence
        return True

    def known(self, column: Column) -> int | None:
        """Return the sign of a column, where it is known."""
        return self.of.get(id(column))


def signs(table: Table, scales: Scales) -> Signs:
    """Return the signs that are known."""
    found = Signs()
    _by_balance(table, scales, found)
    _by_totals(table, scales, found)
    for _ in range(3):
        if not _spread(table, scales, found):
            break
    return found


class _Cell(msgspec.Struct, frozen=True):
    column: Column
    value: float
    """In the point's unit, signed as SEMS has it."""


def _cells(table: Table, scales: Scales, serial: str, turn: int, gives: str) -> Iterator[_Cell]:
    for column, sample in table.at(serial, turn, gives):
        scale = None if column.group is None else scales.of(column.group)
        if scale is not None and sample.number is not None:
            yield _Cell(column, sample.number * scale)


def _by_balance(table: Table, scales: Scales, found: Signs) -> None:
    votes: dict[int, tuple[Column, list[set[int]]]] = {}
    balanced: dict[str, list[Mapping[str, _Cell]]] = {}
    for serial, turn in table.subjects:
        by_interface: dict[str, dict[str, _Cell]] = {}
        for gives in _PARTS:
            for cell in _cells(table, scales, serial, turn, gives):
                by_interface.setdefault(cell.column.interface.name, {}).setdefault(gives, cell)
        for name, there in by_interface.items():
            if {"pv_power", "grid_power", "load_power"} <= there.keys():
                balanced.setdefault(name, []).append(there)
    for name, cells in _series(table, scales):
        balanced.setdefault(name, []).append(cells)
    for entries in balanced.values():
        for point in ("grid_power", "battery_power"):
            for cells in entries:
                if point not in cells or abs(cells[point].value) < MIN_FLOW_WATTS:
                    continue
                fitting = {combination[point] for combination in _fitting(cells)}
                column = cells[point].column
                votes.setdefault(id(column), (column, []))[1].append(fitting)
    for column, said in votes.values():
        for sign in (1, -1):
            count, other = (sum(fitting == {one} for fitting in said) for one in (sign, -sign))
            if count >= TIMES and not other and sum(map(bool, said)) >= FITTING * len(said):
                text = f"pv + battery + grid = load, {count} times, with it counted {_way(sign)}"
                found.say(column, sign, Evidence(Kind.ARITHMETIC, text))


def _way(sign: int) -> str:
    return "as the gateway counts" if sign > 0 else "the other way round"


_TOTALS: Final[Mapping[str, tuple[str, str]]] = {
    "grid_power": ("grid_import", "grid_export"),
    "battery_power": ("battery_discharge", "battery_charge"),
}
"""Point → what grows while it is more than nothing as the gateway counts it, and what while it is less."""


def _by_totals(table: Table, scales: Scales, found: Signs) -> None:
    """Go by what grew: while a plant sells, the grid's power is that of a sale, whatever its sign."""
    for point, totals in _TOTALS.items():
        votes: dict[int, tuple[Column, list[int]]] = {}
        for serial in {serial for serial, _ in table.subjects}:
            grown = [_grown(table, scales, serial, total) for total in totals]
            if (grown[0] > 0) == (grown[1] > 0):
                continue
            direction = 1 if grown[0] > 0 else -1
            cells = [list(_cells(table, scales, serial, turn, point)) for turn in (0, 1)]
            for before in cells[0]:
                for after in cells[1]:
                    least = min(abs(before.value), abs(after.value))
                    if before.column is after.column and before.value * after.value > 0 and least >= MIN_FLOW_WATTS:
                        sign = direction if before.value > 0 else -direction
                        votes.setdefault(id(before.column), (before.column, []))[1].append(sign)
        for column, said in votes.values():
            if len(set(said)) == 1:
                text = f"what grew meanwhile is what it says, counted {_way(said[0])}"
                found.say(column, said[0], Evidence(Kind.GROWTH, text))


def _grown(table: Table, scales: Scales, serial: str, total: str) -> float:
    """Return the kWh by which a total of today, or of all time, grew between the turns."""
    for span in ("total", "today"):
        cells = [list(_cells(table, scales, serial, turn, f"{total}_{span}")) for turn in (0, 1)]
        for before in cells[0]:
            for after in cells[1]:
                if before.column is after.column and after.value - before.value > 0:
                    return after.value - before.value
    return 0.0


def _series(table: Table, scales: Scales) -> Iterator[tuple[str, Mapping[str, _Cell]]]:
    """Yield the entries of series in which a balance can be made, with their interface."""
    found: dict[tuple[str, str, int], dict[str, _Cell]] = {}
    for column in table.columns:
        scale = None if column.group is None else scales.of(column.group)
        if column.interface.use is Use.SERIES and column.gives in _PARTS and scale is not None:
            for sample in column.samples:
                if sample.number is not None:
                    at = (column.interface.name, sample.serial, sample.entry)
                    found.setdefault(at, {})[column.gives] = _Cell(column, sample.number * scale)
    for (name, _, _), cells in found.items():
        if {"pv_power", "grid_power", "load_power"} <= cells.keys():
            yield name, cells


def _fitting(cells: Mapping[str, _Cell]) -> Iterator[Mapping[str, int]]:
    """Yield the signs with which the balance is right; none where it never is, or all is too near nothing."""
    flows = sum(abs(cell.value) for cell in cells.values())
    for grid, battery in product((1, -1), repeat=2):
        total = cells["pv_power"].value + grid * cells["grid_power"].value - cells["load_power"].value
        if "battery_power" in cells:
            total += battery * cells["battery_power"].value
        if abs(total) <= max(NEAR * flows, 5.0):
            yield {"grid_power": grid, "battery_power": battery}


def _spread(table: Table, scales: Scales, found: Signs) -> bool:
    """Go from what is known to what says the same: elsewhere of the same device, its plant, or its current."""
    news = False
    homes = table.homes()
    for serial, turn in table.subjects:
        for gives in SIGNED:
            here = list(_cells(table, scales, serial, turn, gives))
            plant = homes.get(serial)
            if plant is not None and gives != "battery_current":
                here += _cells(table, scales, plant, turn, gives)
            if gives == "battery_current":
                here += _cells(table, scales, serial, turn, "battery_power")
            news = _agree(here, found) or news
    return news


def _agree(cells: list[_Cell], found: Signs) -> bool:
    news = False
    for known in cells:
        sign = found.known(known.column)
        if sign is None or abs(known.value) < MIN_FLOW_WATTS:
            continue
        for other in cells:
            if found.known(other.column) is not None or not other.value or other.column is known.column:
                continue
            if other.column.gives == known.column.gives:
                if abs(abs(other.value) - abs(known.value)) > SAME * abs(known.value):
                    continue
            elif (other.column.gives, known.column.gives) != ("battery_current", "battery_power"):
                continue
            way = sign if (other.value > 0) == (known.value > 0) else -sign
            where = f"{known.column.interface.name} says how {known.column.gives} flows"
            news = found.say(other.column, way, Evidence(Kind.SAME, where)) or news
    return news
