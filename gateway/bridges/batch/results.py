"""Takes in what results say. An offset is committed once the journal has what the message told."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, ParamSpec, TypeVar

from gateway.api.contexts import ControllerContext
from gateway.bridges.batch.interfaces import Interfaces
from gateway.bridges.batch.message import BadResultError, Item, Result, decode
from gateway.bridges.batch.settings import MAX_RESULT_SECONDS
from gateway.bridges.batch.tally import Tally
from gateway.core.controller import ResultEffect
from gateway.core.model import Command
from gateway.core.places import Others, Places
from gateway.core.tasks import all_of
from gateway.journal.journal import JournalError
from gateway.kafka import Consumer, Received
from gateway.sems.catalogue import SemsError
from gateway.sems.unknown_fields import UnknownFields

P = ParamSpec("P")
T = TypeVar("T")

RETRY: Final = 1.0
"""Seconds until the journal is tried again."""
MAX_OPEN_COMMANDS: Final = 100_000
"""Commands under way that are known without asking the journal."""
FORGOTTEN: Final = 2 * MAX_RESULT_SECONDS
"""Seconds after which nobody waits for a result any more. Mostly that is told; not where a dead-man's timer came first.
"""
MAX_HELD_BYTES: Final = 8 * 1024 * 1024
"""Bytes of messages that are being taken in; more are not read."""
SLICE: Final = 100
"""Messages that are read before others have their turn."""
SPLIT: Final = "split"
MEANING: Final = {
    ResultEffect.TAKEN: "taken",
    ResultEffect.CORRECTED: "late",
    ResultEffect.REPEATED: "double",
    ResultEffect.CONTRADICTED: "contradictory",
    ResultEffect.UNMATCHED: "unmatched",
}
"""What a result did, as metrics have it."""


class Results:
    """What is told by the result topics."""

    def __init__(self, context: ControllerContext, consumer: Consumer, interfaces: Interfaces, tally: Tally) -> None:
        self._context = context
        self._consumer = consumer
        self._interfaces = interfaces
        self._tally = tally
        self._open: dict[tuple[str, str], Command] = {}
        """Request and serial, in capitals → command."""
        self._requests: dict[str, set[str]] = {}
        """Request → serials without a result."""
        self._expected: deque[tuple[float, str]] = deque()
        """When each request left, monotonic."""
        self._unknown_fields = UnknownFields(context)
        self._others = Others()
        self._places = Places(self._admit, self._others.room)
        """For those of fleets, and those that were sent before a restart."""
        self._is_told = False
        """That results wait for the journal."""
        self._held = 0
        self._room = asyncio.Event()

    def expect(self, request: str, items: Iterable[Item]) -> None:
        """Know the commands of a request that is about to leave, without asking the journal."""
        now = self._context.clock.monotonic()
        self._expected.append((now, request))
        while self._expected[0][0] < now - FORGOTTEN:
            _, old = self._expected.popleft()
            for serial in list(self._requests.get(old, ())):
                self._drop(old, serial)
        commands = [item.command for item in items]
        for command in commands:
            self._open[request, command.serial.upper()] = command
        self._requests[request] = {command.serial.upper() for command in commands}
        while len(self._open) > MAX_OPEN_COMMANDS:
            self._drop(*next(iter(self._open)))
        self._tally.waiting = len(self._open)

    def forget(self, request: str, items: Iterable[Item]) -> None:
        """Forget a request that has certainly not left."""
        for item in items:
            self.over(request, item.command.serial)

    def over(self, request: str, serial: str) -> None:
        """Nobody waits for this result any more."""
        self._drop(request, serial.upper())
        self._tally.waiting = len(self._open)

    async def run(self) -> None:
        """Read for ever. What is told of one device does not wait until all is taken in that is told of a fleet."""
        taking: asyncio.Queue[tuple[list[Received], asyncio.Task[None]]] = asyncio.Queue()
        self._held = 0
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._commit(taking), name="commit of results")
                async for batch in self._consumer.batches():
                    self._held += _size(batch)
                    taking.put_nowait((batch, group.create_task(self.take(batch), name="batch of results")))
                    while self._held > MAX_HELD_BYTES:
                        self._room.clear()
                        await self._room.wait()
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _commit(self, taking: "asyncio.Queue[tuple[list[Received], asyncio.Task[None]]]") -> None:
        """Commit what is taken in, in order: an offset says that all before it need not be read again."""
        while True:
            batch, task = await taking.get()
            await task
            self._consumer.commit(batch)
            self._held -= _size(batch)
            self._room.set()

    async def take(self, batch: Iterable[Received]) -> None:
        """Take messages in; all they told is journaled when this returns."""
        results: list[Result] = []
        for number, message in enumerate(batch):
            results += self._said(message)
            if not number % SLICE:
                await asyncio.sleep(0)
        by_command: dict[str, list[Result]] = {}
        alone: set[str] = set()
        unknown: dict[str, list[Result]] = {}
        for result in results:
            if known := self._open.get((result.request, result.serial)):
                by_command.setdefault(known.id, []).append(result)
                if not known.bulk:
                    self._others.came()
                    alone.add(known.id)
            else:
                unknown.setdefault(result.request, []).append(result)
        # Those of other gateways are most of these: the journal is asked about all of them at once.
        ours = await self._insist(self._context.commands_by_receipt, list(unknown)) if unknown else {}
        for request, said in unknown.items():
            commands = {serial.upper(): id_ for id_, serial in ours.get(request, ())}
            for result in said:
                if command := commands.get(result.serial):
                    by_command.setdefault(command, []).append(result)
                else:
                    self._tally.results[MEANING[ResultEffect.UNMATCHED]] += 1
        first = sorted(by_command, key=lambda id_: id_ not in alone)
        telling = [(self._tell if id_ in alone else self._tell_in_turn)(id_, by_command[id_]) for id_ in first]
        await all_of(telling)

    def _said(self, message: Received) -> list[Result]:
        """Return what a message says; nothing where it makes no sense."""
        route = self._interfaces.by_results.get(message.topic)
        if message.oversize or message.value is None or route is None:
            kind, why = ("oversize", f"has {message.oversize} bytes") if message.oversize else ("empty", "is empty")
            self._odd(kind, why, message)
            return []
        try:
            results, empty, data = decode(route, self._interfaces.catalogue, message.value)
        except BadResultError as error:
            self._odd(error.kind, str(error), message)
            return []
        except Exception as error:  # noqa: BLE001 - read again it would be no better, and hold up all behind it
            self._odd("not_understood", f"can't be used ({type(error).__name__})", message)
            return []
        if empty:
            self._odd("no_device", f"has {empty} entries without a request, serial number or code", message)
        self._unknown_fields.look(route.interface, data)
        self._note_split(results)
        return results

    def _note_split(self, results: list[Result]) -> None:
        """Count a message that answers a part of a request."""
        for request in {result.request for result in results}:
            open_ = self._requests.get(request, set())
            answered = open_ & {result.serial for result in results if result.request == request}
            open_ -= answered
            if answered and open_:
                self._tally.results[SPLIT] += 1

    async def _tell_in_turn(self, command: str, results: list[Result]) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._places.enter(turn)
        try:
            await turn
            await self._tell(command, results)
        finally:
            self._places.leave(turn)

    def _admit(self, turn: "asyncio.Future[None]") -> None:
        if turn.done():  # stopped meanwhile
            self._places.leave(turn)
        else:
            turn.set_result(None)

    async def _tell(self, command: str, results: list[Result]) -> None:
        for result in results:
            # Before the command's end is published: who hears of that finds all of this as it is.
            self.over(result.request, result.serial)
            self._note_authority(result)
            told = await self._insist(self._context.result_came, command, result.outcome)
            self._tally.results[MEANING[told]] += 1
            if told is ResultEffect.CONTRADICTED:
                self._context.log.warning(
                    "a result contradicts the command's end, which stays",
                    command=command,
                    serial=result.serial,
                    said=result.outcome.state,
                )

    def _note_authority(self, result: Result) -> None:
        """Log once that GoodWe refuses a number, until it does not any more."""
        refused = self._tally.unauthorised
        if result.error is not SemsError.UNAUTHORISED:
            refused.discard(result.serial)
        elif result.serial not in refused:
            refused.add(result.serial)
            self._context.log.warning("unauthorised", serial=result.serial, detail=result.outcome.detail)

    def _odd(self, kind: str, why: str, message: Received) -> None:
        where = f"{message.topic}, partition {message.partition}, offset {message.offset}"
        self._tally.odd(kind, f"a result {why}; it is skipped ({where})")

    async def _insist(self, ask: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Ask until the journal answers: what it has not, may not be committed."""
        while True:
            try:
                answer = await ask(*args, **kwargs)
            except JournalError as error:
                if not self._is_told:
                    self._context.log.warning("results wait for the journal", error=str(error))
                self._is_told = True
                await asyncio.sleep(RETRY)
            else:
                self._is_told = False
                return answer

    def _drop(self, request: str, serial: str) -> None:
        self._open.pop((request, serial), None)
        serials = self._requests.get(request)
        if serials is not None:
            serials.discard(serial)
            if not serials:
                del self._requests[request]


def _size(batch: Iterable[Received]) -> int:
    return sum(1_000 + len(message.value or b"") for message in batch)
