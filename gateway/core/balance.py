"""Watches that pv + battery + grid = load holds in every plant, for a sign that a source has the other way round.

Of one answer, or of what was measured together, there are up to four readings: each of grid and battery as it is
published, or turned. One that makes the sum come out fits. The sign of a quantity is doubtful once, with that quantity
seen in both directions, the turned one alone fits nearly always: what could make it fit by chance (a charger or panels
that nothing counts, losses) does so in one direction at most. Nothing is ever turned here: a person is told.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import msgspec
import yaml

from gateway.core.model import Device, DeviceKind, Value

GRID: Final = "grid_power"
BATTERY: Final = "battery_power"
SIGNED: Final = (GRID, BATTERY)
"""Points whose sign can be the wrong one. PV and load have none."""

FLOOR: Final = 100.0
"""W by which a sum may always be off."""
SHARE: Final = 0.2
"""Of the power that flows, by which it may be off besides: losses of inverter and battery, and noise."""
TOGETHER: Final = timedelta(seconds=90)
"""What was measured further apart than this is not added up."""
SPACING: Final = timedelta(seconds=150)
"""Of two measurements in one direction that are nearer than this, the second tells nothing new."""
KEPT: Final = 12
"""Measurements that are kept of each direction."""
ENOUGH: Final = 3
"""Measurements in each direction without which nothing is said."""
TOTAL: Final = 8
"""Measurements in both together without which no sign is doubted."""
LASTING: Final = timedelta(minutes=40)
"""Time that the measurements must lie apart for that."""
OTHER_SIGN_SHARE: Final = 0.6
"""Of them, in each direction, that only the other sign fits."""
_MASK: Final = (1 << KEPT) - 1

Config = dict[str, Any]


class Sign(StrEnum):
    """What is known of the sign of a point."""

    UNSEEN = "unseen"
    """It has not been seen in both directions yet, with a sum that comes out."""
    FITS = "fits"
    DOUBTFUL = "doubtful"


class Flows(msgspec.Struct, frozen=True, kw_only=True):
    """The powers that one answer of a source has of one device or plant."""

    serial: str
    where: str
    """What it was that answered: the interface, by its name."""
    time: datetime
    values: Mapping[str, Value]
    turned: Callable[[str], Config]
    """Point → the part of the configuration that would turn its sign in these answers."""


class Doubts(msgspec.Struct, frozen=True):
    """What is to be said of a device whose signs do not fit."""

    text: str
    remedy: str
    """YAML."""


class Sheet(msgspec.Struct, frozen=True, kw_only=True):
    """The sum as it came out last, in W. None is not there."""

    source: str
    plant: str
    serial: str
    """Whose answer it was: the plant's own, or a device's."""
    where: str
    time: datetime
    pv: float
    battery: float | None
    grid: float
    load: float
    signs: dict[str, Sign]
    """Point → what is known of its sign in these answers."""

    @property
    def rest(self) -> float:
        """What comes in and does not go anywhere."""
        return self.pv + (self.battery or 0.0) + self.grid - self.load

    @property
    def balanced(self) -> bool:
        """Whether the sum comes out, as far as losses allow."""
        return abs(self.rest) <= _tolerance(self.pv, self.battery or 0.0, self.grid, self.load)


class _Side(msgspec.Struct):
    """Measurements in one direction, newest in the lowest bit."""

    count: int = 0
    same: int = 0
    """Those that fit as published, and not turned."""
    other: int = 0
    """Those that fit turned, and not as published."""
    newest: datetime | None = None


class _Claim(msgspec.Struct):
    """The sign of one point in one kind of answer about one device."""

    turned: Callable[[str], Config]
    gains: _Side = msgspec.field(default_factory=_Side)
    """Where the value was > 0."""
    drains: _Side = msgspec.field(default_factory=_Side)
    since: datetime | None = None
    run: int = 0
    """Measurements of late that fit as published, one after the other."""
    doubtful: bool = False

    def count(self, value: float, time: datetime, fits: set[int]) -> bool:
        """Take in a measurement and which signs fit it, of 1 and -1; False where it tells nothing new."""
        side = self.gains if value > 0 else self.drains
        if side.newest is not None and time - side.newest < SPACING:
            return False
        side.newest = time
        self.since = self.since or time
        side.count = min(side.count + 1, KEPT)
        side.same = (side.same << 1 | (fits == {1})) & _MASK
        side.other = (side.other << 1 | (fits == {-1})) & _MASK
        self.run = self.run + 1 if fits == {1} else 0
        if self.doubtful and self.run >= ENOUGH:
            self.gains, self.drains, self.since, self.doubtful = _Side(), _Side(), time, False
        elif not self.doubtful:
            self.doubtful = self._other_fits(time)
        return True

    def _other_fits(self, time: datetime) -> bool:
        sides = (self.gains, self.drains)
        return (
            all(side.count >= ENOUGH and side.other.bit_count() >= OTHER_SIGN_SHARE * side.count for side in sides)
            and sum(side.count for side in sides) >= TOTAL
            and self.since is not None
            and time - self.since >= LASTING
        )

    @property
    def sign(self) -> Sign:
        if self.doubtful:
            return Sign.DOUBTFUL
        seen = all(
            side.same.bit_count() >= max(ENOUGH, OTHER_SIGN_SHARE * side.count) for side in (self.gains, self.drains)
        )
        return Sign.FITS if seen else Sign.UNSEEN


class _Latest(msgspec.Struct):
    """What a device said last."""

    kind: DeviceKind
    time: datetime
    powers: dict[str, float]


class _Book(msgspec.Struct):
    """What one source has of one plant."""

    latest: dict[str, _Latest] = {}
    claims: dict[tuple[str, str, str], _Claim] = {}
    """By serial, interface and point."""
    sheets: dict[str, Sheet] = {}
    """Serial → the sum as its answer had it last."""


class _Sum(msgspec.Struct, frozen=True):
    """The terms of one sum."""

    pv: float
    battery: float | None
    grid: float
    load: float
    charger: float
    """What an EV charger takes, where that is known: it may be a part of the load, or not."""

    def fitting(self) -> set[tuple[int, int]]:
        """Return the signs of grid and battery with which it comes out."""
        battery = self.battery or 0.0
        tolerance = _tolerance(self.pv, battery, self.grid, self.load)
        return {
            (grid, side)
            for grid in (1, -1)
            for side in ((1, -1) if battery else (1,))
            for taken in {0.0, self.charger}
            if abs(self.pv + side * battery + grid * self.grid - self.load - taken) <= tolerance
        }


def _tolerance(pv: float, battery: float, grid: float, load: float) -> float:
    return FLOOR + SHARE * (abs(pv) + abs(battery) + abs(grid) + abs(load)) / 2


class BalanceWatch:
    """Watches the plants of all sources, each for itself: one may have it right and another wrong."""

    def __init__(self) -> None:
        self._books: dict[tuple[str, str], _Book] = {}
        """By source and plant."""

    def take(self, source: str, device: Device, flows: Flows) -> bool:
        """Take in what an answer says; True where it says something of a sign, so that `doubts` may have changed."""
        powers = _powers(flows.values)
        if not powers:
            return False
        book = self._books.setdefault((source, device.plant or device.serial), _Book())
        known = book.latest.get(device.serial)
        if known is not None and flows.time < known.time:
            return False
        book.latest[device.serial] = _Latest(device.kind, flows.time, powers)
        total = _together(book, device, flows.time, powers)
        # The same to the watt as before is the same measurement, whatever time it bears.
        if total is None or (known is not None and powers == known.powers):
            return False
        fitting = total.fitting()
        tolerance = _tolerance(total.pv, total.battery or 0.0, total.grid, total.load)
        counted = False
        for place, point in enumerate(SIGNED):
            value = (total.grid, total.battery or 0.0)[place]
            fits = {signs[place] for signs in fitting}
            if point in powers and abs(value) > tolerance and len(fits) < len(SIGNED):
                key = (device.serial, flows.where, point)
                claim = book.claims.setdefault(key, _Claim(flows.turned))
                counted = claim.count(value, flows.time, fits) or counted
        self._note(source, device, flows, total, book)
        return counted

    def doubts(self, source: str, device: Device) -> Doubts | None:
        """Return what is doubted of a device."""
        book = self._books.get((source, device.plant or device.serial), _Book())
        found = [(key, claim) for key, claim in book.claims.items() if key[0] == device.serial and claim.doubtful]
        if not found:
            return None
        config: Config = {}
        for (_, _, point), claim in found:
            _merge(config, claim.turned(point))
        what = ", ".join(f"{point} of {where}" for (_, where, point), _ in found)
        text = (
            f"pv + battery + grid = load comes out with the other sign of {what}, in both directions, and not with "
            "the one in force; nothing was turned"
        )
        return Doubts(text, yaml.safe_dump(config, sort_keys=False))

    def sheets(self) -> Iterator[Sheet]:
        """Yield the sums as they came out last: of each plant its own; where it has none, those of its devices."""
        for (_, plant), book in self._books.items():
            own = book.sheets.get(plant)
            yield from [own] if own is not None else book.sheets.values()

    def forget(self, source: str, device: Device) -> None:
        """Forget what a source said of a device, or of a plant and all of its devices."""
        key = (source, device.plant or device.serial)
        book = self._books.get(key)
        if book is None:
            return
        book.latest.pop(device.serial, None)
        book.sheets.pop(device.serial, None)
        for claim in [claim for claim in book.claims if claim[0] == device.serial]:
            del book.claims[claim]
        if not book.latest:
            del self._books[key]

    @staticmethod
    def _note(source: str, device: Device, flows: Flows, total: _Sum, book: _Book) -> None:
        claims = {point: book.claims.get((device.serial, flows.where, point)) for point in SIGNED}
        book.sheets[device.serial] = Sheet(
            source=source,
            plant=device.plant or device.serial,
            serial=device.serial,
            where=flows.where,
            time=flows.time,
            pv=total.pv,
            battery=total.battery,
            grid=total.grid,
            load=total.load,
            signs={
                point: Sign.UNSEEN if claim is None else claim.sign
                for point, claim in claims.items()
                if point == GRID or total.battery is not None
            },
        )


TERMS: Final = ("pv_power", BATTERY, GRID, "load_power", "ev_power")
_GENERATES: Final = (DeviceKind.INVERTER, DeviceKind.STORAGE)


def _powers(values: Mapping[str, Value]) -> dict[str, float]:
    """Return the terms that are there."""
    there = {point: values.get(point) for point in TERMS}
    return {point: float(value) for point, value in there.items() if isinstance(value, (int, float))}


def _together(book: _Book, device: Device, time: datetime, own: Mapping[str, float]) -> _Sum | None:
    """Return the sum that an answer is a part of; None where a part was not measured at about the same time.

    A plant's answer has all of it. Beside a device's own there are the plant's, and all its inverters' together.
    """
    if device.kind is DeviceKind.PLANT:
        pv, battery, grid, load = (own.get(point) for point in ("pv_power", BATTERY, GRID, "load_power"))
        charger = own.get("ev_power")
    else:
        near = {serial: each for serial, each in book.latest.items() if abs(time - each.time) <= TOGETHER}
        makers = [serial for serial, each in book.latest.items() if each.kind in _GENERATES]
        if not set(makers) <= near.keys():
            return None
        plant = near[device.plant].powers if device.plant in near else {}
        pv = _added(near[serial].powers.get("pv_power") for serial in makers)
        battery = _added(near[serial].powers.get(BATTERY) for serial in makers)
        if device.kind is DeviceKind.BATTERY:
            battery = own.get(BATTERY)
        pv = plant.get("pv_power") if pv is None else pv
        battery = plant.get(BATTERY) if battery is None else battery
        grid = own.get(GRID, plant.get(GRID))
        load = own.get("load_power", plant.get("load_power"))
        charger = _added(each.powers.get("ev_power") for each in near.values() if each.kind is DeviceKind.EV_CHARGER)
    if pv is None or grid is None or load is None:
        return None
    return _Sum(pv, battery, grid, load, charger or 0.0)


def _added(values: Iterable[float | None]) -> float | None:
    """Return the sum of those that are there; None where none is."""
    there = [value for value in values if value is not None]
    return sum(there) if there else None


def _merge(config: Config, more: Config) -> None:
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(config.get(key), dict):
            _merge(config[key], value)
        else:
            config[key] = value
