"""The stream of what changes, as server-sent events (HTML Living Standard, 9.2): it begins with all there is.

What waits for a reader is bounded: of a device or a bridge that it is to be read anew, of steps and alarms a backlog.
Who falls behind that is dropped, comes again, and begins with all there is.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import Any, Final

import msgspec
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.api.bridge import Context
from gateway.bridges.web.access_policy import Caller
from gateway.bridges.web.inventory import halt
from gateway.bridges.web.problems import ProblemError
from gateway.core import shapes
from gateway.core.mailbox import Updates
from gateway.core.model import Alarm, CommandEvent, DeviceState, iso
from gateway.core.points import POINTS

MAX_READERS: Final = 32
"""Streams of a bridge at a time."""
BEAT: Final = 5.0
"""Seconds without news after which a sign of life is sent."""
PAUSE: Final = 0.25
"""Seconds between two lots of news: what changes within them is sent once."""
DEVICES_AT_ONCE: Final = 100
"""In one event: some 100 KB, and a millisecond to encode."""
BACKLOG: Final = 1_000
"""Steps of commands and alarms that wait for a reader."""
UNITS: Final = {point.id: point.unit for point in POINTS.values() if point.unit}
HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Accel-Buffering": "no",  # nginx would keep it back
}


class Reader:
    """What waits for one who reads the stream."""

    def __init__(self) -> None:
        self.mail = asyncio.Event()
        self.is_behind = False
        """More waited than may: it is dropped."""
        self.serials: set[str] = set()
        """Devices whose state is to be sent; it is read when it is."""
        self.removed: set[str] = set()
        self.bridges = False
        self.halt = False
        self.news: list[CommandEvent | Alarm] = []

    def put(self, updates: Updates) -> None:
        """Take what has changed."""
        if self.is_behind:
            return
        self.serials |= updates.states.keys()
        self.serials -= updates.removed
        self.removed |= updates.removed
        self.removed -= updates.states.keys()
        self.bridges |= bool(updates.bridges)
        self.halt |= updates.halt
        if len(self.news) + len(updates.events) + len(updates.alarms) > BACKLOG:
            self.is_behind = True
            self.news.clear()
        else:
            self.news += updates.events
            self.news += updates.alarms
        self.mail.set()


class Streams:
    """Everybody who reads."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.readers: set[Reader] = set()

    def deliver(self, updates: Updates) -> None:
        """Pass on what has changed. Never waits."""
        for reader in self.readers:
            reader.put(updates)

    def response(self, caller: Caller) -> "StreamResponse":
        """Return the answer that does not end. Raises ProblemError where there are too many."""
        if len(self.readers) >= MAX_READERS:
            raise ProblemError("too_many_streams", f"{MAX_READERS} are read already")
        return StreamResponse(self, caller)

    async def follow(self, reader: Reader, caller: Caller) -> AsyncIterator[bytes]:
        """Give all there is, then what changes, until the reader is too far behind."""
        context = self._context
        about = {"gateway": context.gateway_id, "bridge": context.name, "write": caller.write, "units": UNITS}
        yield _event("begin", about | self._beat())
        yield _event("halt", halt(context))
        yield self._bridges()
        yield _event("alarms", {"alarms": [shapes.alarm(each) for each in context.active_alarms()]})
        for chunk in _devices(context.states()):
            yield chunk
            await asyncio.sleep(0)
        yield _event("whole", self._beat())
        while not reader.is_behind:
            try:
                async with asyncio.timeout(BEAT):
                    await reader.mail.wait()
            except TimeoutError:
                yield _event("beat", self._beat())
                continue
            reader.mail.clear()
            for chunk in self._news(reader):
                yield chunk
                await asyncio.sleep(0)
            await asyncio.sleep(PAUSE)

    def _news(self, reader: Reader) -> Iterator[bytes]:
        """Give what waits, what matters most first."""
        if reader.halt:
            reader.halt = False
            yield _event("halt", halt(self._context))
        news, reader.news = reader.news, []
        for each in news:
            yield _event("alarm", shapes.alarm(each)) if isinstance(each, Alarm) else _event("step", shapes.step(each))
        if reader.bridges:
            reader.bridges = False
            yield self._bridges()
        if reader.removed:
            removed, reader.removed = reader.removed, set()
            yield _event("removed", {"serials": sorted(removed)})
        serials, reader.serials = reader.serials, set()
        states = (state for serial in serials if (state := self._context.state(serial)) is not None)
        yield from _devices(states)
        # Ages are told by this clock, so it comes with each lot.
        yield _event("beat", self._beat())

    def _bridges(self) -> bytes:
        return _event("bridges", {"bridges": {each.name: shapes.bridge(each) for each in self._context.bridges()}})

    def _beat(self) -> dict[str, str]:
        now: datetime = self._context.clock.now()
        return {"time": iso(now)}


class StreamResponse(StreamingResponse):
    """Who reads counts from the first byte to the last, however it ends."""

    def __init__(self, streams: Streams, caller: Caller) -> None:
        self._streams = streams
        self._reader = Reader()
        super().__init__(streams.follow(self._reader, caller), headers=HEADERS, media_type="text/event-stream")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until one of both ends."""
        self._streams.readers.add(self._reader)
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._streams.readers.discard(self._reader)


def _devices(states: Iterable[DeviceState]) -> Iterator[bytes]:
    states = iter(states)
    while lot := list(islice(states, DEVICES_AT_ONCE)):
        yield _event(
            "devices",
            {"devices": [shapes.device(s) | {"source": s.source, "values": s.values} for s in lot]},
        )


def _event(name: str, body: Any) -> bytes:
    # JSON has no line breaks of its own, so it is one line of `data`.
    return b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(body))
