"""Sees to it that every snapshot reaches the broker and is acknowledged: as the state of its device, or as history.

A snapshot is shown when a state message with its time and source has been acknowledged. One that is not, soon, goes to
disk: the broker is away or slow, or newer data came first. From there it is sent to `<base>/<device>/history`, oldest
first, once no live data wait; only when that is acknowledged too is it forgotten.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Final

from gateway.api.contexts import BaseContext
from gateway.bridges.mqtt import payloads
from gateway.bridges.mqtt.client import Client
from gateway.bridges.mqtt.history.settings import StoreSettings
from gateway.bridges.mqtt.history.store import Store, StoreError
from gateway.bridges.mqtt.outbox import Outbox
from gateway.bridges.mqtt.topics import HISTORY, Topics
from gateway.core.clock import set_within
from gateway.core.metrics import Metrics, counter, gauge
from gateway.core.model import DeviceState, Snapshot

PATIENCE: Final = 0.1
"""Seconds that the broker has to acknowledge a state before its snapshot is written to disk. Steps of commands may have
to wait as long, for they come by the same mail."""
BATCH: Final = 20
"""Messages sent before live data get their turn again."""
BACKLOG: Final = 20_000
"""Snapshots that the core keeps for us in memory while the disk is slow."""

Key = tuple[str, datetime | None, str]
"""Device, time, source."""


class History:
    """Store and forward of one bridge."""

    def __init__(self, settings: StoreSettings, context: BaseContext, topics: Topics, outbox: Outbox) -> None:
        self._settings = settings
        self._context = context
        self._topics = topics
        self._outbox = outbox
        self.store = Store(context.data_dir / f"{context.name}-history.sqlite", settings.max_bytes, settings.max_age)
        self._connected = False
        self._doubtful: dict[Key, Snapshot] = {}
        """Given to us, and neither acknowledged nor on disk."""
        self._settled = asyncio.Event()
        """Set when nothing is doubtful any more, or nothing will be acknowledged."""
        self._on_disk: dict[str, tuple[Key, int]] = {}
        """Serial → its newest snapshot on disk and that one's number: its state may still be acknowledged."""
        self._done: list[int] = []
        """Numbers of those that are acknowledged, to be removed."""
        self._under_way = 0
        self._sent_to = 0
        """Number of the last one sent over this connection."""
        self._aside: set[str] = set()
        """Serials of devices whose history the broker can't bear; it stays on disk, and over each connection one is
        tried."""
        self._next = 0.0
        """Monotonic time from which on more may be sent."""
        self._lost = 0
        """Snapshots dropped for other reasons than the store's limits."""
        self._failing = False

    @property
    def dropped(self) -> int:
        """How many snapshots will never be published, since the bridge was started."""
        return self.store.dropped + self._lost

    @property
    def waiting(self) -> int:
        """How many wait on disk."""
        return self.store.waiting

    async def open(self) -> None:
        """Open the file. Raises OSError."""
        if not await self.store.open():
            self._tell_damage("")
        METRICS.watch(self._context.name, self)

    async def close(self) -> None:
        """Write down what is not acknowledged and what is done, and close the file."""
        METRICS.forget(self._context.name)
        if self._doubtful:
            await self._write_down(list(self._doubtful.values()))
        await self._tidy()
        await self.store.close()

    # what the connection says

    def connected(self) -> None:
        """Expect acknowledgements from now on."""
        self._connected = True
        self._aside.clear()

    def disconnected(self) -> None:
        """Expect none any more: what is doubtful goes to disk, and what was sent may have to be sent again."""
        self._connected = False
        self._sent_to = self._under_way = 0
        self._settled.set()

    # live data

    async def keep(self, snapshots: Sequence[Snapshot]) -> None:
        """Return when each of these is acknowledged or on disk."""
        if self._connected:
            self._doubtful = {(s.serial, s.time, s.source): s for s in snapshots}
            self._settled.clear()
            await set_within(self._settled, PATIENCE)
            snapshots = list(self._doubtful.values())
            self._doubtful = {}
        if snapshots:
            await self._write_down(snapshots)

    def shown(self, state: DeviceState) -> Callable[[bool], None]:
        """Return what to call when this state's message is acknowledged."""
        return partial(self._acknowledged, (state.device.serial, state.time, state.source))

    def _acknowledged(self, key: Key, accepted: bool) -> None:
        if not accepted:
            return
        self._doubtful.pop(key, None)
        if not self._doubtful:
            self._settled.set()
        newest = self._on_disk.get(key[0])
        if newest is not None and newest[0] == key:
            del self._on_disk[key[0]]
            self._done.append(newest[1])

    async def _write_down(self, snapshots: Sequence[Snapshot]) -> None:
        rows = [(s.serial, payloads.snapshot(s)) for s in snapshots]
        try:
            seqs = await self.store.add(rows, self._context.clock.boot())
        except StoreError as error:
            # Live data go on; that the disk is full is no reason to stop them.
            self._lost += len(rows)
            self._fail(error)
            self._tell_dropped()
            return
        self._failing = False
        self._tell_dropped()
        for seq, one in zip(seqs, snapshots, strict=True):
            self._on_disk[one.serial] = (one.serial, one.time, one.source), seq
        self._outbox.wake()

    # history

    async def send(self, client: Client) -> float | None:
        """Send some of what waits, when its time has come; return in how many seconds to call again, None: on news.

        Raises LostError.
        """
        await self._tidy()
        if not self.waiting or self._under_way >= BATCH:
            return None
        now = self._context.clock.monotonic()
        if now < self._next:
            return self._next - now
        try:
            rows = await self.store.oldest(BATCH, self._sent_to, self._context.clock.boot(), without=self._aside)
        except StoreError as error:
            self._fail(error)
            return 1.0
        self._tell_dropped()
        for row in rows:
            if row.serial in self._aside:
                continue
            self._under_way += 1
            self._sent_to = row.seq
            topic = f"{self._topics.root(row.serial)}/{HISTORY}"
            told = partial(self._told, row.seq)
            if not await client.publish(topic, row.body, 1, retain=False, unique=True, done=told):
                self._under_way -= 1
                self._aside.add(row.serial)
        # What is kept from a broker that can't bear it waits on disk, and is not looked for at each news.
        pause = len(rows) / self._settings.rate if rows or not self._aside else 1.0
        self._next = max(self._next, now - 1) + pause
        return max(0.0, self._next - self._context.clock.monotonic()) if rows else None

    def _told(self, seq: int, accepted: bool) -> None:
        self._under_way -= 1
        self._done.append(seq)
        if not accepted:
            # The broker would refuse it again.
            self._lost += 1
            self._tell_dropped()
        if not self._under_way:
            self._outbox.wake()

    async def _tidy(self) -> None:
        """Forget what is done."""
        if not self._done:
            return
        done, self._done = self._done, []
        try:
            await self.store.remove(done)
        except StoreError as error:
            self._done = done + self._done
            self._fail(error)

    def _tell_dropped(self) -> None:
        if self._outbox.dropped_history != self.dropped:
            self._outbox.dropped_history = self.dropped
            self._outbox.health_changed = True
            self._outbox.wake()

    def _tell_damage(self, why: str) -> None:
        self._context.log.error(
            "the history was damaged, and is begun anew with what could be read of it",
            old=f"{self.store.path}.broken",
            waiting=self.store.waiting,
            **({"error": why} if why else {}),
        )

    def _fail(self, error: StoreError) -> None:
        if self.store.begun_anew:
            why, self.store.begun_anew = self.store.begun_anew, ""
            self._tell_damage(why)
            return
        if not self._failing:
            self._failing = True
            self._context.log.error("store and forward fails; live data go on", error=str(error))


METRICS: Final = Metrics[History](
    gauge(
        "sems_gateway_mqtt_history_waiting",
        "snapshots on disk that the broker has yet to get",
        lambda history: history.waiting,
    ),
    counter(
        "sems_gateway_mqtt_history_dropped", "snapshots dropped, the oldest first", lambda history: history.dropped
    ),
)
