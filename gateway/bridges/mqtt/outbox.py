"""What waits to be published. Bounded: one state per device, and a backlog of results and alarms."""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable
from typing import Final

from gateway.bridges.mqtt.message import Message
from gateway.core.mailbox import Updates
from gateway.core.model import DeviceState

RESULT_BACKLOG: Final = 10_000


class Outbox:
    """Filled by whoever has something to say, emptied by the publisher."""

    def __init__(self) -> None:
        self.results: deque[Message] = deque()
        self.kept: deque[Message] = deque()
        """Results from before this connection, and those that must not overtake them."""
        self._bulk: deque[Message] = deque()
        """Steps of the commands of fleets, and what must not overtake them: they go when nothing else does."""
        self._bulk_topics: Counter[str] = Counter()
        self._kept_topics: set[str] = set()
        self._first = 0
        """States of the beginning that are to be shown before what was kept."""
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

    def put_result(self, message: Message, *, bulk: bool = False) -> None:
        """Queue an answer or an alarm; those that are `bulk` let others go ahead, but for their topic's own.

        Past the backlog the oldest is dropped and counted, of those that are bulk first.
        """
        if self.waiting >= RESULT_BACKLOG:
            if self._bulk:
                self._next_bulk()
            else:
                (self.kept or self.results).popleft()
            self.dropped_results += 1
            self.health_changed = True
        if self.kept and message.topic in self._kept_topics:
            self.kept.append(message)
        elif bulk or message.topic in self._bulk_topics:
            self._bulk.append(message)
            self._bulk_topics[message.topic] += 1
        else:
            self.results.append(message)
        self._news.set()

    def _next_bulk(self) -> Message:
        message = self._bulk.popleft()
        self._bulk_topics[message.topic] -= 1
        if not self._bulk_topics[message.topic]:
            del self._bulk_topics[message.topic]
        return message

    def open(self, states: Iterable[DeviceState]) -> None:
        """Begin anew with what is known: the broker is there. What was kept waits until that is shown."""
        self.states = OrderedDict((state.device.serial, state) for state in states)
        self._first = len(self.states)
        self._keep(())
        # By what was removed, which is few: there are states of all devices.
        self.removed = {serial for serial in self.removed if serial not in self.states}
        self.health_changed = True
        self._open = True

    def begin_with(self, state: DeviceState) -> None:
        """Add a state to those of the beginning; what has come since `open` is newer."""
        serial = state.device.serial
        if serial not in self.removed:
            self.states.setdefault(serial, state)
            self._first += 1

    def close(self, unconfirmed: Iterable[Message]) -> None:
        """Keep results and alarms only, those that may not have arrived in front: the broker is gone."""
        self._open = False
        self._room.set()
        self.states.clear()
        self._keep(unconfirmed)

    def _keep(self, unconfirmed: Iterable[Message]) -> None:
        kept = [*unconfirmed, *self.kept, *self.results, *self._bulk]
        surplus = max(0, len(kept) - RESULT_BACKLOG)
        self.dropped_results += surplus
        self.kept = deque(kept[surplus:])
        self._kept_topics = {message.topic for message in self.kept}
        self.results.clear()
        self._bulk.clear()
        self._bulk_topics.clear()

    def state_shown(self) -> None:
        """Take in that one more of the states was published."""
        self._first = max(0, self._first - 1)

    def next_result(self) -> Message | None:
        """Take out what is to be sent next; None where nothing is, yet.

        What was kept from before this connection waits for the live states, but those of one topic stay in order.
        """
        if self.kept and not (self._first and self.states):
            return self.kept.popleft()
        if self.results:
            return self.results.popleft()
        return self._next_bulk() if self._bulk else None

    def put_back(self, message: Message) -> None:
        """Take back what `next_result` gave and was not sent."""
        self.kept.appendleft(message)

    @property
    def waiting(self) -> int:
        """How many results and alarms wait."""
        return len(self.results) + len(self.kept) + len(self._bulk)

    async def room_for_results(self) -> None:
        """Wait while many answers are about to be sent; not while the broker is away, for that may take long.

        Those of fleets do not count: others go ahead of them.
        """
        while self._open and self.waiting - len(self._bulk) > RESULT_BACKLOG // 4:
            self._room.clear()
            await self._room.wait()

    def results_taken(self) -> None:
        """Say that some were sent."""
        self._room.set()

    @property
    def filled(self) -> bool:
        """Whether anything waits."""
        return bool(self.results or self.kept or self._bulk or self.states or self.removed or self.health_changed)

    def wake(self) -> None:
        """End a `wait`, for the connection is gone."""
        self._news.set()

    async def wait(self) -> None:
        """Wait until something was put, or `wake`."""
        await self._news.wait()
        self._news.clear()
