"""Carries setpoints out: one call, its result asked for until SEMS knows it, or else read back."""

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC
from functools import partial
from types import MappingProxyType
from typing import Final

import msgspec

from gateway.api.contexts import ControllerContext
from gateway.bridges.open_api.admission_queue import CALLS_EACH, AdmissionQueue
from gateway.bridges.open_api.batcher import Batcher
from gateway.bridges.open_api.results import Results
from gateway.core.controller import CallEstimate, Outcome
from gateway.core.errors import NotSentError, RefusedError, UnsureError
from gateway.core.limiter import Limiter, NoSlotError
from gateway.core.model import Command, CommandState, Device, DeviceKind, Value
from gateway.core.points import BATTERY, SETPOINTS
from gateway.sems.budget import Priority
from gateway.sems.calls import Entry, arguments, read_entries
from gateway.sems.catalogue import Catalogue, Interface, Json, Use
from gateway.sems.errors import NoDataError, NotDoneError, SystemFailureError
from gateway.sems.normalise import entries, read
from gateway.sems.orders import together, window
from gateway.sems.plants import Plants, Target
from gateway.sems.session import Session

READ_BACK_TRIES: Final = 4
READ_BACK_PAUSE: Final = 5.0
MAX_READ_BACK: Final = 10
"""Above so many commands under way none is read back for itself: polling confirms them, and costs a fleet less."""
MAX_CONCURRENT_CALLS: Final = 8
"""Calls for control that wait for an answer at a time."""
FOR_REVERTS: Final = 2
"""As many more that only reverts may make."""
REPEATS: Final = 3
REPEAT_AFTER: Final = 2.0
"""Seconds. Clients repeat as often and as soon where a device was not reached (SEMS.md, seen)."""
NO_STATE: Final = "SEMS does not say"


class Control:
    """The remote control form of an Open API."""

    def __init__(
        self,
        catalogue: Catalogue,
        session: Session,
        context: ControllerContext,
        plants: Plants,
        *,
        take_dispatch: bool = False,
        loggers: Mapping[str, str] = MappingProxyType({}),
        read_back: bool = True,
        invalidate: Callable[[str, set[str]], None] = lambda _, __: None,
    ) -> None:
        self._catalogue = catalogue
        self._session = session
        self._context = context
        self._plants = plants
        self._take_dispatch = take_dispatch
        self._loggers = loggers
        """Serial → that of the data logger it reports through, as the configuration says."""
        self._reads_back = read_back
        self._asking = 0
        """Commands whose result is waited for."""
        self._invalidate = invalidate
        """Called with setpoints that a command may have changed."""
        self._slots = Limiter(MAX_CONCURRENT_CALLS, reserve=FOR_REVERTS, urgent=Priority.REVERT)
        self._gatherer = Batcher(self._call_each, context.clock, context.log)
        self._results = Results(self._ask_each, context.clock)
        self._turns = AdmissionQueue(session.budget)
        self._dispatched: set[str] = set()
        """Serials of what has been handed over to the gateway in this run."""

    def takes(self, serial: str, setpoint: str) -> bool:
        """Return whether the account has the device and SEMS an interface for the setpoint."""
        target = self._plants.known(serial)
        return target is not None and setpoint in target.device.setpoints

    def turn(self, command: Command) -> asyncio.Future[None]:
        """Return what is done once there are calls for the command. See `Admitting`."""
        target = self._plants.known(command.serial)
        interface = self._catalogue.control_of(command.setpoint, target.type) if target else None
        return self._turns.ask(command.id, interface.batch if interface else 1)

    def leave(self, command: Command) -> None:
        """Let others have the command's turn. See `Admitting`."""
        self._turns.leave(command.id)

    def call_estimate(self, setpoint: str, serials: Sequence[str]) -> CallEstimate:
        """Return what it takes to set a setpoint of so many devices. See `Estimator`."""
        batches: Counter[str] = Counter()
        for serial in serials:
            target = self._plants.known(serial)
            interface = self._catalogue.control_of(setpoint, target.type) if target else None
            if interface is not None:
                batches[interface.name] += 1
        together = sum(math.ceil(count / self._catalogue.interface(name).batch) for name, count in batches.items())
        budget = self._session.budget
        return CallEstimate(
            devices=batches.total(),
            calls=together,
            seconds=budget.until(CALLS_EACH * together, Priority.CONTROL),
            left=budget.room(Priority.CONTROL),
        )

    async def send(self, command: Command, in_force: Mapping[str, Value], timeout: float) -> str:
        """Make the call. Returns SEMS's task id, or "" where the interface gives none."""
        target = self._plants.known(command.serial)
        interface = self._catalogue.control_of(command.setpoint, target.type) if target else None
        if target is None or interface is None:
            raise RefusedError(f"SEMS has no interface for {command.setpoint} of {command.serial}")
        deadline = self._context.clock.monotonic() + timeout
        if self._take_dispatch and SETPOINTS[command.setpoint].group == BATTERY:
            await self._hand_over(target, command, timeout)
        now = self._context.clock.now()
        args = arguments([target]) | together(command, in_force, target.device)
        args |= window(command, now, self._context.battery_window)
        left = deadline - self._context.clock.monotonic()
        if left <= 0:
            raise NotSentError("handing the system over took all the time there was")
        data = await self._gatherer.send(command.id, interface, args, command.setpoint, _priority(command), left)
        self._invalidate(target.serial, set(interface.setpoints))
        return self._receipt(interface, data)

    async def result(self, command: Command, receipt: str) -> Outcome:
        """Ask for the task's result, ever more seldom; without a task id, read the setpoint back."""
        target = self._plants.known(command.serial)
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
            self._invalidate(target.serial, set(interface.setpoints) if interface else {command.setpoint})
            if outcome.state is CommandState.SUCCEEDED and self._reads_back and self._asking <= MAX_READ_BACK:
                return await self._confirmed(command, target, outcome)
            return outcome
        finally:
            self._asking -= 1

    # sending

    async def _hand_over(self, target: Target, command: Command, timeout: float) -> None:
        """Have SEMS hand the energy management over, once in a run: by the data logger, not by the inverter."""
        interface = next(self._catalogue.using(Use.DISPATCH), None)
        if interface is None:
            return
        logger = self._logger(target)
        if logger in self._dispatched:
            return
        of_logger = msgspec.structs.replace(command, serial=logger)
        try:
            async with asyncio.timeout(timeout):
                data = await self._call(interface, arguments([target]) | {"serial": logger}, command, timeout=timeout)
                outcome = await self._ask(of_logger, self._receipt(interface, data))
        except (TimeoutError, UnsureError) as error:
            raise NotSentError(
                f"SEMS did not hand {target.serial} over to this gateway in time ({str(error) or 'no result'})"
            ) from None
        except RefusedError as error:
            raise RefusedError(f"SEMS does not hand {target.serial} over to this gateway: {error}") from error
        if outcome.state is not CommandState.SUCCEEDED:
            raise RefusedError(f"SEMS does not hand {target.serial} over to this gateway: {outcome.detail}")
        self._dispatched.add(logger)
        self._context.log.info("SEMS has handed a system over to this gateway", serial=target.serial, logger=logger)

    def _logger(self, target: Target) -> str:
        """Return the data logger of a device: the one that the configuration says, or its plant's only one.

        Raises RefusedError where that is not known: an order to another would be obeyed by nobody.
        """
        known = self._loggers.get(target.serial)
        if known is not None:
            return known
        found = [t.serial for t in self._plants.of(target.plant) if t.device.kind is DeviceKind.DATA_LOGGER]
        if len(found) == 1:
            return found[0]
        what = f"its plant has {len(found)} of them" if found else "SEMS lists none in its plant"
        raise RefusedError(
            f"it is not known which data logger {target.serial} reports through: {what}. Name it in the bridge's "
            f"configuration, `loggers: {{{target.serial}: <serial number of the data logger>}}`"
        )

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
        targets = [target for serial in commands if (target := self._known(serial)) is not None]
        first = next(iter(commands.values()))
        priority = max(_priority(command) for command in commands.values())
        args = {"receipt": receipt, "serial": first.serial}
        data = await self._call_each(interface, [args], "", priority, None)
        if not targets:
            return {}
        now = self._context.clock.now()
        return {entry.serial: entry async for entry in read_entries(interface, data, targets, self._plants, now)}

    def _known(self, serial: str) -> Target | None:
        """Return a device; a data logger is one too where only the configuration names it."""
        if serial in self._loggers.values():
            return self._plants.known(serial) or Target(Device(serial=serial, kind=DeviceKind.DATA_LOGGER), "", UTC)
        return self._plants.known(serial)

    async def _mine(self, interface: Interface, data: Json, command: Command) -> Entry | None:
        """Return the entry about the command's device; one without a serial number is."""
        known = self._plants.known(command.serial)
        if known is None:
            return None
        now = self._context.clock.now()
        found = [entry async for entry in read_entries(interface, data, [known], self._plants, now)]
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
        ids: Sequence[str] = (),
    ) -> Json:
        """Make one call for several, when there is room for it. `ids` are the commands that it carries out.

        What has a deadline is repeated where SEMS says that it did not reach the device, or failed: a setpoint is
        absolute, no newer one leaves meanwhile, and each try is asked anew whether it may leave.
        """
        clock = self._context.clock
        deadline = None if timeout is None else clock.monotonic() + timeout
        failed: NotDoneError | SystemFailureError | None = None
        for repeats_left in reversed(range(REPEATS + 1)):
            left = None if deadline is None else deadline - clock.monotonic()
            try:
                return await self._call_once(interface, each, setpoint, priority, left, ids)
            except (NotDoneError, SystemFailureError) as error:
                failed = error
                if not repeats_left or deadline is None or deadline - clock.monotonic() <= REPEAT_AFTER:
                    raise
            except NotSentError:
                if failed is None:
                    raise
                raise failed from None  # the try before was sent, so nobody may take it for unsent
            await asyncio.sleep(REPEAT_AFTER)
            if ids and not self._context.still_wanted(*ids):
                raise failed
        raise AssertionError("the last try returns or raises")

    async def _call_once(
        self,
        interface: Interface,
        each: Sequence[Mapping[str, object]],
        setpoint: str,
        priority: Priority,
        timeout: float | None,
        ids: Sequence[str],
    ) -> Json:
        clock = self._context.clock
        deadline = None if timeout is None else clock.monotonic() + timeout
        try:
            async with self._slots.slot(priority, timeout):
                left = None if deadline is None else deadline - clock.monotonic()
                return await self._session.call(
                    interface.name,
                    each[0],
                    priority=priority,
                    timeout=left,
                    setpoint=setpoint,
                    more=each[1:],
                    may_leave=partial(self._context.may_leave, *ids) if ids else None,
                )
        except NoSlotError:
            raise NotSentError("expired while waiting for other calls") from None


def _priority(command: Command) -> Priority:
    return Priority.REVERT if command.is_revert else Priority.CONTROL
