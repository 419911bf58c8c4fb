"""The `mqtt` bridge: wires client, outbox, publisher and commands, and keeps the connection up.

With `payload: sparkplug` an `EdgeNode` stands in for publisher and commands.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar, Final

from gateway.api.bridge import BridgeSettings, Context
from gateway.bridges.mqtt import payloads, troubles
from gateway.bridges.mqtt.bridge_requests import BridgeRequests
from gateway.bridges.mqtt.client import Client, ConnectError, LostError
from gateway.bridges.mqtt.commands import Commands
from gateway.bridges.mqtt.delivery import TopicClass
from gateway.bridges.mqtt.history.history import BACKLOG, History
from gateway.bridges.mqtt.home_assistant.discovery import Discovery
from gateway.bridges.mqtt.inbox import Inbox
from gateway.bridges.mqtt.message import Message
from gateway.bridges.mqtt.outbox import Outbox
from gateway.bridges.mqtt.probe import probe_broker
from gateway.bridges.mqtt.publisher import Publisher
from gateway.bridges.mqtt.retained import Retained
from gateway.bridges.mqtt.settings import MqttSettings
from gateway.bridges.mqtt.topics import ALARM, Topics
from gateway.bridges.mqtt.unsent import METRICS as UNSENT_METRICS
from gateway.config.host import at
from gateway.core.mailbox import Updates
from gateway.core.probe import Probe

if TYPE_CHECKING:
    from gateway.bridges.mqtt.sparkplug.node import EdgeNode

RETRY_FIRST: Final = 1.0
MAX_RETRY_SECONDS: Final = 60.0
HEALTHY_AFTER: Final = 30.0
"""Seconds a connection has to hold before the next pause is a first one: two clients with one id kick each
other out at once, for ever."""
SUSPICIOUS: Final = 3
"""Connections in a row that the broker ended soon and without a word."""
GOODBYE_TIMEOUT: Final = 3.0


class MqttBridge:
    """Sink and origin: states out, requests in. With `store` one that keeps history."""

    backlog: int
    """There only with `store`, for it makes a `HistorySink` of this."""

    Settings: ClassVar[type[BridgeSettings]] = MqttSettings

    def __init__(self, settings: MqttSettings, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._topics = Topics(settings.base, settings.users, settings.response_topics)
        self._client: Client | None = None
        self._outbox: Outbox | None = None
        self._node: EdgeNode | None = None
        self._commands: Commands | EdgeNode | None = None
        self._inbox: Inbox | None = None
        self._history: History | None = None
        self._retained: Retained | None = None
        if settings.store.enabled:
            self.backlog = BACKLOG
        self._subscribed = False
        """Whether the bridge is up, as far as the broker is concerned."""
        self._fed = asyncio.Event()
        """Set when mail arrives, so steps of commands do from then on."""

    def probe(self) -> AsyncIterator[Probe]:
        """See `Probing`."""
        return probe_broker(self._settings, self._context)

    @property
    def where(self) -> str:
        """For the line at start."""
        return at(self._settings.host, self._settings.port)

    async def start(self) -> None:
        """Begin; returns when the first attempt to connect has succeeded or failed, and is reported."""
        self._fed.clear()
        outbox = self._outbox = Outbox()
        if self._settings.store.enabled:
            self._history = History(self._settings.store, self._context, self._topics, outbox)
            await self._history.open()
        node = self._node = self._edge_node(outbox) if self._settings.payload == "sparkplug" else None
        client = self._client = Client(
            self._settings,
            self._settings.client_id_for(self._context.gateway_id),
            self._offline,
            on_message=node.receive if node else self._receive,
            on_lost=outbox.wake,
            clock=self._context.clock,
            log=self._context.log,
            on_unsent=outbox.wake,
        )
        UNSENT_METRICS.watch(self._context.name, client.unsent)
        retained = self._retained = Retained(self._settings, self._context, self._topics, client, outbox)
        client.on_retained = retained.note
        if node is not None:
            node.use(client)
            commands: Commands | EdgeNode = node
            publisher: Publisher | EdgeNode = node
        else:
            commands, publisher = self._wire(client, outbox)
        self._commands = commands
        tried = asyncio.Event()
        self._context.spawn(self._take_requests(commands), "requests")
        self._context.spawn(self._run(client, publisher, outbox, tried), "connection")
        await tried.wait()

    def _wire(self, client: Client, outbox: Outbox) -> tuple[Commands, Publisher]:
        """Build what speaks JSON."""
        settings, context, topics = self._settings, self._context, self._topics
        commands = Commands(context, settings.ttl, topics, outbox, settings.sending(TopicClass.RESULT))
        discovery = Discovery(settings, context, topics, client, outbox)
        requests = BridgeRequests(settings, context, topics, outbox, client.room)
        self._inbox = Inbox(settings, topics, commands, requests, discovery)
        return commands, Publisher(settings, context, topics, client, outbox, discovery, self._history)

    def _receive(self, message: Message) -> None:
        if self._inbox is not None:
            self._inbox.receive(message)

    @property
    def _offline(self) -> Message:
        """The will, and the last word."""
        sending = self._settings.sending(TopicClass.BRIDGE)
        topic = self._topics.bridge_state
        return Message(topic=topic, payload=payloads.OFFLINE, qos=sending.qos, retain=sending.retain)

    async def stop(self) -> None:
        """Publish `offline` and disconnect."""
        client, self._client = self._client, None
        if client is not None:
            UNSENT_METRICS.forget(self._context.name)
            await self._say_goodbye(client)
        if self._retained is not None:
            await self._retained.save()
        history, self._history = self._history, None
        if history is not None:
            await history.close()

    async def _say_goodbye(self, client: Client) -> None:
        if self._node is not None:
            await self._node.say_goodbye(GOODBYE_TIMEOUT)
        elif client.connected:
            with suppress(TimeoutError, LostError):
                async with asyncio.timeout(GOODBYE_TIMEOUT):
                    await self._say_the_rest(client)
                    last = self._offline
                    await client.publish(last.topic, last.payload, last.qos, last.retain)
        await client.disconnect(GOODBYE_TIMEOUT)

    async def _say_the_rest(self, client: Client) -> None:
        """Send the answers that wait, e.g. to who asked for this bridge's restart. Raises LostError."""
        if self._outbox is not None:
            # Nothing goes before the answers now.
            self._outbox.states.clear()
        while self._outbox is not None and (message := self._outbox.next_result()) is not None:
            await client.send(message)

    async def deliver(self, updates: Updates) -> None:
        """Take the mail over at once; the outbox conflates just as the mailbox does."""
        if self._outbox is None or self._commands is None:
            return
        for event in updates.events:
            self._commands.step(event)
        for alarm in updates.alarms:
            body = payloads.alarm(alarm, self._context.clock.now())
            self._outbox.put_result(Message(topic=f"{self._topics.root(alarm.serial)}/{ALARM}", payload=body))
        self._outbox.put(updates)
        if self._retained is not None:
            self._retained.gone(updates.removed)
        self._fed.set()
        if self._history is not None and updates.snapshots:
            await self._history.keep(updates.snapshots)

    def _edge_node(self, outbox: Outbox) -> "EdgeNode":
        from gateway.bridges.mqtt.sparkplug.node import EdgeNode  # noqa: PLC0415 - brings protobuf, which JSON needs not

        return EdgeNode(self._settings, self._context, outbox, self._report)

    async def _take_requests(self, commands: "Commands | EdgeNode") -> None:
        # Before that, their results would go past us.
        await self._fed.wait()
        await commands.run()

    async def _run(
        self, client: Client, publisher: "Publisher | EdgeNode", outbox: Outbox, tried: asyncio.Event
    ) -> None:
        """Keep up the connection, for ever."""
        started = self._context.clock.now()
        pause = RETRY_FIRST
        hung_up = 0
        """How many connections in a row ended soon and without a word."""
        try:
            while True:
                began = self._context.clock.monotonic()
                try:
                    if self._node is not None:
                        client.will = await self._node.next_will()
                    if self._retained is not None:
                        await self._retained.prepare()
                    await client.connect()
                    await publisher.introduce(started)
                    await self._subscribe(client)
                    tried.set()
                    await publisher.begin()
                    if self._retained is not None:
                        await self._retained.begin()
                    if self._history is not None:
                        self._history.connected()
                    while True:
                        if client.unsent.news:
                            client.unsent.news = False
                            self._report()
                        await publisher.flush()
                        if self._retained is not None:
                            await self._retained.flush()
                        await self._make_up(client, outbox)
                        client.check()
                except ConnectError as error:
                    trouble, wordless = str(error), False
                except LostError as error:
                    trouble, wordless = str(error), str(error) == troubles.HUNG_UP
                self._subscribed = False
                outbox.close(client.take_back())
                if self._history is not None:
                    self._history.disconnected()
                healthy = self._context.clock.monotonic() - began > HEALTHY_AFTER
                hung_up = hung_up + wordless if not healthy else 0
                if wordless and hung_up >= SUSPICIOUS:
                    # Not every broker says so when another client takes over the id.
                    trouble += f" {hung_up} times soon after accepting us; does another client have the id {client.id}?"
                where = f"{self._settings.host}:{self._settings.port}"
                self._context.report(up=False, detail=f"broker {where} {trouble}; trying again")
                tried.set()
                if healthy:
                    pause = RETRY_FIRST
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
                pause = min(pause * 2, MAX_RETRY_SECONDS)
        finally:
            tried.set()

    async def _make_up(self, client: Client, outbox: Outbox) -> None:
        """Send some of the history, and wait for news or until more of it may be sent. Raises LostError."""
        pause = None if self._history is None else await self._history.send(client)
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await outbox.wait()

    async def _subscribe(self, client: Client) -> None:
        inbox = self._inbox
        if inbox is not None:
            await client.subscribe(inbox.filters, inbox.fresh)
            await inbox.mark_backlog(client)
        else:
            await client.subscribe(self._node.filters if self._node else ())
        self._subscribed = True
        self._report()

    def _report(self) -> None:
        """Say how the connection does: what keeps it from being of use, and what the broker does not take."""
        client = self._client
        if client is None or not self._subscribed:
            return
        waits_for = self._node.waits_for if self._node else ""
        details = [text for text in (waits_for, client.unsent.detail) if text]
        up = not waits_for and not (self._node and self._node.stillborn)
        self._context.report(up=up, detail="; ".join(details))
