"""Carries setpoints out: one call, and then its result asked for until SEMS knows it."""

import asyncio
import math
from collections.abc import Mapping
from datetime import UTC
from typing import Final

from gateway.bridges.open_api.plants import Plants
from gateway.core.bridge import Context, Outcome
from gateway.core.errors import RefusedError
from gateway.core.model import Command, CommandState, Value
from gateway.core.points import SETPOINTS
from gateway.sems.catalogue import Catalogue
from gateway.sems.errors import BadAnswerError
from gateway.sems.normalise import entries, read
from gateway.sems.session import Session

ASK_FIRST: Final = 0.5
ASK_MOST: Final = 10.0
READ_BACK_TRIES: Final = 4
READ_BACK_PAUSE: Final = 5.0
TOLERANCE: Final = 0.5
"""In the setpoint's unit: SEMS rounds to whole percent and watts."""
FULL: Final = 100.0


class Control:
    """The remote control form of the Open API."""

    def __init__(self, catalogue: Catalogue, session: Session, context: Context, plants: Plants) -> None:
        self._catalogue = catalogue
        self._session = session
        self._context = context
        self._plants = plants

    def takes(self, serial: str, setpoint: str) -> bool:
        """Return whether the account has the device and SEMS an interface for the setpoint."""
        target = self._plants.get(serial)
        return target is not None and setpoint in target.device.setpoints

    async def send(self, command: Command, in_force: Mapping[str, Value], timeout: float) -> str:
        """Make the call. Returns SEMS's task id."""
        interface = self._catalogue.control_of(command.setpoint)
        if interface is None:
            raise RefusedError(f"SEMS has no interface for {command.setpoint}")
        args = {"serial": command.serial} | self._filled(command, in_force)
        data = await self._session.call(interface.name, args, control=True, timeout=timeout)
        for entry in entries(interface, data):
            receipt = read(interface, entry, UTC, self._context.clock.now()).attributes.get("receipt")
            if receipt:
                return str(receipt)
        raise BadAnswerError(f"SEMS accepted {interface.name} without a task id")

    async def result(self, command: Command, receipt: str) -> Outcome:
        """Ask for the task's result, ever more seldom; without a task id, read the setpoint back."""
        if not receipt:
            return await self._read_back(command)
        interface = self._catalogue.interface("GetControlResult")
        pause = ASK_FIRST
        while True:
            data = await self._session.call(interface.name, {"receipt": receipt}, control=True)
            for entry in entries(interface, data):
                said = read(interface, entry, UTC, self._context.clock.now()).attributes
                detail = str(said.get("detail") or "")
                match said.get("state"):
                    case "succeeded":
                        return Outcome(CommandState.SUCCEEDED, detail or "SEMS says it is done")
                    case "failed":
                        return Outcome(CommandState.FAILED, detail or "SEMS says it failed")
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, ASK_MOST)

    def _filled(self, command: Command, in_force: Mapping[str, Value]) -> dict[str, Value]:
        """Return all setpoints that the call carries: the one commanded, and the others as they stand."""
        others = {
            setpoint: SETPOINTS[setpoint].neutral if value is None else value for setpoint, value in in_force.items()
        }
        filled = {**others, command.setpoint: command.value}
        if "battery_target_soc" in filled and filled["battery_target_soc"] is None:
            filled["battery_target_soc"] = FULL if filled["battery_mode"] == "charge" else self._lowest_soc(command)
        return filled

    def _lowest_soc(self, command: Command) -> float:
        target = self._plants.get(command.serial)
        low = target.device.setpoints["battery_target_soc"].low if target else None
        return low or 0.0

    async def _read_back(self, command: Command) -> Outcome:
        target = self._plants.get(command.serial)
        if target is None:
            return Outcome(CommandState.UNKNOWN, "the device is known no more")
        interface = self._catalogue.interface(target.interface)
        found: Value = None
        for attempt in range(READ_BACK_TRIES):
            if attempt:
                await asyncio.sleep(READ_BACK_PAUSE)
            data = await self._session.call(interface.name, {target.argument: command.serial}, control=True)
            for entry in entries(interface, data):
                found = read(interface, entry, target.zone, self._context.clock.now()).values.get(command.setpoint)
            if _same(found, command.value):
                return Outcome(CommandState.SUCCEEDED, "read back")
        return Outcome(CommandState.UNKNOWN, f"SEMS gave no result, and {found} is read back")


def _same(found: Value, wanted: Value) -> bool:
    if isinstance(found, float) and isinstance(wanted, float):
        return math.isclose(found, wanted, abs_tol=TOLERANCE)
    return found == wanted
