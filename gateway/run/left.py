"""Devices that stand as a fleet or a limit told them that does not steer them any more: it has others now, or went.

To let them go by itself would be a command that nobody asked for. So it is said, until something else is set.
"""

import asyncio
import math
from collections.abc import Iterator, Mapping
from typing import Final

import structlog

from gateway.api.capabilities import Steering
from gateway.commands.memory import Setting
from gateway.commands.verify import in_words
from gateway.core.findings import FindingCode
from gateway.core.model import GATEWAY, CommandEvent, CommandState, DeviceState, Origin, Value
from gateway.core.points import NONE, SETPOINTS
from gateway.journal.journal import Journal
from gateway.run.supervisor import Services

log = structlog.get_logger("gateway")

LOOK: Final = 5.0
"""Seconds between looks."""
A_TURN: Final = 200
"""Devices that are looked at in one turn of the loop, and commands that the journal is asked about at once."""
PLANTS_WITHIN: Final = 300.0
"""Seconds after a start within which the name of a plant may not be known yet, by which a fleet may name devices."""
STEERERS: Final = ("fleet", "limit")
"""Bridges of origins that are no person's."""
_FREE: Final[Mapping[str, Value]] = {"charging": True}
"""Setpoint → what lets a device go, where that is not what a dead-man's timer falls back to."""


class Left:
    """Looks for them. What it finds is shown with the bridge that could set them."""

    def __init__(self, services: Services, journal: Journal) -> None:
        self._services = services
        self._memory = services.dispatcher.memory
        self._journal = journal
        self._shown: dict[str, str] = {}
        """Serial → the bridge that shows it."""
        self._began = math.inf

    async def watch(self) -> None:
        """Look again and again."""
        self._began = self._services.clock.monotonic()
        while True:
            await asyncio.sleep(LOOK)
            await self.look()

    async def look(self) -> int:
        """Look once; return how many there are."""
        await self._look_up()
        shown: dict[str, str] = {}
        for number, (serial, settings) in enumerate(self._memory, 1):
            if number % A_TURN == 0:
                await asyncio.sleep(0)
            state = self._services.router.state(serial)
            if state is None or not (left := list(self._left(state, settings))):
                continue
            takers = [name for setpoint, _ in left for name in self._services.dispatcher.takers(setpoint, serial)]
            runner = next((self._services.runners[name] for name in takers if name in self._services.runners), None)
            if runner is None:
                continue
            shown[serial] = runner.name
            runner.find(
                FindingCode.LEFT_AS_TOLD,
                serial,
                "; ".join(_said(serial, setpoint, settings[setpoint].value, who) for setpoint, who in left),
                "\n".join(f"sems-gateway send CONFIG {serial} {setpoint} {_word(setpoint)}" for setpoint, _ in left),
            )
        for serial, name in self._shown.items():
            if shown.get(serial) != name and name in self._services.runners:
                self._services.runners[name].settle(FindingCode.LEFT_AS_TOLD, serial)
        self._shown = shown
        return len(shown)

    async def _look_up(self) -> None:
        """Ask the journal who set what was set before the start."""
        unknown = [
            setting
            for _, settings in self._memory
            for setpoint, setting in settings.items()
            if setting.origin is None and setting.since is not None and setting.value not in (_free(setpoint), NONE)
        ]
        for n in range(0, len(unknown), A_TURN):
            some = unknown[n : n + A_TURN]
            events = await self._journal.last_events([each.command for each in some])
            for setting, event in zip(some, events, strict=True):
                if setting.origin is None and not isinstance(event, Exception):
                    setting.origin = _asked(setting, event)

    def _left(self, state: DeviceState, settings: Mapping[str, Setting]) -> Iterator[tuple[str, str]]:
        """Yield the setpoints of a device that nobody steers any more who set them, and who that was."""
        for setpoint, setting in list(settings.items()):
            free = _free(setpoint)
            if free is None or setting.since is None or setting.value == free:
                continue
            shown = state.values.get(setpoint)
            if shown is not None and not SETPOINTS[setpoint].same(shown, setting.value):
                continue  # it stands otherwise by now
            origin = _of_group(setpoint, settings) or Origin("")
            steerer = f"{origin.bridge}:{origin.role}"
            if (
                origin.bridge in STEERERS
                and steerer != state.device.serial
                and not self._steers(steerer, setpoint, state)
            ):
                yield setpoint, steerer

    def _steers(self, name: str, setpoint: str, state: DeviceState) -> bool:
        runner, plant = self._services.runners.get(name), state.device.plant
        if runner is None or not isinstance(runner.bridge, Steering):
            return False
        is_young = self._services.clock.monotonic() < self._began + PLANTS_WITHIN
        if is_young and plant and self._services.router.state(plant) is None:
            return True  # as far as can be known
        return runner.bridge.steers(state.device.serial, setpoint)


def _free(setpoint: str) -> Value:
    """Return what lets a device go; None for a setpoint that means something with another alone."""
    return _FREE.get(setpoint, SETPOINTS[setpoint].neutral)


def _asked(setting: Setting, event: CommandEvent | None) -> Origin:
    """Return who asked for what is set; nobody where the newest command is another's, or the journal has none."""
    is_it = event is not None and event.state is CommandState.SUCCEEDED and event.command.value == setting.value
    return event.command.origin if event is not None and is_it else Origin("")


def _of_group(setpoint: str, settings: Mapping[str, Setting]) -> Origin | None:
    """Return who set a setpoint; of an order that the gateway has renewed, who set another part of it."""
    origin, group = settings[setpoint].origin, SETPOINTS[setpoint].group
    if origin != GATEWAY or not group:
        return origin
    others = (each.origin for name, each in settings.items() if SETPOINTS[name].group == group)
    return next((each for each in others if each and each != GATEWAY), None)


def _said(serial: str, setpoint: str, value: Value, who: str) -> str:
    (stands,) = in_words(setpoint, value)
    return f"{serial} still stands at {setpoint} {stands} as {who} told it, which does not steer it any more"


def _word(setpoint: str) -> str:
    free = _free(setpoint)
    return str(free).lower() if isinstance(free, bool) else f"{free:g}" if isinstance(free, float) else str(free)
