"""What the broker keeps because we said so, remembered over restarts, so that it can be cleared.

A retained message outlives who published it: the last value of a device that was sold stands there for ever. So each
topic that is retained is written down, per broker, and cleared with an empty retained message when nothing of ours
belongs there any more:

- at once where the settings say so: another `base` or Home Assistant prefix, `points` or `retain` switched off, another
  `payload`, discovery switched off, another `gateway.id`;
- when its device is withdrawn;
- when its device went while the gateway was away, once every bridge has been up for long enough; until then it is
  `offline`. Who is late to come is not gone.

Only at the broker where it was retained, by `host` and `port`: what stands at another one may be another gateway's.
What we leave behind there stays written down, and is cleared when that broker is back.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from functools import partial
from typing import Final

import msgspec

from gateway.api.contexts import SinkContext
from gateway.bridges.mqtt import payloads
from gateway.bridges.mqtt.client import Client
from gateway.bridges.mqtt.delivery import TopicClass
from gateway.bridges.mqtt.home_assistant import names
from gateway.bridges.mqtt.outbox import Outbox
from gateway.bridges.mqtt.settings import MqttSettings
from gateway.bridges.mqtt.topics import (
    AS,
    AVAILABILITY,
    BRIDGE,
    DEVICE,
    RESPONSE,
    RESULT,
    STATE,
    TOTALS,
    Topics,
    unescape,
)
from gateway.core import files
from gateway.core.bad_json import BAD_JSON
from gateway.core.kept_file import KeptFile
from gateway.core.points import POINTS
from gateway.core.timer import Timer

SUFFIX: Final = "-retained.json"
FORMAT: Final = 1
SAVE_AFTER: Final = 1.0
"""Seconds in which changes gather before the file is written."""
OFFLINE_AFTER: Final = 5.0
"""Seconds for which every bridge has to be up before a device that nobody has named is offline."""
OFFLINE_AT_LAST: Final = 60.0
"""Seconds after which it is all the same, whatever is not up."""
GONE_AFTER: Final = 600.0
"""Seconds for which every bridge has to be up before such a device is gone."""
PER_TURN: Final = 200
"""Topics that are cleared before live data get their turn."""
SLICE: Final = 500
"""Topics that are looked at in one turn of the loop."""
MAX_BROKERS: Final = 4
"""Brokers of which something is remembered; the one that was left longest ago is forgotten."""

Done = Callable[[bool], None]


class _Broker(msgspec.Struct):
    """Topics, compactly: devices of a kind have the same topics below their own."""

    sets: list[list[str]] = []
    """What is retained below a topic; "" is the topic itself."""
    topics: dict[str, int] = {}
    """Topic, e.g. `<base>/<device>` → place in `sets`."""


class _File(msgspec.Struct):
    version: int
    brokers: dict[str, _Broker]
    """`host:port` → what it keeps; the one of now is the last."""


class _OldEntry(msgspec.Struct):
    """What earlier versions knew of a device in `<bridge>-home-assistant.json`."""

    root: str
    points: bool = True


class Memory:
    """Topics of one broker."""

    def __init__(self, stored: _Broker | None = None) -> None:
        self._sets: list[frozenset[str]] = [frozenset()]
        self._places: dict[frozenset[str], int] = {frozenset(): 0}
        self._topics: dict[str, int] = {}
        self.changed = False
        if stored is not None:
            sets = [frozenset(rests) for rests in stored.sets]
            for head, place in stored.topics.items():
                if 0 <= place < len(sets):
                    self._put(head, sets[place])

    def __len__(self) -> int:
        return sum(len(self._sets[place]) for place in self._topics.values())

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Yield the topics, each as its head and the rest."""
        for head, place in list(self._topics.items()):
            for rest in self._sets[place]:
                yield head, rest

    def of(self, head: str) -> frozenset[str]:
        """Return what is retained at a topic and below it."""
        return self._sets[self._topics.get(head, 0)]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is retained anywhere."""
        return not self._topics

    def heads(self) -> list[str]:
        """Return the topics at or below which something is retained."""
        return list(self._topics)

    def add(self, head: str, rest: str) -> None:
        """Remember a topic."""
        known = self._sets[self._topics.get(head, 0)]
        if rest not in known:
            self._put(head, known | {rest})

    def remove(self, head: str, rest: str) -> None:
        """Forget a topic."""
        known = self._sets[self._topics.get(head, 0)]
        if rest in known:
            self._put(head, known - {rest})

    def _put(self, head: str, rests: frozenset[str]) -> None:
        self.changed = True
        if not rests:
            self._topics.pop(head, None)
            return
        place = self._places.get(rests)
        if place is None:
            place = self._places[rests] = len(self._sets)
            self._sets.append(rests)
        self._topics[head] = place

    def copy(self) -> "Memory":
        """Return what is remembered now, which changes no more."""
        copied = Memory()
        copied._sets, copied._topics = self._sets.copy(), self._topics.copy()
        return copied

    def stored(self) -> _Broker:
        """Return what to write; sets that nobody has any more are left out."""
        used = sorted(set(self._topics.values()))
        places = {place: n for n, place in enumerate(used)}
        return _Broker(
            [sorted(self._sets[place]) for place in used],
            {head: places[place] for head, place in self._topics.items()},
        )


class Retained:
    """Works on the connection's task, after the publisher."""

    def __init__(
        self, settings: MqttSettings, context: SinkContext, topics: Topics, client: Client, outbox: Outbox
    ) -> None:
        self._settings = settings
        self._context = context
        self._topics = topics
        self._client = client
        self._outbox = outbox
        self._file = KeptFile(
            context.data_dir / f"{context.name}{SUFFIX}",
            _File,
            context.log,
            version=FORMAT,
            unreadable="what is retained at the broker is forgotten",
            unwritable="what is retained at the broker can't be written down",
        )
        self._broker = f"{settings.host}:{settings.port}"
        self._others: dict[str, _Broker] = {}
        self._memory = Memory()
        self._loaded = False
        self._waiting: deque[tuple[str, frozenset[str]]] = deque()
        """Topics that are to be cleared, in order, and what of each."""
        self._misplaced: dict[frozenset[str], frozenset[str]] = {}
        """What is retained below a device → what of it the settings have no place for."""
        self._under_way: set[str] = set()
        """Cleared over this connection, and perhaps not answered yet."""
        self._began = 0.0
        self._all_up_since: float | None = None
        self._said_offline = False
        self._looked_for_gone = False
        self._save_at: float | None = None
        self._timer = Timer(outbox.wake)

    # what the client calls

    def note(self, topic: str, payload: bytes, qos: int, done: Done | None) -> Done | None:
        """Take in a retained message that is being sent; return what to call when the broker has acknowledged it."""
        head, rest = self._split(topic)
        if payload:
            self._memory.add(head, rest)
            self._under_way.discard(topic)
            self._plan_save()
            return done
        self._under_way.add(topic)
        if not qos:
            self._forget(topic)
            return done

        def cleared(accepted: bool) -> None:
            if accepted and topic in self._under_way:
                self._forget(topic)
            if done is not None:
                done(accepted)

        return cleared

    # what the bridge calls

    async def prepare(self) -> None:
        """Make ready for a connection; the first time, read the file."""
        self._under_way.clear()
        if self._loaded:
            return
        self._loaded = True
        if (found := await asyncio.to_thread(self._file.read)) is None:
            if not self._file.damaged:
                await self._take_over_old()
            return
        brokers = found.brokers
        stored = brokers.pop(self._broker, None)
        self._memory = await asyncio.to_thread(Memory, stored)
        self._memory.changed = False
        self._others = brokers
        if stored is None and brokers:
            self._context.log.warning(
                "another broker: what was retained at the last one stays there until the gateway is back, "
                "or somebody clears it",
                broker=self._broker, before=next(reversed(brokers)),
            )  # fmt: skip

    async def begin(self) -> None:
        """Begin with a connection: see what has no place at the broker any more."""
        self._waiting.clear()
        self._began = self._context.clock.monotonic()
        self._all_up_since = None
        self._said_offline = self._looked_for_gone = False
        await self._queue_misplaced()
        if not self._memory.is_empty:
            # Else the loop would wait for news first.
            self._outbox.wake()

    def gone(self, serials: Iterable[str]) -> None:
        """Take in that devices were withdrawn."""
        for serial in serials:
            head = self._topics.root(serial)
            self._waiting.append((head, self._memory.of(head)))

    async def flush(self) -> None:
        """Clear some of what is to be cleared, and write down what has changed. Raises LostError."""
        self._look_around()
        if not self._said_offline and self._all_up_for(OFFLINE_AFTER, at_last=OFFLINE_AT_LAST):
            self._said_offline = True
            await self._say_offline()
        if not self._looked_for_gone and self._all_up_for(GONE_AFTER):
            self._looked_for_gone = True
            await self._adopt()
            async for head in self._slowly():
                if self._is_unknown(head):
                    self._waiting.append((head, self._memory.of(head)))
        room = PER_TURN
        while self._waiting and room > 0:
            head, rests = self._waiting.popleft()
            room -= len(rests)
            # It is offline, then gone.
            for rest in sorted(rests, key=lambda rest: rest != AVAILABILITY):
                await self._clear(head, rest)
        now = self._context.clock.monotonic()
        if self._save_at is not None and now >= self._save_at:
            await self.save()
        self._sleep(now)

    async def save(self) -> None:
        """Write the file if something has changed. A disk that does not take it is logged once."""
        self._save_at = None
        if not self._memory.changed or not self._loaded:
            return
        self._memory.changed = False
        others, memory = dict(list(self._others.items())[-(MAX_BROKERS - 1) :]), self._memory.copy()
        # A thread's work: of 10,000 devices there are 20,000 topics to go through.
        write = partial(self._write, others, memory)
        if not await asyncio.to_thread(write):
            self._memory.changed = True

    def _write(self, others: dict[str, _Broker], memory: Memory) -> bool:
        return self._file.write_now(msgspec.json.encode(_File(FORMAT, others | {self._broker: memory.stored()})))

    # what belongs there

    def _split(self, topic: str) -> tuple[str, str]:
        """Return a topic as what many have in common with others, and the rest."""
        base = f"{self._topics.base}/"
        if topic.startswith(base):
            level, _, rest = topic[len(base) :].partition("/")
            return base + level, rest
        return topic, ""

    def _is_wanted(self, head: str, rest: str) -> bool:
        """Return whether the settings have something retained there, whoever is there."""
        settings, base = self._settings, f"{self._topics.base}/"
        if settings.payload == "sparkplug":
            return False
        if head.startswith(base) and "/" not in head[len(base) :]:
            what = self._class_of(head[len(base) :], rest)
            return what is not None and settings.sending(what).retain
        own = names.object_id(self._context.gateway_id)
        found = settings.home_assistant
        if head == f"{found.prefix}/device/{own}/config" or head.startswith(f"{found.prefix}/device/{own}_"):
            return found.enabled and settings.sending(TopicClass.DISCOVERY).retain
        answers = settings.sending(TopicClass.RESULT).retain or settings.sending(TopicClass.RESPONSE).retain
        return answers and self._topics.may_answer(f"{head}/{rest}" if rest else head, "")

    def _class_of(self, level: str, rest: str) -> TopicClass | None:
        if level == BRIDGE:
            return TopicClass.RESPONSE if rest.startswith(f"{RESPONSE}/") else TopicClass.BRIDGE
        if level == RESPONSE or (level == AS and f"/{RESPONSE}/" in rest):
            return TopicClass.RESPONSE
        if rest in _CLASSES:
            return _CLASSES[rest]
        if rest in POINTS:
            return TopicClass.POINTS if self._settings.points else None
        return None

    def _is_unknown(self, head: str) -> bool:
        """Return whether a topic is of a device that nobody knows."""
        base = f"{self._topics.base}/"
        if not head.startswith(base) or "/" in head[len(base) :]:
            return False
        serial = unescape(head[len(base) :])
        return serial is not None and self._context.state(serial) is None

    # what is cleared, and when

    async def _queue_misplaced(self) -> None:
        """Have cleared what the settings have no place for; what Home Assistant found goes before what it reads."""
        self._misplaced.clear()
        found = deque[tuple[str, frozenset[str]]]()
        async for head in self._slowly():
            if rests := self._misplaced_of(head):
                (self._waiting if head.endswith("/config") else found).append((head, rests))
        self._waiting.extend(found)

    def _misplaced_of(self, head: str) -> frozenset[str]:
        rests, base = self._memory.of(head), f"{self._topics.base}/"
        is_device = (
            head.startswith(base) and head[len(base) :] not in {BRIDGE, RESPONSE, AS} and "/" not in head[len(base) :]
        )
        known = self._misplaced.get(rests) if is_device else None
        if known is None:
            known = frozenset(rest for rest in rests if not self._is_wanted(head, rest))
            if is_device:
                self._misplaced[rests] = known
        return known

    async def _slowly(self) -> AsyncIterator[str]:
        """Yield the heads of all topics; others on the loop get their turn."""
        for n, head in enumerate(self._memory.heads()):
            if n % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            yield head

    async def _clear(self, head: str, rest: str) -> None:
        topic = f"{head}/{rest}" if rest else head
        if topic in self._under_way or rest not in self._memory.of(head):
            return
        if self._is_wanted(head, rest) and not self._is_unknown(head):
            # It has come back meanwhile.
            return
        if rest == AVAILABILITY or topic.endswith(f"/{BRIDGE}/{STATE}"):
            await self._publish(topic, payloads.OFFLINE, retain=False)
        await self._publish(topic, payloads.CLEARED, retain=True)

    async def _publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        try:
            await self._client.publish(topic, payload, 1, retain)
        except ValueError as error:
            self._context.log.debug("this can't be cleared", topic=topic[:200], error=str(error))

    async def _say_offline(self) -> None:
        sending = self._settings.sending(TopicClass.AVAILABILITY)
        async for head in self._slowly():
            if AVAILABILITY in self._memory.of(head) and self._is_unknown(head) and sending.retain:
                topic = f"{head}/{AVAILABILITY}"
                await self._client.publish(topic, payloads.OFFLINE, sending.qos, sending.retain)

    def _look_around(self) -> None:
        others = [bridge for bridge in self._context.bridges() if bridge.name != self._context.name]
        if not all(bridge.up for bridge in others):
            self._all_up_since = None
        elif self._all_up_since is None:
            self._all_up_since = self._context.clock.monotonic()

    def _all_up_for(self, seconds: float, *, at_last: float | None = None) -> bool:
        now = self._context.clock.monotonic()
        if at_last is not None and now - self._began >= at_last:
            return True
        return self._all_up_since is not None and now - self._all_up_since >= seconds

    def _sleep(self, now: float) -> None:
        """Have the connection's task wake up when there is something to do."""
        if self._waiting:
            self._outbox.wake()
            return
        waits = [] if self._save_at is None else [self._save_at - now]
        if not self._memory.is_empty:
            waits += [] if self._said_offline else [OFFLINE_AFTER / 5]
            waits += [] if self._looked_for_gone else [GONE_AFTER / 10]
        if waits:
            self._timer.within(max(0.05, min(waits)))

    # the file

    def _plan_save(self) -> None:
        if self._memory.changed and self._save_at is None:
            self._save_at = self._context.clock.monotonic() + SAVE_AFTER
            self._timer.within(SAVE_AFTER)

    def _forget(self, topic: str) -> None:
        # A head as it is now, or as it was split under another base.
        for cut in range(topic.count("/") + 1):
            levels = topic.rsplit("/", cut)
            self._memory.remove(levels[0], "/".join(levels[1:]))
        self._plan_save()

    async def _take_over_old(self) -> None:
        """Begin with what an earlier version knew: devices that Home Assistant has found."""
        file = self._file.path.with_name(f"{self._context.name}-home-assistant.json")
        try:
            body = await asyncio.to_thread(file.read_bytes)
            entries = msgspec.json.decode(body, type=dict[str, _OldEntry])
        except (OSError, *BAD_JSON):
            return
        for entry in entries.values():
            if entry.root:
                for rest in ("", DEVICE, AVAILABILITY, TOTALS, *(POINTS if entry.points else ())):
                    self._memory.add(entry.root, rest)

    async def _adopt(self) -> None:
        """Take over what bridges that there are no more retained at this broker: perhaps we had another name."""
        known = {bridge.name for bridge in self._context.bridges()} | {self._context.name}
        for file in await asyncio.to_thread(lambda: sorted(self._file.path.parent.glob(f"*{SUFFIX}"))):
            name = file.name.removesuffix(SUFFIX)
            if name in known:
                continue
            try:
                brokers = (await asyncio.to_thread(files.read, file, _File, FORMAT)).brokers
            except (OSError, *BAD_JSON):
                continue
            if self._broker not in brokers:
                continue
            found = Memory(brokers[self._broker])
            for head, rest in found:
                self._memory.add(*self._split(f"{head}/{rest}" if rest else head))
            await self._queue_misplaced()
            await self.save()
            if self._file.works:
                await asyncio.to_thread(file.unlink, missing_ok=True)
            self._context.log.info("took over what another bridge retained", bridge_before=name, topics=len(found))


_CLASSES: Final = {
    "": TopicClass.STATE,
    DEVICE: TopicClass.DEVICE,
    AVAILABILITY: TopicClass.AVAILABILITY,
    RESULT: TopicClass.RESULT,
}
"""Below `<base>/<device>`."""
