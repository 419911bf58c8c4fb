"""Commands on their way: accepted at once, obeyed by the device some time later, asked about in between."""

import uuid
from collections import OrderedDict, deque
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

import msgspec

from gateway.core.clock import Clock
from gateway.core.model import Value
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
    """What GetControlResult says."""

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class Task(msgspec.Struct, kw_only=True):
    """A command that was accepted."""

    receipt: str
    serial: str
    setpoints: Mapping[str, Value]
    due: float
    """By the monotonic clock."""
    effect: float
    """By the physics clock."""
    state: TaskState = TaskState.PENDING
    detail: str = "sent to the device"


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """A command that a device carried out."""

    time: datetime
    """Wall clock, UTC: when the simulator came to it, which may be later than the device's delay."""
    serial: str
    setpoints: Mapping[str, Value]
    receipt: str


class Tasks:
    """The commands of all devices. They come due when somebody looks, in the order they were given."""

    def __init__(self, world: World, clock: Clock, delay: float, remembered: int) -> None:
        self.delay = delay
        """Seconds until a device obeys."""
        self.obedience: dict[str, Obedience] = {}
        """Serial number → what it makes of commands; devices not listed obey."""
        self._world = world
        self._clock = clock
        self._remembered = remembered
        self._tasks: OrderedDict[str, Task] = OrderedDict()
        self._pending: list[Task] = []
        self._controls: deque[Control] = deque(maxlen=remembered)

    def accept(self, serial: str, setpoints: Mapping[str, Value]) -> Task:
        """Take a command."""
        task = Task(
            receipt=uuid.uuid4().hex,
            serial=serial,
            setpoints=setpoints,
            due=self._clock.monotonic() + self.delay,
            effect=self._world.physics.now() + self.delay * self._world.physics.speed,
        )
        self._tasks[task.receipt] = task
        if len(self._tasks) > self._remembered:
            self._tasks.popitem(last=False)
        self._pending.append(task)
        self.settle()
        return task

    def find(self, receipt: str) -> Task | None:
        """Return a task as it stands now."""
        self.settle()
        return self._tasks.get(receipt)

    @property
    def controls(self) -> list[Control]:
        """What devices have carried out, oldest first."""
        self.settle()
        return list(self._controls)

    def settle(self) -> None:
        """Have the devices do what is due. To be called before anybody looks at them."""
        now = self._clock.monotonic()
        due = [task for task in self._pending if task.due <= now]
        if not due:
            return
        self._pending = [task for task in self._pending if task.due > now]
        for task in sorted(due, key=lambda task: task.due):
            self._finish(task)

    def _finish(self, task: Task) -> None:
        obedience = self.obedience.get(task.serial, Obedience.OBEYS)
        if self._world.offline(task.serial):
            task.state, task.detail = TaskState.FAILED, "the device is offline"
        elif obedience is Obedience.REFUSES:
            task.state, task.detail = TaskState.FAILED, "the device did not obey"
        elif obedience is not Obedience.SILENT:
            task.state, task.detail = TaskState.SUCCEEDED, "done"
            if obedience is Obedience.OBEYS:
                self._obey(task)

    def _obey(self, task: Task) -> None:
        self._world.command(task.serial, task.setpoints, task.effect)
        self._controls.append(
            Control(time=self._clock.now(), serial=task.serial, setpoints=task.setpoints, receipt=task.receipt)
        )
