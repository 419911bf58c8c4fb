"""A limit as a device: what is written to it is limit and heartbeat; what holds is written to the devices it is of."""

import asyncio
import math
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import ClassVar, Final

import msgspec

from gateway.api.bridge import BridgeSettings
from gateway.api.contexts import Context
from gateway.api.version import API_VERSION
from gateway.core.clock import set_within
from gateway.core.controller import Outcome
from gateway.core.findings import FindingCode
from gateway.core.kept_file import KeptFile
from gateway.core.mailbox import Updates
from gateway.core.model import (
    Command,
    CommandEvent,
    CommandState,
    Device,
    DeviceKind,
    DeviceState,
    Origin,
    Quality,
    Range,
    Snapshot,
    Value,
)
from gateway.core.points import NONE, SETPOINTS
from gateway.steering.limits.draw import IN_FORCE, PATIENCE, TOLERANCE, Draw
from gateway.steering.limits.hand import RESUME, Hand
from gateway.steering.limits.machine import Rules
from gateway.steering.limits.rating import Rating
from gateway.steering.limits.settings import CHARGING, IMPORT, LIMIT, MODE, PERCENT, POWER, PREFIX, LimitSettings
from gateway.steering.limits.side import OVERTAKEN, Side

STATES: Final = {LIMIT: "limit_state", IMPORT: "import_limit_state"}
"""Setpoint → the point that shows where its states stand."""
HELD: Final = 0.02
"""Of a limit: by as little it may be exceeded before that is told."""
HEARD_OF: Final = timedelta(seconds=120)
"""After it was told: what is measured sooner may be from before."""
LOOK: Final = 1.0
"""Seconds between looks at the time."""
PUBLISHED: Final = 30.0


class GridLimit:
    """One limit on what is fed in, on what is drawn, or on both."""

    api_version: ClassVar = API_VERSION
    Settings: ClassVar[type[BridgeSettings]] = LimitSettings

    def __init__(self, settings: LimitSettings, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._clock = context.clock
        self.serial = context.name
        origin = self._origin = Origin.of("limit", self.serial.removeprefix(PREFIX))
        self.sides = {
            setpoint: Side(Rules(settings.heartbeat, watts, settings.failsafe_duration), self._clock)
            for setpoint, watts in settings.failsafes.items()
        }
        name = self.serial.replace(":", "-")
        self._hand = Hand(context, origin, settings.device)
        self._draw = Draw(
            context, origin, context.data_dir / f"{name}-told.json",
            settings.device, settings.meter or settings.device, settings.chargers,
        )  # fmt: skip
        self._heard = KeptFile(
            context.data_dir / f"{name}-heard.json",
            float,
            context.log,
            unreadable="when a limit was set last is not known; it is as if that were now",
            unwritable="when a limit was set last can't be kept",
        )
        self._asked = KeptFile(
            context.data_dir / f"{name}-asked.json",
            dict[str, float | None],
            context.log,
            unreadable="what a limit was set to is not known where a reload took it out",
            unwritable="what a limit was set to can't be kept",
        )
        """Setpoint → W, None for no limit. The gateway knows it after a restart, not after a reload."""
        self._kept: dict[str, float | None] | None = None
        self._rating = Rating(context, context.data_dir / f"{name}-rated.json")
        self._drawn: tuple[float | None] | None = None
        """The limit, W, that is kept of what is drawn."""
        self._began = 0.0
        self._wake = asyncio.Event()

    async def start(self) -> None:
        """Take up what was in force; from now on somebody has to be heard."""
        self._began = self._clock.monotonic()
        self._context.announce(
            Device(
                serial=self.serial,
                kind=DeviceKind.LIMIT,
                name=self.serial.removeprefix(PREFIX),
                rated_power=self._rated(),
                setpoints={setpoint: Range(0, None) for setpoint in self.sides},
            ),
            named=True,
        )
        heard, asked = await asyncio.to_thread(self._heard.read), await asyncio.to_thread(self._asked.read)
        await self._draw.start()
        await self._rating.start()
        silent = 0.0 if heard is None else max(0.0, self._clock.now().timestamp() - heard)
        state = self._context.state(self.serial)
        for setpoint, side in self.sides.items():
            known = state.values.get(setpoint) if state is not None else None
            side.begin((asked or {}).get(setpoint) if known is None else known, silent)
        self._context.spawn(self._steer(), "steer")

    async def stop(self) -> None:
        """End. What the devices were told stays."""
        for side in self.sides.values():
            side.end()

    async def deliver(self, updates: Updates) -> None:
        """Take in heartbeats, and what became of what the devices were told."""
        for event in updates.events:
            if event.command.serial == self.serial and event.state is CommandState.ACCEPTED:
                self._beat()
                if (side := self.sides.get(event.command.setpoint)) is not None:
                    side.newer(event.command)
            elif self._hand.took(event):
                self._ended()
                self._wake.set()
            elif self._draw.took(event):
                self._wake.set()
            elif event.state in (CommandState.SENT, CommandState.SUCCEEDED) and self._is_rival(event.command):
                self._set_otherwise(event)
                self._wake.set()

    def steers(self, serial: str, setpoint: str = "") -> bool:
        """See `Steering`."""
        settings, own = self._settings, []
        if serial == settings.device:
            own += [LIMIT, PERCENT] if LIMIT in self.sides else []
            own += [MODE, POWER] if IMPORT in self.sides else []
        if IMPORT in self.sides and serial in settings.chargers:
            own += [CHARGING]
        return setpoint in own if setpoint else bool(own)

    def _ended(self) -> None:
        """Say it where the device has not done what it was told."""
        if self._hand.why:
            self.sides[LIMIT].answer(Outcome(CommandState.FAILED, self._hand.why))

    # as a controller

    def takes(self, serial: str, setpoint: str) -> bool:
        """Return whether it is this limit."""
        return serial == self.serial and setpoint in self.sides

    async def send(self, command: Command, in_force: Mapping[str, Value], timeout: float) -> str:  # noqa: ARG002
        """Have it hold from now on."""
        self._set(command)
        return ""

    def _beat(self) -> None:
        """Take in that somebody is there. What is asked holds once it is sent: it may yet expire, or be in force."""
        for side in self.sides.values():
            side.machine.beat(self._clock.boot())
        self._wake.set()
        self._context.spawn(self._note(), "note")

    def _set(self, command: Command) -> None:
        self.sides[command.setpoint].set(command)
        self._beat()

    async def _keep_asked(self) -> None:
        asked = {setpoint: side.asked for setpoint, side in self.sides.items() if side.was_set}
        if asked and asked != self._kept:
            self._kept = asked
            await self._asked.write(msgspec.json.encode(asked))

    async def _note(self) -> None:
        """Keep when somebody was heard: else each restart would begin the time anew within which one has to be."""
        await self._heard.write(msgspec.json.encode(self._clock.now().timestamp()))

    async def result(self, command: Command, receipt: str) -> Outcome:  # noqa: ARG002
        """Return what came of it, once the devices have done it."""
        side = self.sides[command.setpoint]
        if not side.is_of(command):
            self._set(command)  # it had left before a restart
        if (outcome := self._outcome(command.setpoint)) is not None:
            return outcome
        return OVERTAKEN if side.is_overtaken(command) else await side.outcome()

    def _outcome(self, setpoint: str) -> Outcome | None:
        """Return what has become of what holds now; None while that is not known yet."""
        limit = self.sides[setpoint].machine.limit
        if setpoint == IMPORT:
            return self._draw.outcome if self._drawn == (limit,) else None
        orders = self._orders(limit)
        if orders is None or self._hand.busy or self._hand.done != orders:
            return None
        return Outcome(CommandState.SUCCEEDED, self._hand.partial) if self._hand.partial else IN_FORCE

    # the loop

    async def _steer(self) -> None:
        shown: dict[str, Value] = {}
        at = -PUBLISHED
        while True:
            await set_within(self._wake, LOOK)
            self._wake.clear()
            self._claim()
            await self._keep_asked()
            await self._rating.look(self._rated())
            values: dict[str, Value] = {"status": "normal"}
            for setpoint, side in self.sides.items():
                before = side.machine.state
                side.machine.look(self._clock.boot())
                limit = side.machine.limit
                if side.machine.state is not before:
                    side.answer(OVERTAKEN)
                    self._context.log.info("limit", of=setpoint, state=side.machine.state, watts=limit)
                # Of what nobody has ever said anything, what is there stays.
                if side.was_set or limit is not None or (setpoint == IMPORT and self._draw.holds):
                    await (self._keep_draw(limit) if setpoint == IMPORT else self._tell(limit))
                if (outcome := self._outcome(setpoint)) is not None:
                    side.answer(outcome)
                values[STATES[setpoint]] = side.machine.state.value
                values[setpoint] = NONE if limit is None else limit
            if IMPORT in self.sides:
                values["import_excess"] = self._draw.excess
            now = self._clock.monotonic()
            if values != shown or now - at >= PUBLISHED / 2:
                shown, at = values, now
                self._context.publish(
                    Snapshot(
                        serial=self.serial,
                        time=self._clock.now(),
                        source=self._context.name,
                        interval=PUBLISHED,
                        values=values,
                    )
                )

    def _claim(self) -> None:
        """Say it where somebody else steers what this limit writes to."""
        for serial in self._steered():
            owner = self._context.claim(serial)
            if owner == self.serial:
                self._context.settle(FindingCode.STEERED_TWICE, serial)
            else:
                text = f"{serial} is steered by {owner} too, and each writes over the other"
                remedy = f"take it out of {owner}, or name another device in {self.serial}"
                self._context.find(FindingCode.STEERED_TWICE, serial, text, remedy)

    def _steered(self) -> Iterator[str]:
        """Yield the devices of which a limit may write what a fleet, or another limit, would write too."""
        chargers = self._settings.chargers if IMPORT in self.sides else ()
        for serial in (self._settings.device, *chargers):
            if (state := self._context.state(serial)) is None:
                continue
            takes = self._context.permitted(state.device, self._origin).keys()
            of_battery = IMPORT in self.sides and {MODE, POWER} <= takes
            by_power = LIMIT in self.sides and LIMIT not in state.device.setpoints and PERCENT in takes
            if (CHARGING in takes) if serial in chargers else (of_battery or by_power):
                yield serial

    async def _keep_draw(self, limit: float | None) -> None:
        """Have no more drawn than may be."""
        if self._drawn != (limit,):
            self._drawn = (limit,)
            self._draw.changed()
        await self._draw.look(limit)

    async def _tell(self, limit: float | None) -> None:
        """Have the device hold what may be fed in, where it does not yet."""
        hand, state = self._hand, self._context.state(self._settings.device)
        is_new = self._clock.monotonic() < self._began + PATIENCE
        orders = self._orders(limit)
        if orders is not None:
            if hand.done == orders and self._is_contradicted(orders):
                hand.contradicted()
            stands = LIMIT in orders or self._rating.stands
            if hand.done != orders and hand.may_be_told(orders) and stands and not self._waits_for(orders):
                await hand.tell(orders)
                if not hand.busy:
                    self._ended()
            if not self._is_kept_from(limit, orders):
                self._watch(limit, at_meter=LIMIT in orders)
        elif hand.resting:
            return
        elif state is None:
            if not is_new:
                self._failed("it is not known")
        elif device_is_known(state.device) or not is_new:  # else it is not known yet what it takes
            self._failed(f"{state.device.serial} takes neither {LIMIT} nor {PERCENT}")

    def _is_rival(self, command: Command) -> bool:
        """Return whether it is somebody else's, for what this limit writes."""
        is_of_device = LIMIT in self.sides and command.serial == self._settings.device
        return is_of_device and command.setpoint in (LIMIT, PERCENT) and command.origin.who != self._origin.who

    def _set_otherwise(self, event: CommandEvent) -> None:
        """Take in that somebody else has set, or is about to set, what this limit writes."""
        command, orders = event.command, self._orders(self.sides[LIMIT].machine.limit) or {}
        if (told := orders.get(command.setpoint)) is None:
            return
        if _is_looser(command.setpoint, command.value, told):
            if event.state is CommandState.SENT:
                self._hand.undone()
        elif event.state is CommandState.SUCCEEDED and self._hand.done != orders:
            self._hand.covered(orders)

    def _waits_for(self, orders: Mapping[str, Value]) -> bool:
        """Return whether somebody else is about to set it to what permits no more than this."""
        return any(
            self._is_rival(command)
            and (told := orders.get(command.setpoint)) is not None
            and not _is_looser(command.setpoint, command.value, told)
            for command in self._context.sent(self._settings.device)
        )

    def _is_contradicted(self, orders: Mapping[str, Value]) -> bool:
        """Return whether the device reads more than it was told; what is stricter somebody else may want."""
        device, told = self._settings.device, self._hand.since
        state, commanded = self._context.state(device), self._context.commanded(device)
        if state is None or told is None:
            return False
        is_new = state.time is not None and state.time > told + HEARD_OF
        return any(
            _is_looser(setpoint, state.values.get(setpoint), value) and (is_new or setpoint in commanded)
            for setpoint, value in orders.items()
        )

    def _is_kept_from(self, limit: float | None, orders: Mapping[str, Value]) -> bool:
        """Return whether no command may leave while the device stands at more than a limit permits; if so, say it."""
        state, why = self._context.state(self._settings.device), self._hand.closed
        if not why or limit is None or state is None:
            return False
        (setpoint, told), *_ = orders.items()
        stands = state.values.get(setpoint)
        for command in self._context.sent(state.device.serial):
            if command.setpoint == setpoint and (stands is None or _is_looser(setpoint, command.value, stands)):
                stands = command.value
        if self._hand.done == orders or (stands is not None and not _is_looser(setpoint, stands, told)):
            return False
        text = f"{state.device.serial} stands at {setpoint} {'unknown' if stands is None else stands}"
        text = f"{text}, and {limit:.0f} W are permitted; {why}"
        self._context.find(FindingCode.LIMIT_NOT_HELD, self.serial, text, RESUME.get(why, ""))
        self.sides[LIMIT].answer(Outcome(CommandState.FAILED, text))
        return True

    def _watch(self, limit: float | None, *, at_meter: bool) -> None:
        """Say it where more is fed in than a limit permits, although it was told. `at_meter`: there it holds."""
        state = self._context.state(self._settings.device)
        power = _power(state, "grid_power" if at_meter else "ac_power")
        if power is None and at_meter and self._settings.meter:
            state = self._context.state(self._settings.meter)
            power = _power(state, "grid_power")
        given, told = None if power is None else -power if at_meter else power, self._hand.since
        if limit is None or given is None or given <= limit + max(TOLERANCE, HELD * limit):
            self._context.settle(FindingCode.LIMIT_NOT_HELD, self.serial)
        elif told is not None and state is not None and state.time is not None and state.time > told + HEARD_OF:
            said = self._hand.partial or "it says it is done"
            what, remedy = ("given", "look at what its members give, and switch off by hand what does not obey")
            if at_meter:
                what, remedy = (
                    "fed in",
                    "look at its export limit and its meter, and switch off by hand what does not obey",
                )
            self._context.find(
                FindingCode.LIMIT_NOT_HELD,
                self.serial,
                f"{given:.0f} W are {what}, and {limit:.0f} W are permitted; {said}",
                remedy,
            )

    def _failed(self, why: str) -> None:
        self._hand.fail(why, LIMIT)
        self._ended()

    def _rated(self) -> float | None:
        state = self._context.state(self._settings.device)
        return state.device.rated_power if state is not None else None

    def _orders(self, watts: float | None) -> dict[str, Value] | None:
        """Return how the device holds a limit, W: by its own where it has one, else by a share of its power."""
        state = self._context.state(self._settings.device)
        device = state.device if state is not None else None
        if device is not None and LIMIT in device.setpoints:
            return {LIMIT: NONE if watts is None else watts}
        rated = self._rating.watts
        if device is not None and PERCENT in device.setpoints and device.rated_power and rated:
            return {PERCENT: 100.0 if watts is None else min(100.0, watts / rated * 100)}
        return None


def _power(state: DeviceState | None, point: str) -> float | None:
    """Return a power that is of now, W."""
    value = state.values.get(point) if state is not None and state.quality is Quality.GOOD else None
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _is_looser(setpoint: str, value: Value, told: Value) -> bool:
    """Return whether a value permits more than another, by more than what it is rounded to."""
    most, least = (math.inf if each == NONE else each for each in (value, told))
    if not isinstance(most, (int, float)) or not isinstance(least, (int, float)):
        return False
    return most > least and not SETPOINTS[setpoint].same(value, told)


def device_is_known(device: Device) -> bool:
    """Return whether it is known what a device takes: that of a fleet is, once a member is."""
    return bool(device.setpoints) and bool(device.rated_power)
