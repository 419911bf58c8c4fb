"""The cloud side of the Batch Remote Control API: takes commands from Kafka, has devices obey, and answers results."""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Final

import msgspec
import structlog
from pydantic import BaseModel, ConfigDict

from gateway.core.errors import GatewayError
from gateway.kafka import Consumer, Health, KafkaConnection, Producer, Received
from gateway.sems.catalogue import Interface, Json, SemsError, Use, load
from gateway.simulator.controls import Task, Tasks, TaskState
from gateway.simulator.frozen_clock import FrozenClock
from gateway.simulator.queries import Queries
from gateway.simulator.requests import RefusedError, arguments, code_of, parse_body, separated, serial_in
from gateway.simulator.results import Entry, Faults, ResultFault, Wording, spoilt
from gateway.simulator.transports import kafka_health
from gateway.simulator.world import World

API: Final = "batch"
BAD_ITEM: Final = "W0422"
"""Code for an item that makes no sense. [assumed]"""
EXPIRED: Final = "R0410"
"""Code for a command that came too late. [assumed]"""
LARGEST: Final = 16 * 1024 * 1024
RESULT_WITHIN: Final = 60.0
AT_ONCE: Final = 100
"""Items that are taken in one turn; a command for a whole fleet is many messages of hundreds."""
GATHERED: Final = 0.25
"""Seconds after one result in which others of the same request go with it."""

log = structlog.get_logger("simulator")


class BatchSettings(BaseModel):
    """Where the cloud finds its topics."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    connection: KafkaConnection
    prefix: str = "goodwe"
    supplier: str = "demo"
    group: str = "goodwe"
    """Of the consumer of commands."""
    whitelist: tuple[str, ...] | None = None
    """Serial numbers that the supplier may command; None for all there are."""


class CommandMessage(msgspec.Struct, frozen=True):
    """A message with commands, as evidence."""

    topic: str
    partition: int
    key: str
    request: str
    serials: tuple[str, ...]
    expires: int
    """UTC ms."""


class _Order(msgspec.Struct):
    """One item of a message."""

    serial: str
    task: Task | None = None
    code: str = ""
    text: str = ""


def _told(order: _Order) -> float:
    """Return when a result may be sent, by the monotonic clock."""
    return order.task.told if order.task else 0.0


class BatchCloud:
    """One supplier's topics over one world."""

    def __init__(self, world: World, tasks: Tasks, clock: FrozenClock, settings: BatchSettings) -> None:
        self.faults = Faults[ResultFault]()
        self.whitelist = None if settings.whitelist is None else set(settings.whitelist)
        """May be changed while it runs."""
        self.messages: list[CommandMessage] = []
        """What was received, newest last."""
        self._tasks = tasks
        self._clock = clock
        self._catalogue = load(API)
        self._queries = Queries(world, tasks, self._catalogue)
        self._topics: dict[str, tuple[Interface, str]] = {}
        """Topic of commands → interface and topic of results."""
        names = {"prefix": settings.prefix, "supplier": settings.supplier}
        for interface in self._catalogue.using(Use.CONTROL):
            self._topics[interface.path.format(**names)] = interface, interface.answers.format(**names)
        client = {"client_id": "simulated-goodwe", "health": Health(kafka_health), "log": log}
        results = [topic for _, topic in self._topics.values()]
        self._producer = Producer(settings.connection, "results", results, **client)
        self._consumer = Consumer(
            settings.connection,
            "commands",
            list(self._topics),
            group=settings.group,
            max_bytes=LARGEST,
            **client,
        )
        self._running: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin to read commands, on the running loop."""
        await self._producer.start()
        await self._consumer.start()
        self._spawn(self._read())

    async def stop(self) -> None:
        """End; what is under way gets no result."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._consumer.stop()
        await self._producer.stop()

    async def _read(self) -> None:
        async for batch in self._consumer.batches():
            for message in batch:
                await self._take(message)
            self._consumer.commit(batch)

    async def _take(self, message: Received) -> None:
        interface, results = self._topics[message.topic]
        try:
            fields = parse_body(interface, message.value or b"")
            items = separated([interface], fields)
            named = {row.arg: row.field for row in interface.request}
            request, expires = fields.get(named["receipt"]), fields.get(named["expires"])
            if not isinstance(request, str) or not isinstance(expires, int):
                raise RefusedError(SemsError.DISOBEYED, "no request or no expiry")
            orders: list[_Order] = []
            for first in range(0, len(items), AT_ONCE):
                with self._clock.held():
                    orders += [self._order(interface, item, expires) for item in items[first : first + AT_ONCE]]
                await asyncio.sleep(0)
        except RefusedError as error:
            log.warning("commands make no sense", topic=message.topic, detail=error.text)
            return
        serials = tuple(order.serial for order in orders)
        self.messages.append(CommandMessage(message.topic, message.partition, message.key, request, serials, expires))
        self._spawn(self._answer(interface, results, request, orders))

    def _order(self, interface: Interface, item: Mapping[str, Json], expires: int) -> _Order:
        """Have one item carried out, or say why not."""
        order = _Order(serial_in(interface, item))
        if self.whitelist is not None and order.serial not in self.whitelist:
            order.code, order.text = code_of(self._catalogue, SemsError.UNAUTHORISED), "not in the whitelist"
        elif self._clock.now().timestamp() + self._within(order.serial) >= expires / 1000:
            order.code, order.text = EXPIRED, "expired"
        else:
            try:
                order.task = self._tasks.accept(self._queries.order(interface, arguments(interface, item)))
            except RefusedError as error:
                order.code, order.text = BAD_ITEM, error.text
        return order

    def _within(self, serial: str) -> float:
        """Return the seconds within which a command has to be done; a late device got it in time, and does it later."""
        return 0.0 if serial in self._tasks.late else self._tasks.draw(serial)[0]

    async def _answer(self, interface: Interface, topic: str, request: str, orders: Sequence[_Order]) -> None:
        """Send what became of the items, once the devices have had their time; of what is done together, together."""
        waiting = sorted(orders, key=_told)
        while waiting:
            # What is refused goes with the first that was obeyed.
            first = next((order for order in waiting if order.task), waiting[0])
            until = _told(first) + GATHERED
            ready = [order for order in waiting if _told(order) <= until]
            del waiting[: len(ready)]
            # A loop may wake a little early, and then the last of them would not be done.
            while ready[-1].task and (delay := _told(ready[-1]) - self._clock.monotonic()) > 0:
                await asyncio.sleep(delay)
            self._tasks.settle()
            await self._tell(interface, topic, request, ready)

    async def _tell(self, interface: Interface, topic: str, request: str, orders: Sequence[_Order]) -> None:
        field = {row.attribute: row.field for row in interface.response}
        words = Wording(
            field["serial"], field["code"], self._catalogue.success[0], code_of(self._catalogue, SemsError.DISOBEYED)
        )

        def encode(entries: Sequence[Entry]) -> bytes:
            whole = {field["receipt"]: request, field["time"]: self._milliseconds(), interface.lists[0]: entries}
            return msgspec.json.encode(whole)

        entries = [entry for order in orders if (entry := self._entry(order, field, words))]
        if not entries:
            return
        for value in await spoilt(self.faults.of(API, interface.name), entries, words, encode):
            try:
                await self._producer.send(topic, value, key=orders[0].serial, timeout=RESULT_WITHIN)
            except GatewayError as error:
                log.warning("a result can't be sent", topic=topic, detail=str(error))

    def _entry(self, order: _Order, field: Mapping[str, str], words: Wording) -> Entry | None:
        """Return the result of one item; None for a device that never gives one."""
        code, text = order.code, order.text
        if order.task is not None:
            if order.task.state is TaskState.PENDING:
                return None
            code = words.done if order.task.state is TaskState.SUCCEEDED else words.not_done
            text = order.task.detail
        return {
            field["serial"]: order.serial,
            field["code"]: code,
            field["detail"]: text,
            field["time"]: self._milliseconds(),
        }

    def _milliseconds(self) -> int:
        return round(self._clock.now().timestamp() * 1000)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="batch remote control")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
