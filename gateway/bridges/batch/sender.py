"""Gathers the commands of an interface into messages, and sees them into the topic.

Order: a device's serial number decides the partition, as if it were the key of a message of its own. The items of one
message are of one partition, and its key is the serial number of its first. So what a device is told by one interface
stays in order, whoever reads, and the dispatcher has only one command for a device and setpoint under way besides.

Time: where no message of the interface is on its way, one leaves at once. Otherwise what comes is gathered: until the
others have arrived or nothing more has come for a tenth of `linger_ms`, and for `linger_ms` at the longest; in a flood
also once they have arrived, until less comes. What is of no fleet waits for no command of one. What could not be
confirmed in time is taken back, so that it can't leave later; it also carries its expiry.
"""

import asyncio
import math
import zlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from typing import Final

import msgspec

from gateway.api.contexts import ControllerContext
from gateway.bridges.batch.interfaces import Route
from gateway.bridges.batch.message import Item, encode
from gateway.bridges.batch.results import Results
from gateway.bridges.batch.settings import BatchSettings
from gateway.bridges.batch.tally import Tally
from gateway.core.clock import set_within
from gateway.core.errors import GatewayError, NotSentError, RefusedError, UnsureError
from gateway.core.model import new_command_id
from gateway.core.tasks import all_of
from gateway.journal.journal import JournalError
from gateway.kafka import Producer, TooLargeError

QUIET: Final = 0.1
"""Part of `linger_ms` without another command after which a message leaves."""
FLOOD: Final = 5
"""Commands within that part, or within the way of a message, from which on others are waited for in any case."""
RETRY_REFUSED: Final = 30.0
"""Seconds until it makes sense to try again where the cluster refuses, e.g. because of an ACL."""


class Waiting(msgspec.Struct, eq=False):
    """A command that has not left."""

    item: Item
    deadline: float
    """On the monotonic clock."""
    sent: asyncio.Future[str]
    """Gets the request it left with."""

    @property
    def serial(self) -> str:
        """Whom it is for."""
        return self.item.command.serial


class Sender:
    """Sends the commands of one interface."""

    def __init__(
        self,
        route: Route,
        settings: BatchSettings,
        context: ControllerContext,
        producer: Producer,
        results: Results,
        tally: Tally,
    ) -> None:
        self._route = route
        self._settings = settings
        self._context = context
        self._producer = producer
        self._results = results
        self._tally = tally
        self._waiting: list[Waiting] = []
        self._arrival = asyncio.Event()
        self._waiting_alone = 0
        """Commands among those that wait which are of no fleet."""
        self._under_way = 0
        """Messages that are not known to be in the topic."""
        self._under_way_alone = 0
        """Those of them that have commands which are of no fleet."""
        self._alone = asyncio.Event()
        """Set when the last of them is, or a command comes that need not wait as those before it do."""
        self._too_large = math.inf
        """Bytes of the smallest message of several commands that the topic did not take."""

    async def send(self, item: Item, timeout: float) -> str:
        """Have a command sent with the next message; return the id of its request once that is in the topic.

        Raises NotSentError when it certainly is not there, and UnsureError.
        """
        deadline = self._context.clock.monotonic() + timeout
        waiting = Waiting(item, deadline, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if not item.command.bulk:
            self._waiting_alone += 1
            if self._waiting_alone == 1 and not self._under_way_alone:
                self._alone.set()
        self._arrival.set()
        return await waiting.sent

    async def run(self) -> None:
        """Send what comes, for ever."""
        while True:
            if not self._waiting:
                self._arrival.clear()
                await self._arrival.wait()
            await self._linger()
            taken, self._waiting, self._waiting_alone = self._waiting, [], 0
            try:
                await self._leave(taken)
            except BaseException:
                # Stopped, or worse, before they were handed over: nobody else would tell those who wait.
                for waiting in taken:
                    _fail(waiting, UnsureError("the bridge was stopped while it was sent"))
                raise

    def close(self) -> None:
        """Send nothing more."""
        for waiting in self._waiting:
            _fail(waiting, NotSentError("the bridge was stopped before it was sent"))
        self._waiting, self._waiting_alone = [], 0

    async def _linger(self) -> None:
        """Wait while more comes, as long as one is on its way, or in a flood: who is alone waits for nobody.

        In a flood every message more is more work for all there is, from the journal to GoodWe.
        """
        most = self._settings.linger_ms / 1000
        end = self._now() + most
        came = came_alone = 0
        while (
            (self._under_way_alone or came_alone >= FLOOD if self._waiting_alone else self._under_way or came >= FLOOD)
            and len(self._waiting) < self._settings.items_most
            and (left := end - self._now()) > 0
        ):
            before, before_alone = len(self._waiting), self._waiting_alone
            self._alone.clear()
            await set_within(self._alone, min(most * QUIET, left))
            came, came_alone = len(self._waiting) - before, self._waiting_alone - before_alone
            if not came:
                return

    async def _leave(self, taken: list[Waiting]) -> None:
        """Journal which request each goes with, then hand the messages over, in order."""
        partitions = self._producer.partitions(self._route.commands)
        if not partitions:
            for waiting in taken:
                _fail(waiting, NotSentError("the Kafka cluster is not connected"))
            return
        await self._hand_over(
            list(grouped(self._alive(taken), partitions, self._settings.items_most, self._now())), partitions
        )

    async def _hand_over(self, grouped_: Sequence[list[Waiting]], partitions: int) -> None:
        groups = [(new_command_id(), group) for group in grouped_]
        try:
            await all_of(self._context.keep_receipt(request, *_ids(group)) for request, group in groups)
        except JournalError as error:
            for waiting in (waiting for group in grouped_ for waiting in group):
                _fail(waiting, NotSentError(str(error)))
            return
        for request, group in groups:
            # Tasks begin in the order of their making, and hand over before they wait for anything.
            alone = any(not waiting.item.command.bulk for waiting in group)
            self._under_way += 1
            self._under_way_alone += alone
            self._context.spawn(self._bring(request, group, partitions, alone), f"commands {request}")

    async def _bring(self, request: str, group: list[Waiting], partitions: int, alone: bool) -> None:
        try:
            await self._deliver(request, group, partitions)
        finally:
            self._under_way -= 1
            self._under_way_alone -= alone
            if not self._under_way or (alone and not self._under_way_alone):
                self._alone.set()

    async def _deliver(self, request: str, group: list[Waiting], partitions: int) -> None:
        group = self._alive(group)
        if not group:
            return
        now, least = self._now(), min(waiting.deadline for waiting in group)
        wall = self._context.clock.now()
        expires = wall + timedelta(seconds=least - now)
        items = [waiting.item for waiting in group]
        message = encode(self._route, request, items, wall, expires)
        if len(message) >= self._too_large and len(group) > 1:
            await self._divide(group, partitions)
            return
        self._results.expect(request, items)
        failure: GatewayError = UnsureError("the bridge was stopped while it was sent")
        try:
            await self._producer.send(
                self._route.commands,
                message,
                key=group[0].serial,
                partition=partition_of(group[0].serial, partitions),
                timeout=min(self._settings.send_within, least - now),
                may_leave=partial(self._context.may_leave, *_ids(group)),
                still_wanted=partial(self._context.still_wanted, *_ids(group)),
            )
        except TooLargeError as error:
            failure = NotSentError(str(error), RETRY_REFUSED)
            if len(group) > 1:
                self._learn(len(message))
                await self._divide(group, partitions)
                group = []
        except RefusedError as error:
            failure = NotSentError(str(error), RETRY_REFUSED)
        except GatewayError as error:
            failure = error
        else:
            self._tally.messages += 1
            self._tally.items += len(group)
            for waiting in group:
                if not waiting.sent.done():
                    waiting.sent.set_result(request)
        finally:
            if isinstance(failure, NotSentError):
                self._results.forget(request, items)
            for waiting in group:
                if not waiting.sent.done():
                    _fail(waiting, failure)

    def _learn(self, size: int) -> None:
        """Make no larger message from now on."""
        if self._too_large == math.inf:
            text = "the topic takes no message of this size; commands are divided among more of them"
            self._context.log.warning(text, topic=self._route.commands, bytes=size)
        self._too_large = min(self._too_large, size)

    async def _divide(self, group: list[Waiting], partitions: int) -> None:
        """Send the halves of what is too large, each as a request of its own."""
        middle = len(group) // 2
        await self._hand_over([group[:middle], group[middle:]], partitions)

    def _alive(self, taken: Iterable[Waiting]) -> list[Waiting]:
        """Return those that somebody still waits for, and whose time is not over."""
        now, alive, taken = self._now(), [], list(taken)
        all_wanted = self._context.still_wanted(*_ids(taken))
        for waiting in taken:
            if waiting.deadline <= now or not (all_wanted or self._context.still_wanted(waiting.item.command.id)):
                _fail(waiting, NotSentError("its time was over before it could be sent"))
            elif not waiting.sent.done():
                alive.append(waiting)
        return alive

    def _now(self) -> float:
        return self._context.clock.monotonic()


def partition_of(serial: str, partitions: int) -> int:
    """Return where a device's commands go: as librdkafka's partitioner `consistent` has it, for this as a key."""
    return zlib.crc32(serial.encode()) % partitions


def grouped(taken: Sequence[Waiting], partitions: int, most: int, now: float) -> Iterator[list[Waiting]]:
    """Yield what goes into one message each, in order.

    Of one partition; each device once, for results name no more than the device; of similar time left, for a message
    has one expiry, that of its hastiest.
    """
    for round_ in _rounds(taken):
        messages: dict[tuple[int, int], list[Waiting]] = {}
        for waiting in round_:
            haste = math.frexp(max(0.0, waiting.deadline - now))[1]
            messages.setdefault((partition_of(waiting.serial, partitions), haste), []).append(waiting)
        for message in messages.values():
            for begin in range(0, len(message), most):
                yield message[begin : begin + most]


def _rounds(taken: Sequence[Waiting]) -> Iterator[list[Waiting]]:
    """Begin anew where a device comes a second time: e.g. its reactive power, and its power factor."""
    round_: list[Waiting] = []
    seen: set[str] = set()
    for waiting in taken:
        if waiting.serial in seen:
            yield round_
            round_, seen = [], set()
        round_.append(waiting)
        seen.add(waiting.serial)
    if round_:
        yield round_


def _ids(group: Iterable[Waiting]) -> list[str]:
    return [waiting.item.command.id for waiting in group]


def _fail(waiting: Waiting, error: GatewayError) -> None:
    if not waiting.sent.done():
        # One instance each: whoever raises it adds to its traceback.
        again = (
            NotSentError(str(error), error.retry_after) if isinstance(error, NotSentError) else type(error)(str(error))
        )
        waiting.sent.set_exception(again)
