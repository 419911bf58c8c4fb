"""Which lines of a dialect somebody could be sure of who knows plants but not the dialect.

docs/reference/dialects.md has what comes of it.

It reads what an undisturbed cloud says at the same time, never what `learn` makes of the other.
"""

from collections import defaultdict

import msgspec

from gateway.core.points import POINTS
from gateway.sems.catalogue import Use
from gateway.sems.normalise import entries
from gateway.simulator.dialect import ZoneStyle, is_number
from tests.dialects.changes import Change, changes_of

LINES = {Change.RENAME, Change.NESTING, Change.SCALE, Change.SIGN, Change.UNIX, Change.LISTS}
"""Changes that a line of the overrides can say."""
NOTHING = (None, "", "--")
SIGN_APART = 0.05
"""Of the largest term: by so much the other sign must be wrong."""
SIGN_LEAST = 100.0
"""W."""
ROOM = 1.5
"""How much more than installed a power may be."""
HOURS = {"today": 24.0, "month": 31 * 24.0, "year": 366 * 24.0, "total": 30 * 366 * 24.0}
LIMITS = (
    ("l1_voltage l2_voltage l3_voltage", 180.0, 280.0),
    ("l1_frequency l2_frequency l3_frequency", 45.0, 65.0),
    ("pv1_voltage pv2_voltage pv3_voltage pv4_voltage battery_voltage", 40.0, 1000.0),
    ("temperature battery_temperature ambient_temperature module_temperature", -40.0, 120.0),
)
RANGES = {point: (low, high) for points, low, high in LIMITS for point in points.split()}


class Said(msgspec.Struct):
    """What an undisturbed cloud says of one line, once."""

    turn: int
    subject: str
    plant: str
    value: object
    """A number in the point's unit, or what stands there; None for nothing."""


class Truth:
    """What is to be known of a dialect, from both clouds' answers to the same calls."""

    def __init__(self, world, dialect, plain, said):
        self.dialect = dialect
        self._world = world
        self.observed = defaultdict(list)
        """(interface, field as the catalogue has it) → what was said, in order."""
        self.bodies = defaultdict(list)
        """Interface → the dialect's data."""
        self._turns = {}
        """(Interface, arguments) → how often it was asked."""
        base = {interface.name: interface for interface in dialect.base.interfaces}
        for usual, other in zip(plain, said, strict=True):
            interface = base[usual.interface]
            asked = (usual.interface, str(usual.args))
            turn = self._turns[asked] = self._turns.get(asked, -1) + 1
            self.bodies[usual.interface].append(other.body["data"])
            for entry in entries(interface, usual.body["data"]):
                self._observe(interface, turn, _subject(interface, usual.args, entry), entry)
        self.lines = {(line.interface, line.before.field, line.before.shape): line for line in dialect.lines}

    def _observe(self, interface, turn, subject, entry):
        home = self._world.home(subject)
        plant = home.id if home else subject
        for row in interface.response:
            raw = _at(entry, row.field)
            nothing = raw in NOTHING or any(raw == absent for absent in row.absent)
            value = None if nothing else float(raw) * row.scale if is_number(row) else raw
            self.observed[interface.name, row.field].append(Said(turn, subject, plant, value))

    def changed(self, line):
        """Return whether a line of the overrides has to say something of it."""
        moved = {Change.LISTS} if self.moved(line.interface) else set()
        return line.after is not None and bool((changes_of(self.dialect, line) | moved) & LINES)

    def moved(self, interface):
        """Return whether an interface's entries lie elsewhere."""
        return self.dialect.base.interface(interface).lists != self.dialect.catalogue.interface(interface).lists

    def identifiable(self, line):
        """Return whether one could be sure of a line."""
        nowhere = line.before.attribute == "time_zone" and self.dialect.zone is ZoneStyle.SPAN
        if line.after is None or nowhere:
            return False
        there, changes = self._there(line), changes_of(self.dialect, line)
        scaled = Change.SCALE not in changes or any(self._sized(line, said) for said in there)
        signed = Change.SIGN not in changes or any(self._signed(line, said) for said in there)
        return bool(there) and scaled and signed

    def _there(self, line):
        """Return what was said of those that have a value, not 0, each time they were asked for."""
        said = [one for one in self.observed[line.interface, line.before.field] if one.value is not None]
        if is_number(line.before):
            # what rounds to 0 says nothing, and a sign or scale can't be seen in it
            said = [one for one in said if abs(one.value / line.after.scale) > 1e-9]
        turns = defaultdict(set)
        for one in said:
            turns[one.subject].add(one.turn)
        asked = 2 if line.before.point and self._again(line.interface) else 1
        return [one for one in said if len(turns[one.subject]) >= asked]

    def _again(self, interface):
        """Return whether an interface was asked in both rounds."""
        return any(turn for (name, _), turn in self._turns.items() if name == interface)

    # Scale

    def _sized(self, line, said):
        if Change.UNIT in changes_of(self.dialect, line):
            return True
        wrong = abs(said.value * line.before.scale / line.after.scale)
        low, high = self._range(line.before.point, said)
        return (low is not None and not low <= wrong <= high) or self._overlap(line, said) or self._ohm(line, said)

    def _range(self, point, said):
        if point in RANGES:
            return RANGES[point]
        installed = self._installed(said)
        unit = POINTS[point].unit
        if installed and unit == "W" and not point.startswith("ev_"):
            return 0.0, installed * ROOM
        if installed and unit == "kWh" and point.rpartition("_")[2] in HOURS:
            return 0.0, installed / 1000 * ROOM * HOURS[point.rpartition("_")[2]]
        return None, None

    def _installed(self, said):
        """Return W that are installed; of a device without power of its own, in its plant."""
        device = self._world.device(said.subject)
        if device is not None:
            return device.model.rated_power
        plant = self._world.fleet.get(said.plant)
        return sum(device.peak_power for device in plant.devices) if plant else 0.0

    def _known(self, point, said, *but):
        """Return the true value of a point of the same device where its size is sure by itself."""
        for line in self.lines.values():
            own = line.before.point == point and line not in but and line.after is not None
            if own and self.dialect.base.interface(line.interface).use is not Use.SERIES:
                changes = changes_of(self.dialect, line)
                sure = Change.SCALE not in changes or Change.UNIT in changes
                for one in self.observed[line.interface, line.before.field] if sure else ():
                    if (one.turn, one.subject) == (said.turn, said.subject) and one.value:
                        return one.value
        return None

    def _overlap(self, line, said):
        """Another interface says the same of the same device, in the catalogue's scale."""
        others = [other for other in self.lines.values() if other.interface == line.interface]
        return self._known(line.before.point, said, *others) is not None

    def _ohm(self, line, said):
        """P = U·I, with partners whose size is sure."""
        point = line.before.point
        for power, pairs in (
            ("ac_power", [(f"l{n}_voltage", f"l{n}_current") for n in (1, 2, 3)]),
            ("pv_power", [(f"pv{n}_voltage", f"pv{n}_current") for n in (1, 2, 3, 4)]),
            ("battery_power", [("battery_voltage", "battery_current")]),
        ):
            members = {power, *(one for pair in pairs for one in pair)}
            if point not in members:
                continue
            known = {name: self._known(name, said) for name in members - {point}} | {point: said.value}
            circuits = [pair for pair in pairs if known[pair[0]] and known[pair[1]]]
            real = [pair for pair in pairs if self._real(pair[0], said)]
            return bool(known[power]) and len(circuits) == len(real) > 0
        return False

    def _real(self, point, said):
        """Return whether a device has that phase or string at all, whether or not the dialect tells of it."""
        return any(
            one.value
            for line in self.lines.values()
            if line.before.point == point
            for one in self.observed[line.interface, line.before.field]
            if one.subject == said.subject
        )

    # Sign

    def _signed(self, line, said):
        if line.before.point == "battery_current":
            return self._fits("battery_power", said)
        return self._fits(line.before.point, said)

    def _fits(self, point, said):
        """Return whether the balance of the device, or else of its plant, has one sign for a point."""
        for whose in (said.subject, said.plant):
            for interface in {line.interface for line in self.lines.values()}:
                for turn in (0, 1):
                    terms = self._terms(interface, whose, turn)
                    if terms is not None and _one_sign(point, terms):
                        return True
        return False

    def _terms(self, interface, subject, turn):
        """Return pv, battery, grid and load by one interface, as far as the dialect tells them."""
        terms = {}
        for line in self.lines.values():
            if line.interface == interface and line.after is not None and line.before.point in BALANCE:
                for one in self.observed[interface, line.before.field]:
                    if (one.turn, one.subject) == (turn, subject) and one.value is not None:
                        terms[line.before.point] = one.value
        return terms if terms.keys() == set(BALANCE) else None


BALANCE = ("pv_power", "battery_power", "grid_power", "load_power")


def _one_sign(point, terms):
    def off(grid, battery):
        return abs(
            terms["pv_power"] + battery * terms["battery_power"] + grid * terms["grid_power"] - terms["load_power"]
        )

    room = max(SIGN_APART * max(map(abs, terms.values())), SIGN_LEAST)
    others = [(grid, battery) for grid in (1, -1) for battery in (1, -1) if (grid, battery) != (1, 1)]
    turned = [pair for pair in others if pair[0 if point == "grid_power" else 1] == -1]
    return off(1, 1) <= room and all(off(*pair) > room for pair in turned) and abs(terms[point]) > SIGN_LEAST


def _at(entry, path):
    for key in path.split("."):
        entry = entry.get(key) if isinstance(entry, dict) else None
    return entry


def _subject(interface, args, entry):
    """Whose values an entry has: what the entry says, or what was asked."""
    for row in interface.response:
        if row.attribute == "serial" and (serial := _at(entry, row.field)):
            return str(serial)
    return str(next((args[row.field] for row in interface.request if row.arg in ("serial", "plant")), ""))
