"""Joins commands of one kind that come at the same time into one call, where the interface takes several."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import msgspec
import structlog

from gateway.core.clock import Clock, set_within
from gateway.core.errors import NotSentError, RefusedError
from gateway.sems.budget import Priority
from gateway.sems.catalogue import Interface, Json

WINDOW: Final = 0.03
"""Seconds that one waits for others, where there are others."""

Args = Mapping[str, object]
Call = Callable[[Interface, Sequence[Args], str, Priority, float, Sequence[str]], Awaitable[Json]]
"""Makes one call for several: interface, arguments of each, setpoint, priority, seconds it may take, their commands."""
_Kind = tuple[str, Priority, str, bytes]


class _Item(msgspec.Struct, eq=False):
    id: str
    """Of the command."""
    args: Args
    serial: str
    deadline: float
    """Monotonic seconds."""
    answer: asyncio.Future[Json]


class _Bundle:
    """What leaves by one call."""

    def __init__(self) -> None:
        self.items: list[_Item] = []
        self.full = asyncio.Event()
        self.task: asyncio.Task[None] | None = None


class Batcher:
    """Has commands wait for each other, very shortly; one that is alone leaves at once."""

    def __init__(self, call: Call, clock: Clock, log: structlog.stdlib.BoundLogger) -> None:
        self._call = call
        self._clock = clock
        self._log = log
        self._open: dict[_Kind, _Bundle] = {}
        self._left: dict[_Kind, float] = {}
        """Kind → when a call of it left last."""
        self._alone: set[str] = set()
        """Interfaces of which SEMS has refused a call for several, and taken the same one by one."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def send(
        self, id_: str, interface: Interface, args: Args, setpoint: str, priority: Priority, timeout: float
    ) -> Json:
        """Make the call, or have a part in one; return `data` of its answer. Raises as `Session.call` does."""
        if interface.batch <= 1 or interface.name in self._alone:
            return await self._call(interface, [args], setpoint, priority, timeout, [id_])
        item = _Item(
            id_,
            args,
            str(args["serial"]),
            self._clock.monotonic() + timeout,
            asyncio.get_running_loop().create_future(),
        )
        kind = _kind(interface, args, setpoint, priority)
        bundle = self._join(kind, interface, item, setpoint, priority)
        try:
            return await item.answer
        except asyncio.CancelledError:
            # One who gives up is not taken along; with the last one, the call is given up.
            if bundle.task is not None and all(other.answer.done() for other in bundle.items):
                self._close(kind, bundle)  # who came before it has ended would wait for a call that is not made
                bundle.task.cancel()
            raise

    def _join(self, kind: _Kind, interface: Interface, item: _Item, setpoint: str, priority: Priority) -> _Bundle:
        bundle = self._open.get(kind)
        if bundle is not None and any(other.serial == item.serial for other in bundle.items):
            # Which result was whose would be unknown.
            self._close(kind, bundle)
            bundle = None
        if bundle is None:
            bundle = self._open[kind] = _Bundle()
            bundle.task = asyncio.create_task(
                self._run(kind, bundle, interface, setpoint, priority), name=f"gathers {interface.name}"
            )
            self._tasks.add(bundle.task)
            bundle.task.add_done_callback(self._tasks.discard)
        bundle.items.append(item)
        if len(bundle.items) >= interface.batch:
            self._close(kind, bundle)
        return bundle

    def _close(self, kind: _Kind, bundle: _Bundle) -> None:
        if self._open.get(kind) is bundle:
            del self._open[kind]
        bundle.full.set()

    async def _run(self, kind: _Kind, bundle: _Bundle, interface: Interface, setpoint: str, priority: Priority) -> None:
        try:
            # Whoever comes in the same turn of the loop is here after this.
            await asyncio.sleep(0)
            since = self._clock.monotonic() - self._left.get(kind, float("-inf"))
            if len(bundle.items) > 1 or since < WINDOW:
                await set_within(bundle.full, WINDOW)
        finally:
            self._close(kind, bundle)
        self._left[kind] = self._clock.monotonic()
        await self._leave(bundle.items, interface, setpoint, priority)

    async def _leave(self, items: list[_Item], interface: Interface, setpoint: str, priority: Priority) -> None:
        """Make the call for those who still want it; none of them fails for another's sake."""
        now = self._clock.monotonic()
        for item in [item for item in items if item.deadline <= now]:
            _fail(item, NotSentError("it expired while it waited for others"))
        wanted = [item for item in items if not item.answer.done()]
        if not wanted:
            return
        timeout = min(item.deadline for item in wanted) - now
        try:
            ids = [item.id for item in wanted]
            data = await self._call(interface, [item.args for item in wanted], setpoint, priority, timeout, ids)
        except RefusedError as error:
            if len(wanted) == 1:
                _fail(wanted[0], error)
            else:
                await self._one_by_one(wanted, interface, setpoint, priority)
        except Exception as error:  # noqa: BLE001 - whose command it is gets it
            for item in wanted:
                _fail(item, error)
        else:
            for item in wanted:
                if not item.answer.done():
                    item.answer.set_result(data)

    async def _one_by_one(self, items: list[_Item], interface: Interface, setpoint: str, priority: Priority) -> None:
        """Send alone what was refused together: one may have been the reason, or that it was several."""
        self._log.warning("SEMS refuses a call for several devices; they are sent one by one", interface=interface.name)
        await asyncio.gather(*(self._leave([item], interface, setpoint, priority) for item in items))
        if all(item.answer.done() and not item.answer.cancelled() and not item.answer.exception() for item in items):
            self._alone.add(interface.name)
            self._log.warning(
                "SEMS takes them one by one; nothing is sent together any more until the next start. To have it so "
                "from the start, set batch: 1 for the interface in overrides",
                interface=interface.name,
            )


def _kind(interface: Interface, args: Args, setpoint: str, priority: Priority) -> _Kind:
    """Return what calls have in common that can be one: all but what stands in their lists."""
    fields = interface.parameters(args, setpoint)
    shell = {name: value for name, value in fields.items() if not isinstance(value, list)}
    # Of an interface that leaves out the fields of other setpoints, a device may have two commands at a time.
    told_apart = setpoint if any(row.only for row in interface.request) else ""
    return interface.name, priority, told_apart, msgspec.json.encode(shell, order="sorted")


def _fail(item: _Item, error: Exception) -> None:
    if not item.answer.done():
        item.answer.set_exception(error)
