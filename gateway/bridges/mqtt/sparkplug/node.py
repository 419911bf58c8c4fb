"""The gateway as a Sparkplug edge node: its birth, what it says while it lives, and its death.

Stands in for the JSON publisher and its commands, so its methods are theirs: `introduce` and `begin` after each
connect, `flush` whenever there is news.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Final

from gateway.api.bridge import Context
from gateway.bridges.mqtt.client import Client, LostError
from gateway.bridges.mqtt.message import Message
from gateway.bridges.mqtt.outbox import Outbox
from gateway.bridges.mqtt.settings import MqttSettings
from gateway.bridges.mqtt.sparkplug import metrics, payload
from gateway.bridges.mqtt.sparkplug.commands import Commands
from gateway.bridges.mqtt.sparkplug.devices import Devices
from gateway.bridges.mqtt.sparkplug.host import PrimaryHost, StateError
from gateway.bridges.mqtt.sparkplug.metrics import fate_of
from gateway.bridges.mqtt.sparkplug.payload import NODE_REBIRTH, CommandError, Metric
from gateway.bridges.mqtt.sparkplug.schema import DataType
from gateway.bridges.mqtt.sparkplug.session import Aliases, BirthDeath, Line
from gateway.bridges.mqtt.sparkplug.topics import MessageType, SparkplugTopics
from gateway.core.model import CommandEvent, Value
from gateway.core.timer import Timer

STEPS_PER_TURN: Final = 50
STATES_PER_TURN: Final = 20
"""Neither a flood of commands nor one of data keeps the other waiting."""
REBIRTH_PAUSE: Final = 1.0
"""Seconds from the end of a birth to the next that a host asks for; or, where that is longer, twice what the birth
took. So a host that asks for ever gets births for a third of the time at most."""
LEAVE_TIMEOUT: Final = 3.0


class EdgeNode:
    """One edge node over one client."""

    def __init__(
        self, settings: MqttSettings, context: Context, outbox: Outbox, report: Callable[[], None] = lambda: None
    ) -> None:
        who = settings.sparkplug
        node = who.node or context.gateway_id
        self._context = context
        self._outbox = outbox
        self._report = report
        """Has the bridge say how it does."""
        self._topics = SparkplugTopics(who.group, node, who.primary_host)
        self._aliases = Aliases()
        self._types_in_data = who.types_in_data
        self._devices = Devices(context, outbox, self._aliases, types_in_data=who.types_in_data)
        self._commands = Commands(context, settings.ttl, self._aliases, self._devices)
        self._host_id = who.primary_host
        self._host = PrimaryHost() if who.primary_host else None
        self._bd_seqs = BirthDeath(
            context.data_dir / f"{context.name}-sparkplug.json", f"{who.group}/{node}", context.log
        )
        self._bd_seq = -1
        self._opened = -1
        """The client's count of connections when `_bd_seq` was drawn."""
        self._client: Client | None = None
        self._line: Line | None = None
        self._born = False
        self._rebirth_wanted = False
        self._leave_wanted = False
        self.stillborn = False
        """Whether the broker does not take the NBIRTH, so that nothing may be said."""
        self._rebirth_from = 0.0
        """Monotonic time before which no rebirth begins."""
        self._timer = Timer(outbox.wake)
        """Ends the pause before a rebirth."""
        self._shown: dict[str, tuple[DataType, Value]] = {}
        """The node's own metrics, as they were published."""

    # what the bridge calls

    @property
    def filters(self) -> tuple[str, ...]:
        """What to subscribe to."""
        return self._topics.filters

    @property
    def waits_for(self) -> str:
        """What keeps the node from being born, in words; empty when nothing does."""
        if self._host is None or self._host.online:
            return ""
        return f"waits for the primary host {self._host_id} to say at {self._topics.state} that it is online"

    def use(self, client: Client) -> None:
        """Speak over this client."""
        self._client = client
        self._line = Line(client, self._topics, self._context.clock)

    async def next_will(self) -> Message:
        """Return the NDEATH of the connection that will be tried next; each CONNECT has a bdSeq of its own."""
        if self._opened != self._connected.opened:
            self._bd_seq = await asyncio.to_thread(self._bd_seqs.next)
            self._opened = self._connected.opened
        return self._death()

    def receive(self, message: Message) -> None:
        """Take any message of a topic that we subscribed to."""
        if message.topic == self._topics.state:
            self._hear_host(message)
            return
        topic = self._topics.parse_command(message.topic)
        if topic is None:
            return
        if message.retain:
            if message.payload:  # else it is what clears one
                self._commands.complain("it is retained, so it would be executed again and again", topic.device or "")
        elif topic.device is None:
            self._obey(message)
        else:
            self._commands.receive(topic.device, message)

    async def run(self) -> None:
        """Submit what hosts have asked for, for ever."""
        await self._commands.run()

    def step(self, event: CommandEvent) -> None:
        """Show a step of a command, whoever asked for it."""
        self._devices.put_fate(event.command.serial, event.command.setpoint, fate_of(event))

    async def introduce(self, started: datetime) -> None:  # noqa: ARG002 - an NBIRTH has no such field
        """Forget the last session: an NBIRTH is the first thing we say [principles-birth-certificates-order]."""
        self._born = self._rebirth_wanted = self._leave_wanted = self.stillborn = False
        if self._host is not None:
            self._host.forget()

    async def begin(self) -> None:
        """Begin a session: births follow, as soon as the primary host is there."""
        self._outbox.open(())
        # Else the loop would wait for news first.
        self._outbox.wake()

    async def flush(self) -> None:
        """Say all there is to say. Raises LostError."""
        while True:
            if self._born and (self._leave_wanted or self.waits_for):
                await self._leave()
            if self.stillborn:
                return
            if not self._born:
                if self._host is not None and not self._host.online:
                    return
                await self._birth()
            elif self._rebirth_wanted:
                # Until then no data either [operational-behavior-data-commands-rebirth-action-1].
                pause = self._rebirth_from - self._context.clock.monotonic()
                if pause > 0:
                    self._timer.set(pause)
                    return
                await self._birth()
            elif not await self._turn():
                return

    async def say_goodbye(self, timeout: float) -> None:
        """Publish the NDEATH and disconnect [operational-behavior-edge-node-intentional-disconnect-ndeath]."""
        client = self._connected
        if client.connected and self._born:
            self._born = False
            death = self._death()
            with suppress(TimeoutError, LostError):
                async with asyncio.timeout(timeout):
                    await client.publish(death.topic, death.payload, death.qos, retain=False)
        # As [payloads-ndeath-will-message-publisher-disconnect-mqtt50] demands.
        await client.disconnect(timeout, with_will=True)

    # births, data, death

    @property
    def _connected(self) -> Client:
        if self._client is None:
            raise RuntimeError("use() comes first")
        return self._client

    @property
    def _speaking(self) -> Line:
        if self._line is None:
            raise RuntimeError("use() comes first")
        return self._line

    def _death(self) -> Message:
        return Message(topic=self._topics.of(MessageType.NDEATH), payload=payload.node_death(self._bd_seq), qos=1)

    async def _birth(self) -> None:
        """Publish NBIRTH, then a DBIRTH of each device with good data, and nothing between [payloads-dbirth-order]."""
        began = self._context.clock.monotonic()
        line = self._speaking
        # The host may go, and come back, while the NBIRTH is on its way.
        self._rebirth_wanted = self._leave_wanted = False
        self._outbox.open(())
        serials = self._devices.begin()
        line.restart()
        if not await self._birth_of_node(line):
            # Without it nothing else may be said. The next connection may have other limits.
            self.stillborn = True
            self._report()
            return
        self._born = True
        for serial in serials:
            await self._devices.bear(line, serial)
            await asyncio.sleep(0)  # a birth takes a while to put together
        ended = self._context.clock.monotonic()
        self._rebirth_from = ended + max(REBIRTH_PAUSE, 2 * (ended - began))
        if self._host is not None:
            self._report()

    async def _birth_of_node(self, line: Line) -> bool:
        """Publish the NBIRTH; return whether the broker takes it. Raises LostError."""
        all_ = list(self._metrics(self._context.clock.now()))
        self._shown = {metric.name: (metric.datatype, metric.value) for metric in all_}
        self._outbox.health_changed = False

        def encode(now: datetime, seq: int, *, described: bool = True) -> bytes:
            return payload.birth(now, seq, all_, self._alias, described=described)

        return await line.say(MessageType.NBIRTH, None, encode, partial(encode, described=False))

    async def _turn(self) -> bool:
        """Say some of what waits; return whether there was any."""
        box, line = self._outbox, self._speaking
        if not (self._devices.filled or box.states or box.removed or box.health_changed):
            return False
        await self._devices.show_steps(line, STEPS_PER_TURN)
        while box.removed:
            await self._devices.remove(line, box.removed.pop())
        for _ in range(min(len(box.states), STATES_PER_TURN)):
            if box.states:
                await self._devices.show(line, box.states.popitem(last=False)[1])
        if box.health_changed and not box.states:
            await self._show_health(line)
        await asyncio.sleep(0)  # commands get their turn
        return True

    async def _show_health(self, line: Line) -> None:
        self._outbox.health_changed = False
        changes = []
        for metric in metrics.of_health(
            self._context.bridges(),
            self._devices.counts,
            self._context.clock.now(),
            halted=self._context.halted is not None,
        ):
            if metric.name not in self._shown:
                # E.g. a bridge that was not up yet; what a birth does not name can't be published.
                self._rebirth_wanted = True
                return
            if self._shown[metric.name] != (metric.datatype, metric.value):
                self._shown[metric.name] = metric.datatype, metric.value
                changes.append(metric)
        if changes:
            typed = self._types_in_data
            await line.say(
                MessageType.NDATA, None, lambda now, seq: payload.data(now, seq, changes, self._alias, typed=typed)
            )

    def _metrics(self, now: datetime) -> list[Metric]:
        context = self._context
        halted = context.halted is not None
        return list(
            metrics.of_node(
                context.gateway_id, self._bd_seq, context.bridges(), self._devices.counts, now, halted=halted
            )
        )

    def _alias(self, name: str) -> int | None:
        # As [operational-behavior-data-commands-rebirth-name-aliases] demands.
        return None if name == NODE_REBIRTH else self._aliases.number("", name)

    async def _leave(self) -> None:
        """End the session, for the primary host has ended its own. Raises LostError, always."""
        await self.say_goodbye(LEAVE_TIMEOUT)
        raise LostError(f"was left, for the primary host {self._host_id} is offline")

    # what hosts say

    def _hear_host(self, message: Message) -> None:
        if self._host is None:
            return
        try:
            counted = self._host.receive(message.payload)
        except StateError as error:
            self._commands.complain(str(error), self._host_id or "")
            return
        if counted and not self._host.online:
            # As [message-flow-edge-node-birth-publish-phid-offline] demands.
            self._leave_wanted = True
        self._outbox.wake()

    def _obey(self, message: Message) -> None:
        """Take an NCMD."""
        try:
            written = payload.read_command(message.payload)
        except CommandError as error:
            self._commands.complain(str(error), "")
            return
        for metric in written:
            if metric.name == NODE_REBIRTH:
                # As [operational-behavior-data-commands-ncmd-rebirth-value] demands.
                self._rebirth_wanted = self._rebirth_wanted or metric.value is True
            else:
                self._commands.complain(f"the node has no metric {metric.name or metric.alias!r} to write", "")
        self._outbox.wake()
