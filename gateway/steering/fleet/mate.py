"""What is known of one member of a fleet: what it measures, what it was told, whether it can be counted on.

Pure: times come in, nothing is asked or sent. Powers are those at its AC terminals, W; > 0 feeds in.
"""

import math
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final

import msgspec
from msgspec.structs import replace

from gateway.core.model import Device, DeviceState, Quality, Range, Value
from gateway.core.points import AUTO, NONE, SETPOINTS
from gateway.steering.fleet.allocation import Member

SETTLES_WITHIN: Final = 10.0
"""Seconds after the end of a command within which a device may still be on its way; what is measured later counts."""
ASK_AGAIN: Final = 600.0
"""Seconds after a refusal until a member is asked again, doubling each time."""
ASK_AGAIN_MOST: Final = 86_400.0
MAY_CONTRADICT: Final = 3
"""Times a day that a member may say "done" and do otherwise, before it is out for that day."""
LESS: Final = 0.7
"""Of an order for a battery that was refused: the most that it is ordered next."""
LESS_OFTEN: Final = 3
"""Times that a battery is ordered less before it counts as one that refuses."""
LITTLE: Final = 0.1
"""Of rated power: any battery takes as much; what refuses less than this has another reason."""
OFF: Final = 0.05
"""Of rated power: farther from what it was told it does something else."""
FADES_WITHIN: Final = 900.0
"""Seconds within which what PV gave while it was free tells less and less of what it could give now."""
BATTERY_STEP: Final = 10.0
"""W. Finer orders for a battery are of no use."""
LIMIT_STEP: Final = 1.0
"""% of rated power, where a device says nothing finer: SEMS reads whole ones back."""
FULL: Final = 100.0
LASTS: Final = 300.0
"""Seconds for which a battery has to be able to go on with what it is ordered."""
NEARLY: Final = 1.0
"""%. As near to where it may go a battery gives, or takes, less than it was ordered, for it is nearly empty or full."""

A_DAY: Final = 86_400.0
AHEAD: Final = 0.1
"""Of a day's writes: as far as this a member may be ahead of its even pace, so that some are left in the evening."""

SILENT: Final = ("offline", "stale")

SIGNS: Final[Mapping[Value, int]] = {"charge": -1, "discharge": 1, "idle": 0}
"""What a battery is ordered → the sign of its power; it is left to itself in any other mode."""
LIMIT, MODE, POWER = "active_power_limit", "battery_mode", "battery_power_target"


class Lesson(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a member taught by what it refused; see the fields of `Mate`."""

    most: float | None = None
    again: datetime | None = None
    refusals: int = 0
    contradictions: int = 0

    def aged(self) -> "Lesson":
        """Return what of it counts on another day: its battery may take a step more again."""
        return replace(self, most=None if self.most is None else self.most / LESS, contradictions=0)


class Mate(msgspec.Struct):
    """One member."""

    device: Device
    takes: Mapping[str, Range]
    """The setpoints that policy lets the fleet write, with their ranges."""
    state: DeviceState | None = None
    power: float | None = None
    """What it measured last, W: at its AC terminals, else PV and battery."""
    good: bool = False
    """Whether that is of now."""
    told: float | None = None
    """W that it was told last; of one that was let go, what it is thought to give. None where it was told nothing."""
    told_sun: float = 0.0
    """W that its PV gave when it was told that."""
    is_free: bool = True
    """Nothing of what it could give is held back."""
    capped: bool = False
    """It was told by its limit, though it may have a battery: what was asked was the most that all may give."""
    held: bool = False
    """Beside an order for its battery it was told a limit, for one held on the fleet."""
    ended: datetime | None = None
    """When what it was told last had come to an end; None while that is under way."""
    pending: frozenset[str] = frozenset()
    """Ids of its commands that have not ended."""
    trouble: str = ""
    """refused, offline, stale, contradicted, doubtful, or "": why it is not counted on."""
    again: datetime | None = None
    """When it is asked again after a refusal."""
    refusals: int = 0
    most: float | None = None
    """W that its battery takes at most, as far as refusals tell: nothing else says that less than its rated power."""
    ordered: float = 0.0
    """W that its battery was ordered last; 0 once that was refused."""
    lessened: int = 0
    """How often it has been ordered less in a row."""
    proven: float = 0.0
    """The most, W, that its battery was ordered and did since the start."""
    contradictions: int = 0
    """Of this day."""
    free: tuple[datetime, float] | None = None
    """When its PV was last measured without a limit, and what it gave."""
    renew: datetime | None = None
    """When its own dead-man's timer is to be renewed."""
    writes: int = 0
    """Of this day."""
    rests: bool = False
    """It is ahead of the even pace of its writes: told something else only where the others can't do it alone."""
    spent: bool = False
    """It has had its writes of this day; only what keeps it from giving too much is told yet, and what lets it go."""

    @property
    def rated(self) -> float:
        """W."""
        return self.device.rated_power or 0.0

    def most_of(self, setpoint: str) -> float:
        """Return the most that it takes of a setpoint in W."""
        high = self.takes[setpoint].high
        return self.rated if high is None else min(high, self.rated)

    @property
    def stores(self) -> bool:
        """Whether it is steered by its battery; else by a limit of its power."""
        return MODE in self.takes and POWER in self.takes

    def value(self, point: str) -> float | None:
        """Return a number that it measures or was set to."""
        value = self.state.values.get(point) if self.state is not None else None
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None

    @property
    def sun(self) -> float:
        """W that its PV gives."""
        return max(0.0, self.value("pv_power") or 0.0)

    @property
    def stands(self) -> float | None:
        """W that it was told, as that comes to with the sun of now: an order for a battery leaves PV as it is."""
        if self.told is None or self.is_free or self.capped or not self.stores:
            return self.told
        return self.told + self.sun - self.told_sun

    @property
    def shows_it(self) -> bool:
        """Whether what it measures is of now, and newer than the end of what it was told last."""
        return self.good and self._has_shown_it

    @property
    def _has_shown_it(self) -> bool:
        if self.pending:
            return False
        measured = self.state.time if self.state is not None else None
        settled = None if self.ended is None else self.ended + timedelta(seconds=SETTLES_WITHIN)
        return measured is not None and (settled is None or measured >= settled)

    def counts(self, now: datetime) -> bool:
        """Return whether power can be shared out to it."""
        if not self.good or not self.rated:
            return False
        return self.trouble != "contradicted" and (self.again is None or self.again <= now)

    @property
    def unseen(self) -> float | None:
        """W that it was told and has not shown yet; None where nothing is awaited of it.

        Of one that is silent since then it is the best guess: its last power is from before it did what it was told.
        """
        is_awaited = self.trouble in ("", *SILENT) and self.told is not None
        return self.stands if is_awaited and not self._has_shown_it else None

    @property
    def otherwise(self) -> float | None:
        """What it may give instead of what is believed, W, where nobody knows whether it did what it was told."""
        if self.trouble == "doubtful":
            return self.stands
        return self.power or 0.0 if self.trouble in SILENT and self.unseen is not None else None

    def believed(self) -> float:
        """Return its power, W: as measured since it was told, or as told while that is not to be seen yet."""
        unseen = self.unseen
        return self.power or 0.0 if unseen is None else unseen

    @property
    def limited(self) -> bool:
        """Whether a limit may keep its PV from what it could give."""
        limit = self.value(LIMIT)
        return limit is not None and limit < FULL

    @property
    def is_ordered(self) -> bool:
        """Whether something is in force that a fleet may have ordered, as far as its setpoints tell."""
        mode = self.state.values.get(MODE) if self.state is not None else None
        return self.limited or (self.stores and mode in SIGNS)

    def look(self, state: DeviceState) -> None:
        """Take in what it measures."""
        self.state = state
        power = self.value("ac_power")
        if power is None and (pv := self.value("pv_power")) is not None:
            power = pv + (self.value("battery_power") or 0.0)
        self.power, self.good = power, state.quality is Quality.GOOD and power is not None
        limit = self.value(LIMIT)
        at_limit = limit is not None and power is not None and power >= (limit / 100 - OFF / 2) * self.rated
        is_free = limit is None or (self.shows_it and not at_limit)
        if not self.stores and power is not None and state.time is not None and is_free:
            self.free = state.time, power

    def bounds(
        self,
        now: datetime,
        sky: float | None,
        reserve_soc: float,
        max_soc: float,
        *,
        capped: bool = False,
        limited: bool = False,
    ) -> Member:
        """Return what of a target it can take now. `sky`: part of rated power that free PV beside it gives now.

        `capped`: it is only kept from giving more, so a battery is ordered nothing.
        """
        if capped and LIMIT not in self.takes:
            return Member(self.power or 0.0, self.power or 0.0)
        if self.stores and not capped:
            found = self._battery(reserve_soc, max_soc)
            can_be_held = limited and LIMIT in self.takes and found.low > 0
            return replace(found, low=0.0) if can_be_held else found
        low, high, step = self._range(LIMIT, 0.0, FULL)
        most = min(high / 100 * self.rated, self._sun(now, sky))
        least = low / 100 * self.rated
        return Member(min(least, most), most, step=(step or LIMIT_STEP) / 100 * self.rated)

    def _sun(self, now: datetime, sky: float | None) -> float:
        """Return what its PV could give, W: what it gives while it is free, else by its neighbours and by memory."""
        power = max(0.0, self.power or 0.0)
        limit = self.value(LIMIT)
        if limit is None or (self.shows_it and power < (limit / 100 - OFF / 2) * self.rated):
            return power  # less than it may: the sun gives no more
        guess = self.rated if sky is None else sky * self.rated
        if self.free is not None:
            age = max(0.0, (now - self.free[0]).total_seconds())
            fresh = max(0.0, 1 - age / FADES_WITHIN)
            guess = fresh * self.free[1] + (1 - fresh) * guess
        return max(power, min(guess, self.rated))

    def _battery(self, reserve_soc: float, max_soc: float) -> Member:
        _, most, step = self._range(POWER, 0.0, self.rated)
        most = most if self.most is None else min(most, self.most)
        pv, gives, draws, soc = self.sun, most, most, self.value("battery_soc")
        if soc is not None:
            a_percent = self._capacity / 100 * 3600 / LASTS
            gives = min(most, (soc - reserve_soc) * a_percent) if soc > reserve_soc else 0.0
            draws = min(most, (max_soc - soc) * a_percent) if soc < max_soc else 0.0
        high = max(min(pv + gives, self.rated), min(pv, self.rated))
        return Member(max(pv - draws, -self.rated), high, step=step or BATTERY_STEP)

    def _range(self, setpoint: str, low: float, high: float) -> tuple[float, float, float | None]:
        taken = self.takes[setpoint]
        return (
            low if taken.low is None else max(low, taken.low),
            high if taken.high is None else min(high, taken.high),
            taken.step,
        )

    @property
    def _capacity(self) -> float:
        """Wh; where that is not known, an hour of its rated power."""
        return (self.value("battery_capacity") or 0.0) * 1000 or self.rated

    def energy(self, *, draws: bool, reserve_soc: float, max_soc: float) -> float:
        """Return what it can give, or take, until its battery is where it may go: rated power times %."""
        soc = self.value("battery_soc")
        if soc is None:
            return 0.0
        return self._capacity * max(0.0, max_soc - soc if draws else soc - reserve_soc)

    def recall(self, since: datetime, orders: Mapping[str, Value]) -> None:
        """Take up what it was told before a restart: what holds of its setpoints, and since when."""
        self.ended, self.free = since, None
        limit, mode = orders.get(LIMIT), orders.get(MODE)
        if self.stores and mode in SIGNS:
            power = orders.get(POWER)
            self.ordered = float(power) if isinstance(power, (int, float)) and SIGNS[mode] else 0.0
            self.told, self.told_sun, self.is_free = self.sun + SIGNS[mode] * self.ordered, self.sun, False
            self.held = isinstance(limit, (int, float)) and limit < FULL
        elif isinstance(limit, (int, float)) and limit < FULL:
            self.told, self.is_free, self.capped = limit / 100 * self.rated, False, self.stores

    def orders(self, power: float, *, free: bool, capped: bool = False, limited: bool = False) -> dict[str, Value]:
        """Return the setpoints by which it comes to a power, W; `free`: it gives what it can.

        `limited`: no more in any case, for a limit holds on the fleet, and a full battery takes no sun.
        """
        if capped or not self.stores:
            return {LIMIT: self._range(LIMIT, 0.0, FULL)[1] if free else self._percent(power, round)}
        battery = power - self.sun
        mode = "idle" if abs(battery) < BATTERY_STEP else "discharge" if battery > 0 else "charge"
        held = {LIMIT: self._percent(power, _up)} if limited and LIMIT in self.takes else self._lifted()
        return {MODE: mode, POWER: round(abs(battery), 3), **held}

    def _percent(self, power: float, whole: Callable[[float], int]) -> float:
        """Return a power, W, as a limit in whole steps."""
        low, high, step = self._range(LIMIT, 0.0, FULL)
        grid = step or LIMIT_STEP
        return min(max(round(whole(power / self.rated * 100 / grid) * grid, 6), low), high)

    def lacks_limit(self, power: float) -> bool:
        """Return whether it could give more than a power, W, though its battery is ordered not to."""
        if not self.stores or LIMIT not in self.takes:
            return False
        limit = self.value(LIMIT)
        return limit is None or limit > self._percent(power, _up) + LIMIT_STEP / 2

    def has(self, orders: Mapping[str, Value]) -> bool:
        """Return whether these setpoints are what is in force."""
        values = self.state.values if self.state is not None else {}
        return all(SETPOINTS[setpoint].same(values.get(setpoint), value) for setpoint, value in orders.items())

    def _lifted(self) -> dict[str, Value]:
        """Return what lifts a limit that stands in the way of its battery."""
        return {LIMIT: self._range(LIMIT, 0.0, FULL)[1]} if LIMIT in self.takes and self.limited else {}

    def release(self) -> dict[str, Value]:
        """Return the setpoints by which it is let go."""
        if self.stores and not self.capped:
            return {MODE: AUTO, POWER: NONE, **self._lifted()}
        return {LIMIT: self._range(LIMIT, 0.0, FULL)[1]}

    def refused(self, now: datetime) -> None:
        """Take in that it would not do it: it is asked again later and later. Refusals until then are the same one."""
        if self.again is not None and self.again > now:
            return
        self.trouble, self.lessened = "refused", 0
        wait = min(ASK_AGAIN * 2**self.refusals, ASK_AGAIN_MOST)
        self.refusals += 1
        self.again = now + timedelta(seconds=wait)

    @property
    def lesson(self) -> Lesson | None:
        """What it taught; None where it refused nothing."""
        if self.most is None and not self.refusals and not self.contradictions:
            return None
        return Lesson(self.most, self.again, self.refusals, self.contradictions)

    def learn(self, lesson: Lesson) -> None:
        """Take up what it taught before."""
        self.most, self.again = lesson.most, lesson.again
        self.refusals, self.contradictions = lesson.refusals, lesson.contradictions
        if self.contradictions >= MAY_CONTRADICT:
            self.trouble = "contradicted"
        elif self.again is not None:
            self.trouble = "refused"

    def begin_day(self, writes: int) -> None:
        """Begin to count anew, for a day (UTC) has begun."""
        self.writes = writes
        if (lesson := self.lesson) is not None:
            self.most, self.contradictions = lesson.aged().most, 0
        if self.trouble == "contradicted":
            self.trouble = ""

    def takes_less(self, setpoint: str) -> bool:
        """Take in that it refused; return whether what it was ordered may only have been too much for its battery."""
        if setpoint not in (MODE, POWER):
            return False
        if 0 < self.ordered <= max(self.proven, LITTLE * self.rated):
            self.most = None if self.lessened else self.most
            return False
        if self.ordered:
            self.most, self.ordered, self.told, self.lessened = self.ordered * LESS, 0.0, None, self.lessened + 1
        if self.lessened > LESS_OFTEN:
            self.most = None
        return 0 < self.lessened <= LESS_OFTEN

    def count(self, writes_per_day: int, now: datetime) -> None:
        """Find out whether it has writes left for another order, of those that it gets a day (UTC)."""
        then = self.writes + len(self.pending) + (2 if self.stores else 1)
        self.spent = then > writes_per_day
        self.rests = then > writes_per_day * (now.timestamp() % A_DAY / A_DAY + AHEAD)

    def done(self) -> None:
        """Take in that it did what it was told."""
        self.trouble, self.again, self.refusals, self.lessened = "", None, 0, 0
        self.proven = max(self.proven, self.ordered)

    def contradicts(self, reserve_soc: float, max_soc: float) -> bool:
        """Return whether what it measures is not what it says it has done."""
        stands = self.stands
        if self.is_free or stands is None or not self.shows_it or self.power is None:
            return False
        apart = self.power - stands
        within = max(OFF * self.rated, 100.0)
        if not self.stores or self.capped:
            return apart > within
        soc = self.value("battery_soc")
        is_at_its_end = soc is not None and (soc < reserve_soc + NEARLY if apart < 0 else soc > max_soc - NEARLY)
        return abs(apart) > within and not is_at_its_end


def _up(steps: float) -> int:
    """Return whole steps that are not below; a hair above one is that one."""
    return math.ceil(steps - 1e-6)
