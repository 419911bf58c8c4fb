"""Carries setpoints out: one call, its result asked for until SEMS knows it, or else read back."""

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC
from typing import Final

from gateway.bridges.open_api.gather import Gatherer
from gateway.bridges.open_api.results import Results
from gateway.bridges.open_api.turns import CALLS_EACH, Slots, Turns
from gateway.core.bridge import Context, Effort, Outcome
from gateway.core.control.dispatch import REVERT_ORIGIN
from gateway.core.errors import NotSentError, RefusedError, UnsureError
from gateway.core.model import Command, CommandState, Value
from gateway.core.points import BATTERY, SETPOINTS
from gateway.sems.budget import Priority
from gateway.sems.calls import Entry, arguments, told
from gateway.sems.catalogue import Catalogue, Interface, Json, Use
from gateway.sems.errors import NoDataError
from gateway.sems.normalise import entries, read
from gateway.sems.orders import WINDOW, together
from gateway.sems.plants import Plants, Target
from gateway.sems.session import Session

READ_BACK_TRIES: Final = 4
READ_BACK_PAUSE: Final = 5.0
READ_BACK_AT_ONCE: Final = 10
"""Above so many commands under way none is read back for itself: polling confirms them, and costs a fleet less."""
NO_STATE: Final = "SEMS does not say"


class Control:
    """The remote control form of an Open API."""

    def __init__(
        self,
        catalogue: Catalogue,
        session: Session,
        context: Context,
        plants: Plants,
        *,
        take_dispatch: bool = False,
        read_back: bool = True,
        unsettle: Callable[[str, set[str]], None] = lambda _, __: None,
    ) -> None:
        self._catalogue = catalogue
        self._session = session
        self._context = context
        self._plants = plants
        self._take_dispatch = take_dispatch
        self._reads_back = read_back
        self._asking = 0
        """Commands whose result is waited for."""
        self._unsettle = unsettle
        """Told of setpoints that a command may have changed."""
        self._slots = Slots()
        self._gatherer = Gatherer(self._call_each, context.clock, context.log)
        self._results = Results(self._ask_each, context.clock)
        self._turns = Turns(session.budget)
        self._dispatched: set[str] = set()
        """Serials of what has been handed over to the gateway in this run."""

    def takes(self, serial: str, setpoint: str) -> bool:
        """Return whether the account has the device and SEMS an interface for the setpoint."""
        target = self._plants.get(serial)
        return target is not None and setpoint in target.device.setpoints

    def turn(self, command: Command) -> asyncio.Future[None]:
        """Return what is done once there are calls for the command. See `Paced`."""
        target = self._plants.get(command.serial)
        interface = self._catalogue.control_of(command.setpoint, target.type) if target else None
        return self._turns.ask(command.id, interface.batch if interface else 1)

    def leave(self, command: Command) -> None:
        """Let others have the command's turn. See `Paced`."""
        self._turns.leave(command.id)

    def effort(self, setpoint: str, serials: Sequence[str]) -> Effort:
        """Return what it takes to set a setpoint of so many devices. See `Estimator`."""
        batches: Counter[str] = Counter()
        for serial in serials:
            target = self._plants.get(serial)
            interface = self._catalogue.control_of(setpoint, target.type) if target else None
            if interface is not None:
                batches[interface.name] += 1
        together = sum(math.ceil(count / self._catalogue.interface(name).batch) for name, count in batches.items())
        budget = self._session.budget
        return Effort(
            devices=batches.total(),
            calls=together,
            seconds=budget.until(CALLS_EACH * together, Priority.CONTROL),
            left=budget.room(Priority.CONTROL),
        )

    async def send(self, command: Command, in_force: Mapping[str, Value], timeout: float) -> str:
        """Make the call. Returns SEMS's task id, or "" where the interface gives none."""
        target = self._plants.get(command.serial)
        interface = self._catalogue.control_of(command.setpoint, target.type) if target else None
        if target is None or interface is None:
            raise RefusedError(f"SEMS has no interface for {command.setpoint} of {command.serial}")
        deadline = self._context.clock.monotonic() + timeout
        if self._take_dispatch and SETPOINTS[command.setpoint].group == BATTERY:
            await self._hand_over(target, command, timeout)
        now = self._context.clock.now()
        args = arguments([target]) | together(command, in_force, _lowest_soc(target))
        args |= {"begins": int(now.timestamp()), "ends": int((now + WINDOW).timestamp())}
        left = deadline - self._context.clock.monotonic()
        if left <= 0:
            raise NotSentError("handing the system over took all the time there was")
        data = await self._gatherer.send(interface, args, command.setpoint, _priority(command), left)
        self._unsettle(target.serial, set(interface.setpoints))
        return self._receipt(interface, data)

    async def result(self, command: Command, receipt: str) -> Outcome:
        """Ask for the task's result, ever more seldom; without a task id, read the setpoint back."""
        target = self._plants.get(command.serial)
        if target is None and not self._plants.looked_for:
            raise NotSentError("the account's devices are not known yet")
        if target is None and not receipt:
            return Outcome(CommandState.UNKNOWN, "the device is known no more")
        if target is None or not receipt:
            return await self._ask(command, receipt) if target is None else await self._read_back(command, target)
        self._asking += 1
        try:
            outcome = await self._ask(command, receipt)
            interface = self._catalogue.control_of(command.setpoint, target.type)
            self._unsettle(target.serial, set(interface.setpoints) if interface else {command.setpoint})
            if outcome.state is CommandState.SUCCEEDED and self._reads_back and self._asking <= READ_BACK_AT_ONCE:
                return await self._confirmed(command, target, outcome)
            return outcome
        finally:
            self._asking -= 1

    # sending

    async def _hand_over(self, target: Target, command: Command, timeout: float) -> None:
        """Have SEMS hand the energy management over, once in a run."""
        interface = next(self._catalogue.using(Use.DISPATCH, target.type), None)
        if interface is None or target.serial in self._dispatched:
            return
        try:
            async with asyncio.timeout(timeout):
                data = await self._call(interface, arguments([target]), command, timeout=timeout)
                outcome = await self._ask(command, self._receipt(interface, data))
        except (TimeoutError, UnsureError) as error:
            raise NotSentError(
                f"SEMS did not hand {target.serial} over to this gateway in time ({str(error) or 'no result'})"
            ) from None
        except RefusedError as error:
            raise RefusedError(f"SEMS does not hand {target.serial} over to this gateway: {error}") from error
        if outcome.state is not CommandState.SUCCEEDED:
            raise RefusedError(f"SEMS does not hand {target.serial} over to this gateway: {outcome.detail}")
        self._dispatched.add(target.serial)
        self._context.log.info("SEMS has handed a system over to this gateway", serial=target.serial)

    def _receipt(self, interface: Interface, data: Json) -> str:
        if not any(row.attribute == "receipt" for row in interface.response):
            return ""
        for entry in entries(interface, data):
            receipt = read(interface, entry, UTC, self._context.clock.now()).attributes.get("receipt")
            if receipt:
                return str(receipt)
        raise NoDataError(f"SEMS accepted {interface.name} without a task id")

    # finding out

    async def _ask(self, command: Command, receipt: str) -> Outcome:
        interface = next(self._catalogue.using(Use.RESULT), None)
        if interface is None:
            return Outcome(CommandState.UNKNOWN, "SEMS has no interface for results")
        entry = await self._results.settled(interface, receipt, command)
        detail = entry.reading.text("detail")
        if entry.reading.text("state") == "succeeded":
            return Outcome(CommandState.SUCCEEDED, detail or "SEMS says it is done")
        return Outcome(CommandState.FAILED, detail or "SEMS says it failed")

    async def _ask_each(self, interface: Interface, receipt: str, commands: Mapping[str, Command]) -> dict[str, Entry]:
        """Ask once about a task; return what is said of each device of these commands, by its serial."""
        targets = [target for serial in commands if (target := self._plants.get(serial)) is not None]
        first = next(iter(commands.values()))
        priority = max(_priority(command) for command in commands.values())
        args = {"receipt": receipt, "serial": first.serial}
        data = await self._call_each(interface, [args], "", priority, None)
        if not targets:
            return {}
        now = self._context.clock.now()
        return {entry.serial: entry async for entry in told(interface, data, targets, self._plants, now)}

    async def _mine(self, interface: Interface, data: Json, command: Command) -> Entry | None:
        """Return the entry about the command's device; one without a serial number is."""
        known = self._plants.get(command.serial)
        if known is None:
            return None
        found = [entry async for entry in told(interface, data, [known], self._plants, self._context.clock.now())]
        return next((entry for entry in found if entry.serial == command.serial), None)

    async def _confirmed(self, command: Command, target: Target, outcome: Outcome) -> Outcome:
        """Return a success with what SEMS's parameters say of it.

        Other values may only be older than the device's obedience, so they prove nothing here: the gateway waits for
        what is measured later. Neither does a read-back that fails.
        """
        try:
            found = await self._parameter(command, target)
        except (NotSentError, RefusedError, UnsureError) as error:
            self._context.log.debug("a command could not be read back", serial=target.serial, error=str(error))
            return outcome
        if found is None or not SETPOINTS[command.setpoint].same(found, command.value):
            return outcome
        return Outcome(CommandState.SUCCEEDED, f"{outcome.detail}; read back", verified=True)

    async def _read_back(self, command: Command, target: Target) -> Outcome:
        found: Value = None
        for attempt in range(READ_BACK_TRIES):
            if attempt:
                await asyncio.sleep(READ_BACK_PAUSE)
            found = await self._found(command, target)
            if SETPOINTS[command.setpoint].same(found, command.value):
                return Outcome(CommandState.SUCCEEDED, "read back", verified=True)
        return Outcome(CommandState.UNKNOWN, f"SEMS gave no result, and {found} is read back")

    async def _found(self, command: Command, target: Target) -> Value:
        """Return the setpoint as SEMS has it: from its parameters, or else from what is measured."""
        found = await self._parameter(command, target)
        if found is not None:
            return found
        interface = next(i for i in self._catalogue.using(Use.LIVE, target.type))
        data = await self._call(interface, arguments([target]), command)
        entry = await self._mine(interface, data, command)
        return None if entry is None else entry.reading.values.get(command.setpoint)

    async def _parameter(self, command: Command, target: Target) -> Value:
        """Return the setpoint as SEMS's parameters have it; None where they do not."""
        for interface in self._catalogue.using(Use.PARAMETERS, target.type):
            if all(row.point != command.setpoint for row in interface.response):
                continue
            try:
                entry = await self._parameters(interface, command, target)
            except RefusedError:
                continue
            if entry is not None:
                return entry.reading.values.get(command.setpoint)
        return None

    async def _parameters(self, interface: Interface, command: Command, target: Target) -> Entry | None:
        if "receipt" not in interface.args:
            data = await self._call(interface, arguments([target]), command)
            return await self._mine(interface, data, command)
        task = next(self._catalogue.using(Use.PARAMETERS_TASK, target.type), None)
        if task is None:
            return None
        receipt = self._receipt(task, await self._call(task, arguments([target]), command))
        entry = await self._results.settled(interface, receipt, command)
        return entry if entry.reading.text("state") == "succeeded" else None

    async def _call(
        self,
        interface: Interface,
        args: Mapping[str, object],
        command: Command,
        *,
        timeout: float | None = None,
        setpoint: str = "",
    ) -> Json:
        return await self._call_each(interface, [args], setpoint, _priority(command), timeout)

    async def _call_each(
        self,
        interface: Interface,
        each: Sequence[Mapping[str, object]],
        setpoint: str,
        priority: Priority,
        timeout: float | None,
    ) -> Json:
        """Make one call for several, when there is room for it."""
        clock = self._context.clock
        deadline = None if timeout is None else clock.monotonic() + timeout
        async with self._slots.taken(priority, timeout):
            left = None if deadline is None else deadline - clock.monotonic()
            return await self._session.call(
                interface.name, each[0], priority=priority, timeout=left, setpoint=setpoint, more=each[1:]
            )


def _priority(command: Command) -> Priority:
    return Priority.REVERT if command.origin == REVERT_ORIGIN else Priority.CONTROL


def _lowest_soc(target: Target) -> float:
    limits = target.device.setpoints.get("battery_target_soc")
    return (limits.low if limits else None) or 0.0
