"""Which devices the bridge commands, and what it adds to what others know of them.

A whitelist says numbers and nothing else. What a device is, other bridges find out; to their description this one adds
the setpoints that only it can set. Of numbers nobody else knows it makes devices by itself, where it is told what they
are. Its ranges count only where no other bridge has one.
"""

import asyncio
from collections.abc import Iterable
from typing import Final

from gateway.api.bridge import Context
from gateway.bridges.batch.interfaces import Interfaces, Route
from gateway.bridges.batch.settings import BatchSettings
from gateway.core.model import Device, DeviceKind, Range

LOOK: Final = 5.0
"""Seconds between looks at what the others know."""
GRACE: Final = 30.0
"""Seconds that the others have to find devices; sooner where all of them are up."""


class Devices:
    """The devices of the whitelist."""

    def __init__(self, settings: BatchSettings, interfaces: Interfaces, context: Context) -> None:
        self._whitelist = settings.whitelist
        # A lookup in a pydantic model takes as long as a check of the policy, and each command asks several times.
        self._everything, self._numbers = settings.whitelist.everything, frozenset(settings.whitelist.numbers)
        self._kind = DeviceKind(settings.announce) if settings.announce else None
        self._interfaces = interfaces
        self._context = context
        self._seen: dict[str, Device] = {}
        """Serial → its description after we added ours."""

    def route(self, serial: str, setpoint: str) -> Route | None:
        """Return the interface that sets a setpoint of a device; None where it may not be addressed."""
        route = self._interfaces.by_setpoint.get(setpoint)
        state = self._context.state(serial)
        if route is None or state is None or not (self._everything or serial in self._numbers):
            return None
        return route if state.device.kind in route.interface.of else None

    async def run(self) -> None:
        """Look again and again."""
        clock = self._context.clock
        began = clock.monotonic()
        while True:
            others_are_done = all(b.up for b in self._context.bridges() if b.name != self._context.name)
            self.look(may_invent=others_are_done or clock.monotonic() - began >= GRACE)
            await asyncio.sleep(LOOK)

    def look(self, *, may_invent: bool) -> None:
        """Add what we know to what others know by now."""
        for serial in list(self._listed()):
            state = self._context.state(serial)
            if state is not None and state.device == self._seen.get(serial):
                continue
            # Said again last, it stands behind what the others say.
            self._context.withdraw(serial)
            state = self._context.state(serial)
            ours = self._addition(state.device) if state else self._invention(serial) if may_invent else None
            if ours is not None:
                self._context.announce(ours, named=not self._whitelist.everything)
                state = self._context.state(serial)
            if state is not None:
                self._seen[serial] = state.device

    def _listed(self) -> Iterable[str]:
        if self._whitelist.everything:
            return (state.device.serial for state in self._context.announced())
        return self._whitelist.numbers

    def _addition(self, known: Device) -> Device | None:
        """Return what the API can set of a device, and the others can't."""
        more = {s: r for s, r in self._ranges(known.kind, known.rated_power).items() if s not in known.setpoints}
        return Device(serial=known.serial, kind=known.kind, setpoints=more) if more else None

    def _invention(self, serial: str) -> Device | None:
        if self._kind is None:
            return None
        return Device(serial=serial, kind=self._kind, setpoints=self._ranges(self._kind, None))

    def _ranges(self, kind: DeviceKind, rated_power: float | None) -> dict[str, Range]:
        """Return the setpoints of a kind of device. A range is the point table's own, where nothing says more."""
        return {
            setpoint: Range(0, rated_power) if setpoint == "battery_power_target" else Range()
            for setpoint, route in self._interfaces.by_setpoint.items()
            if kind in route.interface.of
        }
