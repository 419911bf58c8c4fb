"""Carries setpoints out: one call, its result asked for until SEMS knows it, or else read back."""

import asyncio
import math
from collections.abc import Callable, Mapping
from datetime import UTC, timedelta
from typing import Final

from gateway.bridges.open_api.calls import Entry, arguments, told
from gateway.bridges.open_api.plants import Plants, Target
from gateway.core.bridge import Context, Outcome
from gateway.core.dispatch import REVERT_ORIGIN
from gateway.core.errors import NotSentError, RefusedError, UnsureError
from gateway.core.model import Command, CommandState, Value
from gateway.core.points import BATTERY, SETPOINTS
from gateway.sems.budget import Priority
from gateway.sems.catalogue import Catalogue, Interface, Json, Use
from gateway.sems.errors import NoDataError
from gateway.sems.normalise import entries, read
from gateway.sems.session import Session

ASK_FIRST: Final = 0.5
ASK_MOST: Final = 10.0
READ_BACK_TRIES: Final = 4
READ_BACK_PAUSE: Final = 5.0
TOLERANCE: Final = 0.5
"""In %, W and the like: SEMS rounds to whole ones."""
FINE_TOLERANCE: Final = 0.006
"""Of a setpoint without a unit, i.e. the power factor: SEMS rounds to hundredths."""
WINDOW: Final = timedelta(days=365)
"""How long a battery command holds where SEMS wants an end. Ours: until the next one, which a year stands for."""
FULL: Final = 100.0
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
        unsettle: Callable[[str, set[str]], None] = lambda _, __: None,
    ) -> None:
        self._catalogue = catalogue
        self._session = session
        self._context = context
        self._plants = plants
        self._take_dispatch = take_dispatch
        self._unsettle = unsettle
        """Told of setpoints that a command may have changed."""
        self._dispatched: set[str] = set()
        """Serials of what has been handed over to the gateway in this run."""

    def takes(self, serial: str, setpoint: str) -> bool:
        """Return whether the account has the device and SEMS an interface for the setpoint."""
        target = self._plants.get(serial)
        return target is not None and setpoint in target.device.setpoints

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
        args = arguments([target]) | self._filled(target, command, in_force)
        args |= {"begins": int(now.timestamp()), "ends": int((now + WINDOW).timestamp())}
        left = deadline - self._context.clock.monotonic()
        if left <= 0:
            raise NotSentError("handing the system over took all the time there was")
        data = await self._call(interface, args, command, timeout=left, setpoint=command.setpoint)
        self._unsettle(target.serial, set(interface.setpoints))
        return self._receipt(interface, data)

    async def result(self, command: Command, receipt: str) -> Outcome:
        """Ask for the task's result, ever more seldom; without a task id, read the setpoint back."""
        target = self._plants.get(command.serial)
        if target is None and not receipt:
            return Outcome(CommandState.UNKNOWN, "the device is known no more")
        if target is None or not receipt:
            return await self._ask(command, receipt) if target is None else await self._read_back(command, target)
        outcome = await self._ask(command, receipt)
        interface = self._catalogue.control_of(command.setpoint, target.type)
        self._unsettle(target.serial, set(interface.setpoints) if interface else {command.setpoint})
        return outcome

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

    def _filled(self, target: Target, command: Command, in_force: Mapping[str, Value]) -> dict[str, object]:
        """Return all setpoints that the call carries: the one commanded, and the others as they stand."""
        others = {
            setpoint: SETPOINTS[setpoint].neutral if value is None else value for setpoint, value in in_force.items()
        }
        filled: dict[str, object] = {**others, command.setpoint: command.value}
        if "battery_target_soc" in filled and filled["battery_target_soc"] is None:
            filled["battery_target_soc"] = FULL if filled.get("battery_mode") == "charge" else _lowest_soc(target)
        return filled

    # finding out

    async def _ask(self, command: Command, receipt: str) -> Outcome:
        interface = next(self._catalogue.using(Use.RESULT), None)
        if interface is None:
            return Outcome(CommandState.UNKNOWN, "SEMS has no interface for results")
        entry = await self._settled(interface, command, receipt)
        detail = entry.reading.text("detail")
        if entry.reading.text("state") == "succeeded":
            return Outcome(CommandState.SUCCEEDED, detail or "SEMS says it is done")
        return Outcome(CommandState.FAILED, detail or "SEMS says it failed")

    async def _settled(self, interface: Interface, command: Command, receipt: str) -> Entry:
        """Ask about a task until it is pending no more; return what is said of the command's device."""
        pause = ASK_FIRST
        while True:
            data = await self._call(interface, {"receipt": receipt, "serial": command.serial}, command)
            entry = await self._mine(interface, data, command)
            if entry is not None and entry.reading.text("state") in ("succeeded", "failed"):
                return entry
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, ASK_MOST)

    async def _mine(self, interface: Interface, data: Json, command: Command) -> Entry | None:
        """Return the entry about the command's device; one without a serial number is."""
        known = self._plants.get(command.serial)
        if known is None:
            return None
        found = [entry async for entry in told(interface, data, [known], self._plants, self._context.clock.now())]
        return next((entry for entry in found if entry.serial == command.serial), None)

    async def _read_back(self, command: Command, target: Target) -> Outcome:
        found: Value = None
        for attempt in range(READ_BACK_TRIES):
            if attempt:
                await asyncio.sleep(READ_BACK_PAUSE)
            found = await self._found(command, target)
            if _same(command.setpoint, found, command.value):
                return Outcome(CommandState.SUCCEEDED, "read back")
        return Outcome(CommandState.UNKNOWN, f"SEMS gave no result, and {found} is read back")

    async def _found(self, command: Command, target: Target) -> Value:
        """Return the setpoint as SEMS has it: from its parameters, or else from what is measured."""
        for interface in self._catalogue.using(Use.PARAMETERS, target.type):
            if all(row.point != command.setpoint for row in interface.response):
                continue
            try:
                entry = await self._parameters(interface, command, target)
            except RefusedError:
                continue
            if entry is not None:
                return entry.reading.values.get(command.setpoint)
        interface = next(i for i in self._catalogue.using(Use.LIVE, target.type))
        data = await self._call(interface, arguments([target]), command)
        entry = await self._mine(interface, data, command)
        return None if entry is None else entry.reading.values.get(command.setpoint)

    async def _parameters(self, interface: Interface, command: Command, target: Target) -> Entry | None:
        if "receipt" not in interface.args:
            data = await self._call(interface, arguments([target]), command)
            return await self._mine(interface, data, command)
        task = next(self._catalogue.using(Use.PARAMETERS_TASK, target.type), None)
        if task is None:
            return None
        receipt = self._receipt(task, await self._call(task, arguments([target]), command))
        entry = await self._settled(interface, command, receipt)
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
        priority = Priority.REVERT if command.origin == REVERT_ORIGIN else Priority.CONTROL
        return await self._session.call(interface.name, args, priority=priority, timeout=timeout, setpoint=setpoint)


def _lowest_soc(target: Target) -> float:
    return target.device.setpoints["battery_target_soc"].low or 0.0


def _same(setpoint: str, found: Value, wanted: Value) -> bool:
    numbers = isinstance(found, (int, float)) and isinstance(wanted, (int, float))
    if numbers and not isinstance(found, bool) and not isinstance(wanted, bool):
        tolerance = TOLERANCE if SETPOINTS[setpoint].unit else FINE_TOLERANCE
        return math.isclose(float(found or 0), float(wanted or 0), abs_tol=tolerance)
    return found == wanted
