"""One setpoint for many devices: what it would take, then a command each, and their steps as they come."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Final, TypeVar

import msgspec

from gateway.api.bridge import Context
from gateway.bridges.local.protocol import (
    MAX_LINE,
    Answer,
    Cancel,
    FleetCancelled,
    FleetPlan,
    Go,
    Outage,
    Reply,
    SendFleet,
    Step,
)
from gateway.core.bad_json import BAD_JSON
from gateway.core.clock import set_within
from gateway.core.model import Command, CommandEvent, CommandState, DeviceState, Origin, new_command_id, plain
from gateway.core.places import MANY
from gateway.core.points import SETPOINTS

T = TypeVar("T")

TTL_MARGIN: Final = 1.5
MAX_TTL_SECONDS: Final = 86_400.0
"""Seconds."""

Follow = Callable[[list[str], Callable[[CommandEvent], None]], None]
"""Has the steps of these commands reported."""


class FleetCommand:
    """A request for many, from its plan to the last step."""

    def __init__(self, context: Context, request: SendFleet, ttl: float) -> None:
        self._context = context
        self._request = request
        self._least = ttl
        self._origin = Origin.of(context.name, detail=request.user)
        self._stopped = asyncio.Event()
        self.steps: asyncio.Queue[CommandEvent | None] = asyncio.Queue()
        """What became of its commands; None once all are submitted."""
        self.ids: list[str] = []
        self._states: dict[str, CommandState] = {}
        """Where each of its commands stands."""
        self._open: set[str] = set()
        """Ids of those that have not ended."""
        self._submitting = asyncio.Lock()
        """Held while some of its commands are."""
        self._submitted = False
        self._told = False
        self.watched = True
        """Whether somebody takes what is in `steps`."""
        self.cancelling = asyncio.Lock()
        """Held while it is, until that is answered."""

    def plan(self) -> FleetPlan:
        """Return what it would take."""
        request, context, setpoint = self._request, self._context, self._request.setpoint
        matching = [state for state in context.announced() if _matches(request, state)]
        able = [state.device.serial for state in matching if setpoint in state.device.setpoints]
        call_estimates = context.call_estimate(setpoint, able)
        seconds = max(
            (call_estimate.seconds for call_estimate in call_estimates.values() if call_estimate is not None),
            default=0.0,
        )
        ttl = request.ttl or min(
            MAX_TTL_SECONDS, max(self._least, TTL_MARGIN * (seconds + request.spread) + self._least)
        )
        return FleetPlan(
            serials=able,
            without=len(matching) - len(able),
            call_estimates={
                name: call_estimate for name, call_estimate in call_estimates.items() if call_estimate is not None
            },
            seconds=max(seconds, request.spread),
            ttl=ttl,
            known=setpoint in SETPOINTS,
            reached=dict(Counter(takers[0] for serial in able if (takers := context.takers(setpoint, serial)))),
            outage=outage_of(context, setpoint, able),
        )

    async def carry_out(self, plan: FleetPlan, follow: Follow) -> None:
        """Submit a command for each device, spread over time, until all are or it is cancelled."""
        try:
            await self._submit_all(plan, follow)
        finally:
            self.steps.put_nowait(None)
            self._submitted = True
            counts = Counter(self._states.values())
            self._log(
                "fleet command accepted",
                devices=len(plan.serials),
                by=plan.reached,
                down=plan.outage.down,
                rejected=counts[CommandState.REJECTED],
                accepted=counts.total() - counts[CommandState.REJECTED],
            )
            self._look_for_end()

    async def _submit_all(self, plan: FleetPlan, follow: Follow) -> None:
        began, count = self._context.clock.monotonic(), len(plan.serials)
        for first in range(0, count, MANY):
            due = began + self._request.spread * first / count
            await set_within(self._stopped, due - self._context.clock.monotonic())
            if self._stopped.is_set():
                return
            commands = [self._command(serial, plan.ttl) for serial in plan.serials[first : first + MANY]]
            ids = [command.id for command in commands]
            self.ids += ids
            follow(ids, self._heard)
            async with self._submitting:
                # Each for itself: what one device refuses is no reason for another.
                await asyncio.gather(*(self._submit(command) for command in commands))

    async def cancel(self) -> int:
        """Submit no more, and end what has not left. Returns how many that were."""
        self._stopped.set()
        async with self._submitting:  # what is not accepted yet could not be found, and would leave
            pass
        return await self._context.cancel(*self.ids, by=self._origin)

    async def _submit(self, command: Command) -> None:
        (event,) = await self._context.submit(command)
        if event.state.final:
            # Refused; its sink may have received it already, and who counts ends counts each once.
            self._heard(event)
        else:
            self._note(event.command.id, self._states.get(event.command.id, event.state))

    def _heard(self, event: CommandEvent) -> None:
        """Take in a step, also when nobody at the command line waits for it any more."""
        if self.watched:
            self.steps.put_nowait(event)
        if not event.correction:
            self._note(event.command.id, event.state)
            self._look_for_end()

    def _note(self, id_: str, state: CommandState) -> None:
        self._states[id_] = state
        if state.final:
            self._open.discard(id_)
        else:
            self._open.add(id_)

    def _look_for_end(self) -> None:
        if self._submitted and not self._told and not self._open:
            self._told = True
            counts = Counter(self._states.values())
            self._log("fleet command ended", **{state.value: counts[state] for state in CommandState if counts[state]})

    def _log(self, event: str, **figures: object) -> None:
        request = self._request
        self._context.log.info(event, setpoint=request.setpoint, value=request.value, origin=self._origin, **figures)

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
            bulk=True,
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
            said: list[Reply] = []
            for event in await _all_of(fleet.steps):
                if event is None:
                    submitted = True
                elif event.command.id not in ended:
                    if event.state.final:
                        ended.add(event.command.id)
                    said.append(Step(event))
            await _say(writer, *said)
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
    except BAD_JSON:
        return None


async def _all_of(queue: asyncio.Queue[T]) -> list[T]:
    """Wait for something in a queue, and return all that is there."""
    found = [await queue.get()]
    while not queue.empty():
        found.append(queue.get_nowait())
    return found


async def _say(writer: asyncio.StreamWriter, *replies: Reply) -> None:
    writer.write(b"".join(msgspec.json.encode(reply, enc_hook=plain) + b"\n" for reply in replies))
    await writer.drain()


def outage_of(context: Context, setpoint: str, serials: Iterable[str]) -> Outage:
    """Return which of the bridges that would set this are down."""
    status = {status.name: status for status in context.bridges()}
    down: dict[str, str] = {}
    stranded = 0
    for serial in serials:
        takers = context.takers(setpoint, serial)
        out = [name for name in takers if name in status and not status[name].up]
        down.update((name, status[name].detail or "it has not begun yet") for name in out)
        stranded += bool(takers) and len(out) == len(takers)
    return Outage(down, stranded)


def _matches(request: SendFleet, state: DeviceState) -> bool:
    device = state.device
    return (
        request.plant in ("", device.plant)
        and request.kind in ("", device.kind)
        and any(fnmatchcase(device.serial, pattern) for pattern in request.devices)
    )
