"""One setpoint for many devices: what it would take, then a command each, and their steps as they come."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Final

import msgspec

from gateway.bridges.local.protocol import (
    MAX_LINE,
    Answer,
    Cancel,
    FleetCancelled,
    FleetPlan,
    Go,
    Reply,
    SendFleet,
    Step,
)
from gateway.core.bridge import Context
from gateway.core.clock import set_within
from gateway.core.model import Command, CommandEvent, DeviceState, new_command_id
from gateway.core.points import SETPOINTS
from gateway.core.policy.origins import origin

AT_ONCE: Final = 200
"""Commands that are submitted together: the journal writes them in one go."""
TTL_MARGIN: Final = 1.5
TTL_MOST: Final = 86_400.0
"""Seconds."""

Follow = Callable[[list[str], Callable[[CommandEvent], None]], None]
"""Has the steps of these commands told."""


class FleetCommand:
    """A request for many, from its plan to the last step."""

    def __init__(self, context: Context, request: SendFleet, ttl: float) -> None:
        self._context = context
        self._request = request
        self._least = ttl
        self._origin = origin(context.name, detail=request.user)
        self._stopped = asyncio.Event()
        self.steps: asyncio.Queue[CommandEvent | None] = asyncio.Queue()
        """What became of its commands; None once all are submitted."""
        self.ids: list[str] = []
        self.cancelling = asyncio.Lock()
        """Held while it is, until that is answered."""

    def plan(self) -> FleetPlan:
        """Return what it would take."""
        request = self._request
        matching = [state for state in self._context.states() if _matches(request, state)]
        able = [state.device.serial for state in matching if request.setpoint in state.device.setpoints]
        efforts = self._context.effort(request.setpoint, able)
        seconds = max((effort.seconds for effort in efforts.values() if effort is not None), default=0.0)
        ttl = request.ttl or min(TTL_MOST, max(self._least, TTL_MARGIN * (seconds + request.spread) + self._least))
        return FleetPlan(
            serials=able,
            without=len(matching) - len(able),
            efforts={name: effort for name, effort in efforts.items() if effort is not None},
            seconds=max(seconds, request.spread),
            ttl=ttl,
            known=request.setpoint in SETPOINTS,
        )

    async def carry_out(self, plan: FleetPlan, follow: Follow) -> None:
        """Submit a command for each device, spread over time, until all are or it is cancelled."""
        try:
            await self._submit_all(plan, follow)
        finally:
            self.steps.put_nowait(None)

    async def _submit_all(self, plan: FleetPlan, follow: Follow) -> None:
        began, count = self._context.clock.monotonic(), len(plan.serials)
        for first in range(0, count, AT_ONCE):
            due = began + self._request.spread * first / count
            await set_within(self._stopped, due - self._context.clock.monotonic())
            if self._stopped.is_set():
                return
            commands = [self._command(serial, plan.ttl) for serial in plan.serials[first : first + AT_ONCE]]
            ids = [command.id for command in commands]
            self.ids += ids
            follow(ids, self.steps.put_nowait)
            # Each for itself: what one device refuses is no reason for another.
            await asyncio.gather(*(self._submit(command) for command in commands))

    async def cancel(self) -> int:
        """Submit no more, and end what has not left. Returns how many that were."""
        self._stopped.set()
        return await self._context.cancel(*self.ids, by=self._origin)

    async def _submit(self, command: Command) -> None:
        (event,) = await self._context.submit(command)
        if event.state.final:
            # Refused; its sink may have heard of it already, and who counts ends counts each once.
            self.steps.put_nowait(event)

    def _command(self, serial: str, ttl: float) -> Command:
        now = self._context.clock.now()
        return Command(
            id=new_command_id(),
            serial=serial,
            setpoint=self._request.setpoint,
            value=self._request.value,
            origin=self._origin,
            created=now,
            expires=now + timedelta(seconds=ttl),
            revert_after=self._request.revert_after,
            revert_value=self._request.revert_value,
        )


async def serve_fleet(
    fleet: FleetCommand, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, follow: Follow
) -> None:
    """Show the plan, and do what is said then. Ends when every command has, or the other side is gone."""
    plan = fleet.plan()
    await _say(writer, plan)
    if not isinstance(await _hear(reader), Go):
        return
    async with asyncio.TaskGroup() as group:
        group.create_task(fleet.carry_out(plan, follow), name="fleet")
        listening = group.create_task(_listen(fleet, reader, writer), name="fleet's other side")
        ended: set[str] = set()
        submitted = False
        while not submitted or len(ended) < len(fleet.ids):
            event = await fleet.steps.get()
            if event is None:
                submitted = True
            elif event.command.id not in ended:
                if event.state.final:
                    ended.add(event.command.id)
                await _say(writer, Step(event))
        async with fleet.cancelling:
            listening.cancel()


async def _listen(fleet: FleetCommand, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while isinstance(await _hear(reader), Cancel):
        async with fleet.cancelling:
            await _say(writer, FleetCancelled(await fleet.cancel()))


async def _hear(reader: asyncio.StreamReader) -> Answer | None:
    line = await reader.readline()
    if not line or len(line) > MAX_LINE:
        return None
    try:
        answer: Answer = msgspec.json.decode(line, type=Answer)
        return answer
    except msgspec.MsgspecError:
        return None


async def _say(writer: asyncio.StreamWriter, reply: Reply) -> None:
    writer.write(msgspec.json.encode(reply) + b"\n")
    await writer.drain()


def _matches(request: SendFleet, state: DeviceState) -> bool:
    device = state.device
    return (
        request.plant in ("", device.plant)
        and request.kind in ("", device.kind)
        and any(fnmatchcase(device.serial, pattern) for pattern in request.devices)
    )
