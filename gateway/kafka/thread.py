"""The one thread that a Kafka client forces on us, at its edge: polls, and hands what comes to the event loop."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from confluent_kafka import KafkaError

from gateway.kafka import error_messages
from gateway.kafka.health import Health
from gateway.kafka.meter import STATISTICS, Meter, Statistics

POLL: Final = 0.1
"""Seconds in which a call to the thread is heard at the latest. What librdkafka has to say is heard at once."""
STATISTICS_MS: Final = 500
"""How soon it is known that a connection is there (again)."""


class Outlet:
    """Runs calls on the loop in the order they were made in a thread; many with one wake-up."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._awake = False

    def put(self, call: Callable[..., None], *args: Any) -> None:
        """Have a function called on the loop."""
        self._calls.append((call, args))
        if not self._awake:
            self._awake = True
            try:
                self._loop.call_soon_threadsafe(self._drain)
            except RuntimeError:
                # The loop is closed: nobody is left to hear it.
                self._calls.clear()

    def _drain(self) -> None:
        self._awake = False
        while self._calls:
            call, args = self._calls.popleft()
            call(*args)


class PollThread:
    """Calls `turn` again and again in a thread of its own, until stopped; then `end`."""

    def __init__(
        self, name: str, turn: Callable[[], None], end: Callable[[], None], failed: Callable[[BaseException], None]
    ) -> None:
        """`failed` is called on the loop with what ends the thread before it is stopped: it must not die unseen."""
        self._turn = turn
        self._end = end
        self._failed = failed
        self._stopping = threading.Event()
        self._ended = asyncio.Event()
        self._outlet = Outlet(asyncio.get_running_loop())
        self.failure: BaseException | None = None
        """What ended it before it was stopped."""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def stopping(self) -> bool:
        """Whether it was told to end."""
        return self._stopping.is_set()

    async def stop(self) -> None:
        """End it, and wait for that."""
        self._stopping.set()
        await self._ended.wait()

    async def ended(self) -> None:
        """Wait until it has ended, for whatever reason."""
        await self._ended.wait()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._turn()
        except BaseException as error:  # noqa: BLE001 - raised where the loop looks
            self.failure = error
            self._outlet.put(self._failed, error)
        try:
            self._end()
        except BaseException as error:  # noqa: BLE001 - as above
            self.failure = self.failure or error
        self._outlet.put(self._ended.set)


class Watch:
    """What both kinds of clients tell of their connection. Called in their threads, heard on the loop."""

    def __init__(
        self, name: str, health: Health, meter: Meter, fatal: Callable[[KafkaError], None] | None = None
    ) -> None:
        """`fatal` is told of an error after which the client can only be closed."""
        self._name = name
        self._health = health
        self._meter = meter
        self._fatal = fatal
        self._outlet = Outlet(asyncio.get_running_loop())
        self.connected = asyncio.Event()
        """Set while a broker is connected, as far as is known."""
        health.expect(name)

    def config(self) -> dict[str, Any]:
        """Return librdkafka's settings that make it tell."""
        return {
            "statistics.interval.ms": STATISTICS_MS,
            "stats_cb": lambda text: self._outlet.put(self._statistics, text),
            "error_cb": lambda error: self._outlet.put(self.error, error),
        }

    def error(self, error: KafkaError, subject: str = "") -> None:
        """Take in an error that is about no message in particular. On the loop."""
        if error.code() == KafkaError._FATAL and self._fatal is not None:  # noqa: SLF001 - as below
            self._fatal(error)
            return
        word, text = error_messages.of(error, subject)
        about_one = subject if word in (error_messages.UNKNOWN_TOPIC, error_messages.NO_TOPIC_RIGHT) else ""
        if word is error_messages.AWAY and error.code() != KafkaError._ALL_BROKERS_DOWN and self._meter.connected:  # noqa: SLF001
            # One of several brokers, or a connection that idled too long. When it was the last, that is told too.
            return
        if not about_one:
            self._meter.connected = False
            self.connected.clear()
        self._health.met(self._name, word.kind, text, about_one)

    def _statistics(self, text: str) -> None:
        statistics: Statistics = STATISTICS.decode(text)
        self._meter.waiting = statistics.msg_cnt
        self._meter.lag = statistics.lag
        self._meter.connected = statistics.connected
        if statistics.connected:
            self.connected.set()
            self._health.connected(self._name)
        else:
            self.connected.clear()
