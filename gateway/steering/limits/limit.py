"""A limit as a device: what is written to it is limit and heartbeat; what holds is written to the device it is of."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import ClassVar, Final

import msgspec

from gateway.api.bridge import BridgeSettings
from gateway.api.contexts import Context
from gateway.api.version import API_VERSION
from gateway.core.clock import set_within
from gateway.core.controller import Outcome
from gateway.core.errors import NotSentError
from gateway.core.findings import FindingCode
from gateway.core.kept_file import KeptFile
from gateway.core.mailbox import Updates
from gateway.core.model import (
    Command,
    CommandEvent,
    CommandState,
    Device,
    DeviceKind,
    Origin,
    Range,
    Snapshot,
    Value,
    new_command_id,
)
from gateway.core.points import NONE
from gateway.steering.limits.machine import Machine, Rules
from gateway.steering.limits.settings import LIMIT, PERCENT, PREFIX, LimitSettings

LOOK: Final = 1.0
"""Seconds between looks at the time."""
PUBLISHED: Final = 30.0
CHILD_TTL: Final = 120.0
"""Seconds until a command to the device expires unsent; then it is given anew."""
AGAIN: Final = 10.0
"""Seconds after a refusal until the device is told again, doubling each time."""
AGAIN_MOST: Final = 600.0
PATIENCE: Final = 120.0
"""Seconds after a start within which the device may not be known yet."""


class GridLimit:
    """One limit on what is fed in."""

    api_version: ClassVar = API_VERSION
    Settings: ClassVar[type[BridgeSettings]] = LimitSettings

    def __init__(self, settings: LimitSettings, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._clock = context.clock
        self.serial = context.name
        self._origin = Origin.of("limit", self.serial.removeprefix(PREFIX))
        self.machine = self._new_machine()
        self._told: float | None = None
        """W that the device was told last, and did; None for no limit."""
        self._is_told = False
        self._heard = KeptFile(
            context.data_dir / f"{self.serial.replace(':', '-')}-heard.json",
            float,
            context.log,
            unreadable="when a limit was set last is not known; it is as if that were now",
            unwritable="when a limit was set last can't be kept",
        )
        self._was_set = False
        """Somebody has ever set it: else there is nothing to lift."""
        self._value: float | None = None
        """W, as it was set last."""
        self._newest = ""
        """Id of the command by which it was."""
        self._began = 0.0
        self._child: str = ""
        """Id of the command that is under way."""
        self._asked: float | None = None
        self._again = 0.0
        self._pause = AGAIN
        self._waiting: list[asyncio.Future[Outcome]] = []
        self._wake = asyncio.Event()

    def _new_machine(self) -> Machine:
        given = self._settings
        rules = Rules(given.heartbeat, given.failsafe, given.failsafe_duration)
        return Machine(rules, self._clock.boot())

    async def start(self) -> None:
        """Take up what was in force; from now on somebody has to be heard."""
        self.machine = self._new_machine()
        self._began = self._clock.monotonic()
        rated = self._rated()
        self._context.announce(
            Device(
                serial=self.serial,
                kind=DeviceKind.LIMIT,
                name=self.serial.removeprefix(PREFIX),
                rated_power=rated,
                setpoints={LIMIT: Range(0, None)},
            ),
            named=True,
        )
        state = self._context.state(self.serial)
        known = state.values.get(LIMIT) if state is not None else None
        if isinstance(known, (int, float)):
            heard = await asyncio.to_thread(self._heard.read)
            now = self._clock.now()
            silent = 0.0 if heard is None else max(0.0, now.timestamp() - heard)
            self.machine.restore(float(known), self._clock.boot(), silent)
            self._was_set = True
        if self._newest:  # a command that had left before a restart was asked about before this began
            self.machine.set(self._value, self._clock.boot())
        self._context.spawn(self._steer(), "steer")

    async def stop(self) -> None:
        """End. What the device was told stays."""
        for future in self._waiting:
            future.cancel()
        self._waiting.clear()
        self._newest = ""

    async def deliver(self, updates: Updates) -> None:
        """Take in heartbeats, and what became of what the device was told."""
        for event in updates.events:
            if event.command.serial == self.serial and event.state is CommandState.ACCEPTED:
                self._beat()
            elif event.command.id == self._child and event.state.final:
                self._child_ended(event)

    def _child_ended(self, event: CommandEvent) -> None:
        self._child = ""
        if event.state is CommandState.SUCCEEDED:
            self._told, self._is_told, self._pause = self._asked, True, AGAIN
            self._context.settle(FindingCode.NOT_STEERABLE, self._settings.device)
        else:
            self._failed(event.detail or event.state)
        self._wake.set()

    def _failed(self, why: str) -> None:
        self._again, self._pause = self._clock.monotonic() + self._pause, min(2 * self._pause, AGAIN_MOST)
        self._context.find(
            FindingCode.NOT_STEERABLE, self._settings.device, f"the limit can't be written to it: {why}",
            f"sems-gateway explain CONFIG {self._settings.device} {LIMIT} 0 --as {self._origin}",
        )  # fmt: skip
        self._answer(Outcome(CommandState.FAILED, why))

    def _answer(self, outcome: Outcome) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(outcome)
        self._waiting.clear()

    # as a controller

    def takes(self, serial: str, setpoint: str) -> bool:
        """Return whether it is this limit."""
        return serial == self.serial and setpoint == LIMIT

    async def send(self, command: Command, in_force: Mapping[str, Value], timeout: float) -> str:  # noqa: ARG002
        """Have it hold from now on."""
        self._set(command)
        return ""

    def _beat(self) -> None:
        """Take in that somebody is there. What is asked holds once it is sent: it may yet expire, or be in force."""
        self.machine.beat(self._clock.boot())
        self._wake.set()
        self._context.spawn(self._note(), "note")

    def _set(self, command: Command) -> None:
        self._newest, self._was_set, self._value = command.id, True, _watts(command.value)
        self.machine.set(self._value, self._clock.boot())
        self._beat()

    async def _note(self) -> None:
        """Keep when somebody was heard: else each restart would begin the time anew within which one has to be."""
        await self._heard.write(msgspec.json.encode(self._clock.now().timestamp()))

    async def result(self, command: Command, receipt: str) -> Outcome:  # noqa: ARG002
        """Return what came of it, once the device has done it."""
        if command.id != self._newest:
            self._set(command)  # it had left before a restart
        if self._is_told and not self._child and self._told == self.machine.limit:
            return Outcome(CommandState.SUCCEEDED, "in force")
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            return await future
        except asyncio.CancelledError:
            if future.cancelled():
                raise NotSentError("the limit begins anew") from None
            raise

    # the loop

    async def _steer(self) -> None:
        shown: dict[str, Value] = {}
        at = -PUBLISHED
        while True:
            await set_within(self._wake, LOOK)
            self._wake.clear()
            before = self.machine.state
            self.machine.look(self._clock.boot())
            if self.machine.state is not before:
                self._context.log.info("limit", state=self.machine.state, watts=self.machine.limit)
            await self._tell()
            now = self._clock.monotonic()
            limit = self.machine.limit
            values: dict[str, Value] = {
                "limit_state": self.machine.state.value,
                LIMIT: NONE if limit is None else limit,
            }
            if values != shown or now - at >= PUBLISHED / 2:
                shown, at = values, now
                self._context.publish(
                    Snapshot(
                        serial=self.serial,
                        time=self._clock.now(),
                        source=self._context.name,
                        interval=PUBLISHED,
                        values={"status": "normal", **values},
                    )
                )

    async def _tell(self) -> None:
        """Have the device hold what is to hold, where it does not yet."""
        wanted = self.machine.limit
        if not self._was_set and wanted is None:
            return  # nobody has ever said anything: what is there stays
        if self._child:
            return
        if self._is_told and wanted == self._told:
            self._answer(Outcome(CommandState.SUCCEEDED, "in force"))
            return
        if self._clock.monotonic() < self._again:
            return
        state = self._context.state(self._settings.device)
        if state is None:
            if self._clock.monotonic() >= self._began + PATIENCE:
                self._failed("it is not known")
            return
        setpoint, value = self._order(state.device, wanted)
        if setpoint is None:
            if not device_is_known(state.device) and self._clock.monotonic() < self._began + PATIENCE:
                return  # it is not known yet what it takes
            self._failed(str(value))
            return
        now = self._clock.now()
        command = Command(
            id=new_command_id(),
            serial=self._settings.device,
            setpoint=setpoint,
            value=value,
            origin=self._origin,
            created=now,
            expires=now + timedelta(seconds=CHILD_TTL),
        )
        self._child, self._asked = command.id, wanted
        (event,) = await self._context.submit(command)
        if event.state.final and self._child == command.id:
            self._child_ended(event)

    def _rated(self) -> float | None:
        state = self._context.state(self._settings.device)
        return state.device.rated_power if state is not None else None

    @staticmethod
    def _order(device: Device, watts: float | None) -> tuple[str | None, Value]:
        """Return by which setpoint the device holds a limit, W: its own where it has one, else a share of its power."""
        if LIMIT in device.setpoints:
            return LIMIT, NONE if watts is None else watts
        if PERCENT in device.setpoints and device.rated_power:
            return PERCENT, 100.0 if watts is None else min(100.0, watts / device.rated_power * 100)
        return None, f"{device.serial} takes neither {LIMIT} nor {PERCENT}"


def device_is_known(device: Device) -> bool:
    """Return whether it is known what a device takes: that of a fleet is, once a member is."""
    return bool(device.setpoints) and bool(device.rated_power)


def _watts(value: Value) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
