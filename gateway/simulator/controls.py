"""Commands on their way: accepted at once, obeyed by the device some time later, asked about in between."""

import heapq
import uuid
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping
from datetime import date, datetime
from enum import StrEnum
from itertools import count
from typing import Final, NamedTuple

import msgspec

from gateway.core.clock import Clock
from gateway.core.model import Value
from gateway.core.points import AUTO
from gateway.sems.catalogue import Use
from gateway.simulator import owner
from gateway.simulator.noise import derive, unit
from gateway.simulator.owner import Owners, OwnersChange
from gateway.simulator.shares import Delays, Late
from gateway.simulator.world import World


class Obedience(StrEnum):
    """What a device makes of a command."""

    OBEYS = "obeys"
    REFUSES = "refuses"
    """The result says failed, and it was not done."""
    LIES = "lies"
    """The result says succeeded, and it was not done."""
    SILENT = "silent"
    """It is never done, and there is never a result."""


class TaskState(StrEnum):
    """What the result of a task says."""

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class Window(NamedTuple):
    """When an order for a battery holds, POSIX seconds."""

    begins: int
    ends: int


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a device is to do."""

    serial: str
    api: str
    """Of the call it came by."""
    use: Use = Use.CONTROL
    """Or `dispatch`, or `parameters_task`."""
    setpoints: Mapping[str, Value] = {}
    window: Window | None = None
    needs_dispatch: bool = False
    """The energy management system has to be handed over first, where the cloud is strict about it."""


class Task(msgspec.Struct, kw_only=True):
    """An order that was accepted."""

    receipt: str
    order: Order
    asked: datetime
    """Wall clock, UTC: when the call came."""
    due: float
    """By the monotonic clock."""
    told: float
    """When a result may be sent by itself, by the monotonic clock; one that is asked for is there when it is done."""
    effect: float
    """By the physics clock."""
    state: TaskState = TaskState.PENDING
    detail: str = "sent to the device"
    found: Mapping[str, Value] = {}
    """What a device said that was asked for its setpoints."""


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """A command that a device carried out."""

    time: datetime
    """Wall clock, UTC: when the simulator came to it, which may be later than the device's delay."""
    asked: datetime
    """Wall clock, UTC: when the call with it came."""
    serial: str
    setpoints: Mapping[str, Value]
    receipt: str
    api: str
    """Name of the catalogue; `owner` for what an owner did in the app."""


class Writes(msgspec.Struct, kw_only=True):
    """How often a setpoint was written into a device's memory by the cloud's clients."""

    total: int = 0
    today: int = 0
    day: date | None = None
    """The plant's, by the physics clock, that `today` is of."""


class _Event(NamedTuple):
    """Something that a device has to do later on."""

    time: float
    """POSIX seconds, by the wall clock."""
    setpoints: Mapping[str, Value]


RELEASED: Final[Mapping[str, Value]] = {
    "battery_mode": AUTO,
    "battery_power_target": None,
    "battery_target_soc": None,
}
"""How a battery is left when its window is over, or when it is handed back."""

ENDS_ORDERS: Final = frozenset({*RELEASED, "work_mode"})
"""Setpoints after which an earlier order for the battery holds no more, nor what its window had planned."""


class Tasks:
    """The orders of all devices, whichever API they came by. They come due when somebody looks, in their order."""

    def __init__(
        self, world: World, clock: Clock, delay: float, remembered: int, *, require_dispatch: bool = False
    ) -> None:
        self.delay: float | Delays = delay
        """Seconds until a device obeys."""
        self.late: dict[str, Late] = {}
        """Serial number → how late it is; devices not listed are not."""
        self.owners = Owners(world)
        self.writes: dict[str, dict[str, Writes]] = {}
        """Serial number → setpoint → how often it was written. What a device refused was not."""
        self.obedience: dict[str, Obedience] = {}
        """Serial number → what it makes of commands; devices not listed obey."""
        self.dispatched: set[str] = set()
        """Serial numbers of the devices whose energy management was handed over, and of the data loggers by which."""
        self._world = world
        self._clock = clock
        self._remembered = remembered
        self._require_dispatch = require_dispatch
        self._tasks: OrderedDict[str, list[Task]] = OrderedDict()
        """Receipt → what was ordered by one call."""
        self._pending: list[tuple[float, int, Task]] = []
        """A heap: when it is due, in which order it came, and what."""
        self._numbers = count()
        self._orders = Counter[str]()
        """Serial number → how many orders it had."""
        self._last_due: dict[str, float] = {}
        """Serial number → when its last order is due: none overtakes another."""
        self._agenda: dict[str, list[_Event]] = {}
        """Serial number → what it will do by itself."""
        self._controls: deque[Control] = deque(maxlen=remembered)

    def draw(self, serial: str) -> tuple[float, float]:
        """Return seconds until a device obeys its next order, and until its result is sent."""
        late, part = self.late.get(serial), unit(derive(self._world.seed, serial, "delay"), self._orders[serial])
        delay = self.delay.at(part) if isinstance(self.delay, Delays) else self.delay
        if late is None:
            return delay, delay
        shortest, longest = late.seconds
        seconds = shortest + (longest - shortest) * part
        return (delay, max(seconds, delay)) if late.result_only else (seconds, seconds)

    def accept(self, order: Order, receipt: str = "", refused: str = "") -> Task:
        """Take an order, as one of those of a receipt if there is one; or, with `refused`, keep only why it failed."""
        serial, now = order.serial, self._clock.monotonic()
        delay, told = self.draw(serial)
        due = max(now + delay, self._last_due.get(serial, now))
        task = Task(
            receipt=receipt or uuid.uuid4().hex,
            order=order,
            asked=self._clock.now(),
            due=due,
            told=max(due, now + told),
            effect=self._world.physics.now() + (due - now) * self._world.physics.speed,
        )
        self._tasks.setdefault(task.receipt, []).append(task)
        if len(self._tasks) > self._remembered:
            self._tasks.popitem(last=False)
        if refused:
            task.state, task.detail = TaskState.FAILED, refused
        else:
            self._orders[serial] += 1
            self._last_due[serial] = due
            heapq.heappush(self._pending, (due, next(self._numbers), task))
        self.settle()
        return task

    def find(self, receipt: str) -> list[Task]:
        """Return what was ordered by one call, as it stands now, in that order; nothing where it is not known."""
        self.settle()
        return self._tasks.get(receipt, [])

    @property
    def controls(self) -> list[Control]:
        """What devices have carried out, oldest first."""
        self.settle()
        return list(self._controls)

    def settle(self) -> None:
        """Have the devices do what is due. To be called before anybody looks at them."""
        for change in self.owners.until(self._world.physics.now()):
            self._overrule(change)
        now = self._clock.monotonic()
        while self._pending and self._pending[0][0] <= now:
            self._finish(heapq.heappop(self._pending)[2])
        if self._agenda:
            self._follow_agenda()

    def _overrule(self, change: OwnersChange) -> None:
        if not ENDS_ORDERS.isdisjoint(change.setpoints):
            self._agenda.pop(change.serial, None)
        self._world.command(change.serial, change.setpoints, change.time)
        done = self._world.physics.wall(change.time)
        self._controls.append(
            Control(time=done, asked=done, serial=change.serial, setpoints=change.setpoints, receipt="", api=owner.API)
        )

    def _finish(self, task: Task) -> None:
        order = task.order
        obedience = self.obedience.get(order.serial, Obedience.OBEYS)
        if self._world.offline(order.serial):
            task.state, task.detail = TaskState.FAILED, "the device is offline"
        elif obedience is Obedience.REFUSES:
            task.state, task.detail = TaskState.FAILED, "the device did not obey"
        elif obedience is Obedience.SILENT:
            pass
        elif self._require_dispatch and order.needs_dispatch and order.serial not in self.dispatched:
            task.state, task.detail = TaskState.FAILED, "the device is not in third-party dispatch mode"
        elif order.window is not None and order.window.ends <= self._clock.now().timestamp():
            task.state, task.detail = TaskState.FAILED, "the end of the command has passed"
        else:
            task.state, task.detail = TaskState.SUCCEEDED, "done"
            if order.use is Use.PARAMETERS_TASK:
                task.found = self._world.setpoints(order.serial).said()
            elif obedience is Obedience.OBEYS:
                self._obey(task)

    def _obey(self, task: Task) -> None:
        order = task.order
        if order.use is Use.DISPATCH:
            home = self._world.home(order.serial)
            self.dispatched |= {order.serial, *(device.serial for device in (home.devices if home else ()))}
            return
        if not ENDS_ORDERS.isdisjoint(order.setpoints):
            self._agenda.pop(order.serial, None)  # The newest order counts.
        if order.window is None or order.window.begins <= self._clock.now().timestamp():
            self._world.command(order.serial, order.setpoints, task.effect)
        if order.window is not None and order.setpoints != RELEASED:
            self._plan(order, order.window)
        self._count(order, task.effect)
        self._controls.append(
            Control(
                time=self._clock.now(),
                asked=task.asked,
                serial=order.serial,
                setpoints=order.setpoints,
                receipt=task.receipt,
                api=order.api,
            )
        )

    def _count(self, order: Order, effect: float) -> None:
        home = self._world.home(order.serial)
        day = datetime.fromtimestamp(effect, home.zone if home else None).date()
        counters = self.writes.setdefault(order.serial, {})
        for setpoint in order.setpoints:
            writes = counters.setdefault(setpoint, Writes())
            writes.today = writes.today + 1 if writes.day == day else 1
            writes.total, writes.day = writes.total + 1, day

    def _plan(self, order: Order, window: Window) -> None:
        beginning = _Event(window.begins, order.setpoints)
        end = _Event(window.ends, RELEASED)
        later = window.begins > self._clock.now().timestamp()
        self._agenda[order.serial] = [beginning, end] if later else [end]

    def _follow_agenda(self) -> None:
        now = self._clock.now().timestamp()
        for serial, events in list(self._agenda.items()):
            while events and events[0].time <= now:
                event = events.pop(0)
                effect = self._world.physics.now() - (now - event.time) * self._world.physics.speed
                self._world.command(serial, event.setpoints, effect)
            if not events:
                del self._agenda[serial]
