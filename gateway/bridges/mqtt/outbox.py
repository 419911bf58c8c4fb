"""What waits to be published. Bounded: one state per device, and a backlog of results and alarms."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Final

from gateway.bridges.mqtt.message import Message
from gateway.core.bridge import Updates
from gateway.core.model import DeviceState

RESULT_BACKLOG: Final = 10_000


class Outbox:
    """Filled by whoever has something to say, emptied by the publisher."""

    def __init__(self) -> None:
        self.results: deque[Message] = deque()
        # A plain dict takes longer to find its first entry the more were taken from it.
        self.states: OrderedDict[str, DeviceState] = OrderedDict()
        """Serial → newest, in the order in which they came."""
        self.removed: set[str] = set()
        self.health_changed = False
        self.dropped_results = 0
        self.dropped_history = 0
        """As `History` counts them."""
        self.info_changed = False
        """Control was halted or resumed."""
        self._open = False
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    def put(self, updates: Updates) -> None:
        """Take in what the router says; command steps come by `put_result`."""
        if self._open:
            self.states.update(updates.states)
        self.removed.update(updates.removed)
        self.removed.difference_update(updates.states)
        for serial in updates.removed:
            self.states.pop(serial, None)
        self.health_changed = self.health_changed or bool(updates.bridges) or updates.halt
        self.info_changed = self.info_changed or updates.halt
        self._news.set()

    def put_result(self, message: Message) -> None:
        """Queue an answer or an alarm. Past the backlog the oldest is dropped and counted."""
        if len(self.results) >= RESULT_BACKLOG:
            self.results.popleft()
            self.dropped_results += 1
            self.health_changed = True
        self.results.append(message)
        self._news.set()

    def open(self, states: Iterable[DeviceState]) -> None:
        """Begin anew with all that is known: the broker is there."""
        self.states = OrderedDict((state.device.serial, state) for state in states)
        self.removed.difference_update(self.states)
        self.health_changed = True
        self._open = True

    def close(self, unconfirmed: Iterable[Message]) -> None:
        """Keep results and alarms only, those that may not have arrived in front: the broker is gone."""
        self._open = False
        self._room.set()
        self.states.clear()
        room = max(0, RESULT_BACKLOG - len(self.results))
        kept = list(unconfirmed)
        self.dropped_results += max(0, len(kept) - room)
        self.results.extendleft(reversed(kept[len(kept) - min(room, len(kept)) :]))

    async def room_for_results(self) -> None:
        """Wait while many answers are about to be sent; not while the broker is away, for that may take long."""
        while self._open and len(self.results) > RESULT_BACKLOG // 4:
            self._room.clear()
            await self._room.wait()

    def results_taken(self) -> None:
        """Say that some were sent."""
        self._room.set()

    @property
    def filled(self) -> bool:
        """Whether anything waits."""
        return bool(self.results or self.states or self.removed or self.health_changed)

    def wake(self) -> None:
        """End a `wait`, for the connection is gone."""
        self._news.set()

    async def wait(self) -> None:
        """Wait until something was put, or `wake`."""
        await self._news.wait()
        self._news.clear()
