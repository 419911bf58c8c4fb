"""Keeps what is drawn from the grid within a limit: by the battery, and by chargers that wait.

SEMS has no import limit to write. What there is closes its loop through the cloud: a correction takes minutes.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from gateway.api.contexts import Context
from gateway.core.controller import Outcome
from gateway.core.findings import FindingCode
from gateway.core.kept_file import KeptFile
from gateway.core.model import CommandEvent, CommandState, DeviceState, Origin, Quality, Value
from gateway.core.points import AUTO, NONE, SETPOINTS
from gateway.steering.limits.hand import RESUME, Hand, Orders
from gateway.steering.limits.settings import CHARGING, MODE, POWER

TOLERANCE: Final = 50.0
"""W by which a limit may be exceeded before anything is done: no meter stands still."""
STEP: Final = 10.0
"""W in which a battery is ordered something."""
OFF: Final = 0.1
"""Part of an order by which a battery may be off it; and by which less must be needed before it is ordered less."""
OFF_LEAST: Final = 100.0
"""W of the same, at least."""
SETTLE: Final = timedelta(seconds=60)
"""What is measured sooner after an order says nothing of it yet."""
PATIENCE: Final = 120.0
"""Seconds after a start within which nothing may be measured yet."""
IN_FORCE: Final = Outcome(CommandState.SUCCEEDED, "in force")


class Sight(msgspec.Struct, frozen=True):
    """What is measured, W."""

    draw: float
    """At the meter; < 0 feeds in."""
    battery: float | None
    """What the battery gives, < 0: takes; None where there is none that takes orders."""
    most: float
    """What it gives at most."""
    charging: Mapping[str, float]
    """Charger → what it takes, of those that do not wait."""


class Decision(msgspec.Struct, frozen=True):
    """What is to be done."""

    battery: float | None = None
    """W that the battery is ordered to give, 0: to stand still; None: it is left to its own control."""
    wait: Sequence[str] = ()
    """Chargers that are to wait, besides those that do."""
    missing: float = 0.0
    """W by which the limit stays exceeded all the same."""


def decide(limit: float, sight: Sight, ordered: float | None, *, stays: bool) -> Decision:
    """Return what is to be done about a limit, W.

    `ordered` is what the battery was told before; `stays`: it charged from the grid by itself, so that it is not left
    to its own control while a limit holds.
    """
    over = sight.draw - limit
    if over <= TOLERANCE:
        if ordered is None or sight.battery is None:
            return Decision(ordered)
        needed = sight.battery + over
        if needed <= 0:
            return Decision(0.0 if stays else None)
        return Decision(_on_step(needed) if needed < ordered - _off(ordered) else ordered)
    give, left = ordered, over
    if sight.battery is not None and (ordered is None or sight.battery >= ordered - _off(ordered)):
        needed = max(0.0, sight.battery + over)
        give, left = min(_on_step(needed), sight.most), max(0.0, needed - sight.most)
    # Else it gives no more, whatever it is told: it is empty, away, or does not obey.
    wait = []
    for serial, power in sorted(sight.charging.items(), key=lambda each: (-each[1], each[0])):
        if left <= 0:
            break
        wait.append(serial)
        left -= power
    return Decision(give, wait, max(0.0, left))


def _off(watts: float) -> float:
    return max(OFF_LEAST, OFF * watts)


def _on_step(watts: float) -> float:
    return -(-watts // STEP) * STEP


class Kept(msgspec.Struct):
    """What outlives a restart."""

    told: dict[str, dict[str, Value]] = {}
    """Device → what it is told for the limit's sake, or to let go of it again."""
    stays: bool = False


class Draw:
    """What is drawn at one meter."""

    def __init__(
        self, context: Context, origin: Origin, file: Path, device: str, meter: str, chargers: Sequence[str]
    ) -> None:
        """`device` has the battery; `meter` shows `grid_power`, or, where it has none, what it draws itself."""
        self._context = context
        self._device = device
        self._meter = meter
        self._chargers = chargers
        self._hands = {serial: Hand(context, origin, serial) for serial in (device, *chargers)}
        self._file = KeptFile(
            file, Kept, context.log,
            unreadable="what was told for an import limit is not known; it is not let go of",
            unwritable="what is told for an import limit can't be kept",
        )  # fmt: skip
        self._kept = Kept()
        self._began = 0.0
        self._looked: tuple[float, datetime | None] | None = None
        self.excess: float | None = None
        """W drawn beyond the limit, as measured last; None where there is no limit, or nothing is measured."""
        self.outcome: Outcome | None = None
        """What has become of the limit; None while that is not known yet."""

    async def start(self) -> None:
        """Take up what was told before a restart."""
        self._began = self._context.clock.monotonic()
        kept = await asyncio.to_thread(self._file.read)
        self._kept = kept or Kept()

    @property
    def holds(self) -> bool:
        """Whether anything was told and is not let go of yet."""
        return bool(self._kept.told)

    def took(self, event: CommandEvent) -> bool:
        """Take in a step of anybody's command; return whether it is the end of one of ours."""
        return any(hand.took(event) for hand in self._hands.values())

    def changed(self) -> None:
        """Take in that another limit holds."""
        self.outcome = self._looked = None

    async def look(self, limit: float | None) -> None:
        """Do what is due, for a limit in W."""
        if any(hand.busy for hand in self._hands.values()):
            return
        if limit is None:
            self.excess = None
            self._context.settle(FindingCode.LIMIT_NOT_HELD, self._meter)
            await self._let_go([*self._kept.told])
            self._kept.stays = False
            self.outcome = None if self._kept.told else IN_FORCE
            if refused := [hand for hand in self._hands.values() if hand.resting and hand.serial in self._kept.told]:
                self.outcome = Outcome(CommandState.FAILED, f"{refused[0].serial} can't be let go: {refused[0].why}")
        else:
            await self._hold(limit)
        for serial, orders in [*self._kept.told.items()]:
            hand = self._hands.get(serial)
            if hand is None:
                del self._kept.told[serial]  # it is not of this limit any more
            elif hand.done == orders:
                if _lets_go(orders):
                    del self._kept.told[serial]
                    await self._note()
            elif hand.may_be_told(orders) and self._state(serial) is not None:
                await hand.tell(orders)

    async def _hold(self, limit: float) -> None:
        state = self._state(self._meter)
        draw = _draw(state)
        if state is None or draw is None:
            await self._be_blind()
            return
        if (limit, state.time) == self._looked or not self._settled(state):
            return
        self._looked = limit, state.time
        sight, ordered = self._sight(draw), self._ordered
        self.excess = max(0.0, draw - limit)
        is_over = self.excess > TOLERANCE
        if why := self._hands[self._device].closed:
            self._looked = None  # nothing that is decided now would be done
            self._wait(why)
            return
        if is_over and ordered is None and (sight.battery or 0.0) < -TOLERANCE:
            self._kept.stays = True
        decision = decide(limit, sight, ordered, stays=self._kept.stays)
        before = dict(self._kept.told)
        await self._tell(decision)
        if is_over:
            for serial, orders in self._kept.told.items():
                if serial in self._hands and self._shows_otherwise(serial, orders):
                    self._hands[serial].done = None  # somebody else has told it otherwise, or its order has ended
        if not is_over or decision.missing <= 0:
            self._context.settle(FindingCode.LIMIT_NOT_HELD, self._meter)
        if not is_over:
            self.outcome = IN_FORCE
        elif decision.missing > 0 and self._kept.told == before:
            self._exceeded(decision.missing)

    def _wait(self, why: str) -> None:
        """Say what is drawn too much while no command leaves."""
        if not self.excess or self.excess <= TOLERANCE:
            self._context.settle(FindingCode.LIMIT_NOT_HELD, self._meter)
            self.outcome = IN_FORCE
            return
        text = f"{self.excess:.0f} W more are drawn than it permits; {why}"
        self._context.find(FindingCode.LIMIT_NOT_HELD, self._meter, text, RESUME.get(why, ""))
        self.outcome = Outcome(CommandState.FAILED, text)

    def _exceeded(self, missing: float) -> None:
        why = [f"{hand.serial}: {hand.why}" for hand in self._hands.values() if hand.why]
        text = f"{missing:.0f} W more are drawn than it permits, and nothing here can hold them"
        text = "; ".join([text, *why])
        self.outcome = Outcome(CommandState.SUCCEEDED, f"partial: {text}")
        self._context.find(
            FindingCode.LIMIT_NOT_HELD, self._meter, text, "switch loads off, or name its EV chargers under chargers:"
        )

    async def _be_blind(self) -> None:
        """Nothing says what is drawn: so that it is not too much, nothing that is steered here draws."""
        self.excess, self._looked = None, None
        if self._context.clock.monotonic() < self._began + PATIENCE:
            return
        text = f"it is not known what is drawn: {self._meter} tells neither grid_power nor ac_power now"
        self.outcome = Outcome(CommandState.FAILED, text)
        self._context.find(FindingCode.LIMIT_NOT_HELD, self._meter, text, "name a device with a grid meter as meter:")
        battery = self._ordered or 0.0 if self._stores(self._state(self._device)) else None
        await self._tell(Decision(battery, [*self._sight(0.0).charging]))

    async def _tell(self, decision: Decision) -> None:
        told = dict(self._kept.told)
        if decision.battery is not None:
            mode = "discharge" if decision.battery > 0 else "idle"
            told[self._device] = {MODE: mode, POWER: decision.battery}
        elif self._ordered is not None:
            told[self._device] = {MODE: AUTO, POWER: NONE}
        told |= {serial: {CHARGING: False} for serial in decision.wait}
        await self._keep(told)

    async def _let_go(self, serials: Sequence[str]) -> None:
        await self._keep(
            {each: {MODE: AUTO, POWER: NONE} if each == self._device else {CHARGING: True} for each in serials}
        )

    async def _keep(self, told: dict[str, dict[str, Value]]) -> None:
        """Note what is to be told, before it is: a restart must not forget to let go."""
        if told != self._kept.told:
            self._kept.told = told
            await self._note()

    async def _note(self) -> None:
        await self._file.write(msgspec.json.encode(self._kept))

    @property
    def _ordered(self) -> float | None:
        """W that the battery is ordered to give; None where it is left alone."""
        orders = self._kept.told.get(self._device, {})
        return None if orders.get(MODE, AUTO) == AUTO else _number(orders.get(POWER))

    def _sight(self, draw: float) -> Sight:
        state = self._state(self._device)
        battery, most = None, float("inf")
        if state is not None and self._stores(state) and state.quality is Quality.GOOD:
            battery = _number(state.values.get("battery_power")) or 0.0
            most = state.device.setpoints[POWER].high or state.device.rated_power or most
        charging = {}
        for serial in self._chargers:
            charger = self._state(serial)
            power = _number(charger.values.get("ev_power")) if charger is not None else None
            waits = CHARGING in self._kept.told.get(serial, {})  # or was told to, and does not
            if charger is not None and CHARGING in charger.device.setpoints and power != 0 and not waits:
                charging[serial] = power or 0.0
        return Sight(draw, battery, most, charging)

    @staticmethod
    def _stores(state: DeviceState | None) -> bool:
        return state is not None and {MODE, POWER} <= state.device.setpoints.keys()

    def _settled(self, state: DeviceState) -> bool:
        """Return whether what is measured was measured after what was told last has come about."""
        since = [hand.since + SETTLE for hand in self._hands.values() if hand.since is not None]
        times = [state.time]
        if self._ordered is not None and (device := self._state(self._device)) is not None:
            times.append(device.time)
        return all(time is not None and time >= each for time in times for each in since)

    def _shows_otherwise(self, serial: str, orders: Orders) -> bool:
        state = self._state(serial)
        values = state.values if state is not None else {}
        return any(
            (shown := values.get(setpoint)) is not None and not SETPOINTS[setpoint].same(shown, value)
            for setpoint, value in orders.items()
        )

    def _state(self, serial: str) -> DeviceState | None:
        return self._context.state(serial)


def _draw(state: DeviceState | None) -> float | None:
    """Return what is drawn at a meter, W; where a device has no grid meter, what it draws itself."""
    if state is None or state.quality is not Quality.GOOD:
        return None
    if (grid := _number(state.values.get("grid_power"))) is not None:
        return grid
    power = _number(state.values.get("ac_power"))
    return None if power is None else -power


def _lets_go(orders: Orders) -> bool:
    return orders.get(MODE) == AUTO or orders.get(CHARGING) is True


def _number(value: Value) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
