"""Publishes what waits in the outbox: the only writer while there is a connection."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Final

import msgspec

from gateway.api.bridge import Context
from gateway.bridges.mqtt import payloads
from gateway.bridges.mqtt.client import Client, LostError
from gateway.bridges.mqtt.delivery import TopicClass
from gateway.bridges.mqtt.formats import format_of
from gateway.bridges.mqtt.history.history import History
from gateway.bridges.mqtt.home_assistant.discovery import Discovery
from gateway.bridges.mqtt.outbox import Outbox
from gateway.bridges.mqtt.settings import MqttSettings
from gateway.bridges.mqtt.topics import AVAILABILITY, DEVICE, Topics
from gateway.core.model import DeviceState, Origin, Quality, Value
from gateway.core.points import POINTS

RESULTS_PER_TURN: Final = 50
QUEUED_PER_TURN: Final = 1000
"""States that are queued in a turn of the loop, after a connection was made: half a millisecond."""
STATES_PER_TURN: Final = 20
"""Neither a flood of commands nor one of data keeps the other waiting."""


class _Shown(msgspec.Struct, gc=False):
    """What the broker holds of a device since this connection began."""

    root: str
    state: DeviceState


class Publisher:
    """Knows what the broker was told, so that what changes seldom is told when it changes."""

    def __init__(
        self,
        settings: MqttSettings,
        context: Context,
        topics: Topics,
        client: Client,
        outbox: Outbox,
        discovery: Discovery,
        history: History | None = None,
    ) -> None:
        self._settings = settings
        self._sending = {what: settings.sending(what) for what in TopicClass}
        self._discovery = discovery
        self._history = history
        self._context = context
        self._topics = topics
        self._client = client
        self._outbox = outbox
        self._shown: dict[str, _Shown] = {}
        self._counts: Counter[Quality] = Counter()
        self._complained = False
        self._format = format_of(settings.payload)
        self._started = context.clock.now()
        """When the bridge was."""

    async def introduce(self, started: datetime) -> None:
        """Say who is there. Raises LostError."""
        self._started = started
        await self._tell_info()
        await self._tell(TopicClass.BRIDGE, self._topics.bridge_state, payloads.ONLINE)

    async def begin(self) -> None:
        """Have everything published that is known: the broker may have forgotten it. Raises LostError."""
        while self._outbox.removed:
            await self._clear(self._outbox.removed.pop())
        await self._discovery.begin()
        await self._show_anew()

    async def _show_anew(self) -> None:
        self._shown.clear()
        self._counts.clear()
        await asyncio.sleep(0)
        states = self._context.states()
        self._outbox.open(())
        for n, state in enumerate(states, 1):
            self._outbox.begin_with(state)
            if n % QUEUED_PER_TURN == 0:
                await asyncio.sleep(0)

    async def flush(self) -> None:
        """Publish until the outbox is empty. Raises LostError."""
        box = self._outbox
        if await self._discovery.flush():
            await self._tell(TopicClass.BRIDGE, self._topics.bridge_state, payloads.ONLINE)
            await self._show_anew()
        while box.filled:
            for _ in range(min(box.waiting, RESULTS_PER_TURN)):
                await self._send_result()
            box.results_taken()
            while box.removed:
                await self._clear(box.removed.pop())
            for _ in range(min(len(box.states), STATES_PER_TURN)):
                if box.states:
                    await self._show(box.states.popitem(last=False)[1])
                    box.state_shown()
            if box.info_changed:
                await self._tell_info()
            if box.health_changed and not box.states:
                await self._tell_health()

    async def _send_result(self) -> None:
        message = self._outbox.next_result()
        if message is None:
            return
        try:
            sent = await self._client.send(message)
        except LostError:
            self._outbox.put_back(message)
            raise
        if not sent:
            self._outbox.dropped_results += 1
            self._outbox.health_changed = True

    async def _show(self, state: DeviceState) -> None:
        serial = state.device.serial
        known = self._shown.get(serial)
        if known is not None and known.state is state:
            # The mailbox begins with all that is known, and so did we.
            return
        root = known.root if known else self._topics.root(serial)
        self._count(known, state)
        try:
            if known is None or known.state.device != state.device:
                permitted = self._context.permitted(state.device, Origin(self._context.name))
                await self._tell(TopicClass.DEVICE, f"{root}/{DEVICE}", payloads.device(state.device, permitted))
            sending = self._sending[TopicClass.STATE]
            done = self._history.shown(state) if self._history else None
            await self._client.publish(root, self._format.state(state), sending.qos, sending.retain, done=done)
            if self._settings.points:
                await self._show_points(root, known.state.values if known else {}, state.values)
            if known is None or known.state.quality is not state.quality:
                await self._tell(
                    TopicClass.AVAILABILITY, f"{root}/{AVAILABILITY}", payloads.availability(state.quality)
                )
            self._discovery.show(state)
        except ValueError as error:
            # What no encoding can carry.
            self._complain(root, error)
        self._shown[serial] = _Shown(root, state)

    async def _show_points(self, root: str, before: Mapping[str, Value], after: Mapping[str, Value]) -> None:
        for name in before.keys() | after.keys():
            value = after.get(name)
            if name not in before or value != before[name]:
                await self._tell(TopicClass.POINTS, f"{root}/{name}", self._format.point(value))

    def _count(self, known: _Shown | None, state: DeviceState) -> None:
        if known is not None:
            if known.state.quality is state.quality:
                return
            self._counts[known.state.quality] -= 1
        self._counts[state.quality] += 1
        self._outbox.health_changed = True

    async def _clear(self, serial: str) -> None:
        """Say that a device is gone, then make the broker forget it."""
        known = self._shown.pop(serial, None)
        root = known.root if known else self._topics.root(serial)
        if known is not None:
            self._counts[known.state.quality] -= 1
            self._outbox.health_changed = True
        topics = [f"{root}/{AVAILABILITY}", root, f"{root}/{DEVICE}"]
        if self._settings.points:
            topics += [f"{root}/{point}" for point in (known.state.values if known else POINTS)]
        try:
            # First of all: Home Assistant complains of an empty state as long as it knows the device.
            await self._discovery.clear(serial)
            qos = self._sending[TopicClass.AVAILABILITY].qos
            await self._client.publish(topics[0], payloads.OFFLINE, qos, retain=False)
            for topic in topics:
                await self._client.publish(topic, payloads.CLEARED, qos, retain=True)
        except LostError:
            self._outbox.removed.add(serial)
            raise

    async def _tell_info(self) -> None:
        self._outbox.info_changed = False
        info = payloads.info(self._topics, self._context.gateway_id, self._started, self._context.halted)
        await self._tell(TopicClass.BRIDGE, self._topics.bridge_info, info)

    async def _tell_health(self) -> None:
        self._outbox.health_changed = False
        body = payloads.health(
            self._context.clock.now(),
            self._context.bridges(),
            self._counts,
            self._outbox.dropped_results,
            self._outbox.dropped_history,
        )
        await self._tell(TopicClass.BRIDGE, self._topics.bridge_health, body)
        self._discovery.bridges_changed()

    async def _tell(self, what: TopicClass, topic: str, payload: bytes) -> None:
        sending = self._sending[what]
        await self._client.publish(topic, payload, sending.qos, sending.retain)

    def _complain(self, topic: str, error: ValueError) -> None:
        if not self._complained:
            self._complained = True
            self._context.log.warning("this can't be published", topic=topic[:200], error=str(error))
