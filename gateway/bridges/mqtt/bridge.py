"""The `mqtt` bridge: wires client, outbox, publisher and commands, and keeps the connection up."""

import asyncio
import random
from typing import ClassVar, Final

from gateway.bridges.mqtt import payloads, troubles
from gateway.bridges.mqtt.client import Client, ConnectError, LostError
from gateway.bridges.mqtt.commands import Commands
from gateway.bridges.mqtt.message import Message
from gateway.bridges.mqtt.outbox import Outbox
from gateway.bridges.mqtt.publisher import Publisher
from gateway.bridges.mqtt.settings import MqttSettings
from gateway.bridges.mqtt.topics import ALARM, Topics
from gateway.core.bridge import BridgeSettings, Context, Updates

RETRY_FIRST: Final = 1.0
RETRY_MOST: Final = 60.0
HEALTHY_AFTER: Final = 30.0
"""Seconds a connection has to hold before the next pause is a first one: two clients with one id kick each
other out at once, for ever."""
SUSPICIOUS: Final = 3
"""Connections in a row that the broker ended soon and without a word."""
GOODBYE_TIMEOUT: Final = 3.0


class MqttBridge:
    """Sink and origin: states out, wishes in."""

    Settings: ClassVar[type[BridgeSettings]] = MqttSettings

    def __init__(self, settings: MqttSettings, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._topics = Topics(settings.base)
        self._client: Client | None = None
        self._outbox: Outbox | None = None
        self._commands: Commands | None = None
        self._fed = asyncio.Event()
        """Set when mail arrives, so steps of commands do from then on."""

    async def start(self) -> None:
        """Begin; returns when the first attempt to connect has succeeded or failed, and is reported."""
        self._fed.clear()
        outbox = self._outbox = Outbox()
        commands = self._commands = Commands(self._context, self._settings.ttl, self._topics, outbox)
        client = self._client = Client(
            self._settings,
            self._settings.client_id or f"sems-gateway-{self._context.gateway_id}",
            Message(topic=self._topics.bridge_state, payload=payloads.OFFLINE, qos=1, retain=True),
            on_message=commands.receive,
            on_lost=outbox.wake,
            log=self._context.log,
        )
        publisher = Publisher(self._settings, self._context, self._topics, client, outbox)
        tried = asyncio.Event()
        self._context.spawn(self._take_requests(commands), "requests")
        self._context.spawn(self._run(client, publisher, outbox, tried), "connection")
        await tried.wait()

    async def stop(self) -> None:
        """Publish `offline` and disconnect."""
        client, self._client = self._client, None
        if client is None:
            return
        if client.connected:
            try:
                async with asyncio.timeout(GOODBYE_TIMEOUT):
                    await client.publish(self._topics.bridge_state, payloads.OFFLINE, 1, retain=True)
            except (TimeoutError, LostError):
                pass
        await client.disconnect(GOODBYE_TIMEOUT)

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
        self._fed.set()

    async def _take_requests(self, commands: Commands) -> None:
        # Before that, their results would go past us.
        await self._fed.wait()
        await commands.run()

    async def _run(self, client: Client, publisher: Publisher, outbox: Outbox, tried: asyncio.Event) -> None:
        """Keep up the connection, for ever."""
        started = self._context.clock.now()
        pause = RETRY_FIRST
        hung_up = 0
        """How many connections in a row ended soon and without a word."""
        try:
            while True:
                began = self._context.clock.monotonic()
                try:
                    await client.connect()
                    await publisher.introduce(started)
                    await self._subscribe(client)
                    tried.set()
                    await publisher.begin()
                    while True:
                        await publisher.flush()
                        await outbox.wait()
                        client.check()
                except ConnectError as error:
                    trouble, wordless = str(error), False
                except LostError as error:
                    trouble, wordless = str(error), str(error) == troubles.HUNG_UP
                outbox.close(client.take_back())
                healthy = self._context.clock.monotonic() - began > HEALTHY_AFTER
                hung_up = hung_up + 1 if wordless and not healthy else 0
                if hung_up >= SUSPICIOUS:
                    # Not every broker says so when another client takes over the id.
                    trouble += f" {hung_up} times soon after accepting us; does another client have the id {client.id}?"
                where = f"{self._settings.host}:{self._settings.port}"
                self._context.report(up=False, detail=f"broker {where} {trouble}; trying again")
                tried.set()
                if healthy:
                    pause = RETRY_FIRST
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
                pause = min(pause * 2, RETRY_MOST)
        finally:
            tried.set()

    async def _subscribe(self, client: Client) -> None:
        refused = await client.subscribe(self._topics.sets)
        if refused:
            self._context.log.warning("the broker refuses a subscription, so no wishes arrive", topics=refused)
        self._context.report(up=True, detail=f"the broker refuses to let us listen to {refused[0]}" if refused else "")
