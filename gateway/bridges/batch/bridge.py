"""The Batch Remote Control API as a controller."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import ClassVar, Final

from gateway.api.bridge import BridgeSettings, Context
from gateway.bridges.batch.devices import Devices
from gateway.bridges.batch.interfaces import Route
from gateway.bridges.batch.message import item
from gateway.bridges.batch.results import Results
from gateway.bridges.batch.sender import Sender
from gateway.bridges.batch.settings import BatchSettings
from gateway.bridges.batch.tally import METRICS, Tally
from gateway.core.controller import Outcome
from gateway.core.errors import NotSentError, RefusedError
from gateway.core.model import Command, CommandState, Value
from gateway.core.probe import Probe
from gateway.kafka import METERS, TROUBLES, Consumer, Health, Producer, TopicIds, watch_credentials
from gateway.kafka.probe import probe_cluster

COMMANDS: Final = "commands"
RESULTS: Final = "results"
"""The names of the two Kafka clients, in logs and metrics."""
READY_WITHIN: Final = 1.0
"""Seconds that a command waits for a cluster that is being connected."""
RESULT_BYTES: Final = 1024 * 1024
"""Of a message with results; 10,000 of them have as much."""


class BatchBridge:
    """Controller only."""

    Settings: ClassVar[type[BridgeSettings]] = BatchSettings
    listens: ClassVar[bool] = True
    """It finds no devices, and beside a running gateway it would take the results from that one."""
    receipts_first: ClassVar[bool] = True

    def __init__(self, settings: BatchSettings, context: Context) -> None:
        self._settings = settings
        self.pushed_within: Final = settings.result_within
        """See `Pushing`."""
        self._context = context
        interfaces = settings.interfaces
        member = f"{context.gateway_id}.{context.name}"
        self._group = settings.group or f"{member}.{settings.supplier}"
        self._health = Health(context.report)
        self._tally = Tally(context.log, context.clock)
        self._devices = Devices(settings, interfaces, context)
        self._producer = Producer(
            settings.connection,
            COMMANDS,
            [route.commands for route in interfaces.routes],
            client_id=member,
            health=self._health,
            log=context.log,
        )
        self._ids = TopicIds(settings.connection, member, context.log)
        self._consumer = Consumer(
            settings.connection,
            RESULTS,
            list(interfaces.by_results),
            group=self._group,
            alone=True,
            client_id=member,
            health=self._health,
            log=context.log,
            max_bytes=RESULT_BYTES,
            ids=self._ids,
        )
        self._results = Results(context, self._consumer, interfaces, self._tally)
        self._senders = {
            route.interface.name: Sender(route, settings, context, self._producer, self._results, self._tally)
            for route in interfaces.routes
        }

    def probe(self) -> AsyncIterator[Probe]:
        """See `Probing`."""
        topics = dict.fromkeys(topic for _, topic in self._settings.interfaces.topics)
        member = f"{self._context.gateway_id}.{self._context.name}"
        return probe_cluster(self._settings.connection, topics, client_id=member, log=self._context.log)

    @property
    def where(self) -> str:
        """For the line at start."""
        return ",".join(self._settings.connection.bootstrap_servers)

    async def start(self) -> None:
        """Connect, in the background: the cluster may be away."""
        await self._producer.start()
        await self._consumer.start()
        METRICS.watch(self._context.name, self._tally)
        meters = {COMMANDS: self._producer.meter, RESULTS: self._consumer.meter}
        METERS.watch(self._context.name, meters)
        TROUBLES.watch(self._context.name, self._health)
        for name, sender in self._senders.items():
            self._context.spawn(sender.run(), f"commands {name}")
        self._context.spawn(self._results.run(), "results")
        self._context.spawn(self._devices.run(), "devices")
        self._context.spawn(self._producer.given_up(), "producer")
        self._context.spawn(watch_credentials(self._settings.connection, self._context.log), "credentials")

    async def stop(self) -> None:
        """Send nothing more, commit what was read, and leave the group."""
        METRICS.forget(self._context.name)
        METERS.forget(self._context.name)
        TROUBLES.forget(self._context.name)
        for sender in self._senders.values():
            sender.close()
        await self._producer.stop()
        await self._consumer.stop()
        self._ids.close()

    def takes(self, serial: str, setpoint: str) -> bool:
        """Return whether the device is whitelisted and known, and there is an interface for the setpoint."""
        return self._devices.route(serial, setpoint) is not None

    async def send(self, command: Command, in_force: Mapping[str, Value], timeout: float) -> str:
        """Send a command with the next message of its interface; return the id of the request."""
        route = self._devices.route(command.serial, command.setpoint)
        state = self._context.state(command.serial)
        if route is None or state is None:
            raise RefusedError(f"{command.serial} is not in the whitelist, or takes no {command.setpoint}")
        await self._ready(route, timeout)
        one = item(command, in_force, state.device, self._context.battery_window)
        return await self._senders[route.interface.name].send(one, timeout)

    async def result(self, command: Command, receipt: str) -> Outcome:
        """See `Pushing`."""
        if not receipt:
            return Outcome(CommandState.ACCEPTED, "it never left: no request was made of it")
        self._results.over(receipt, command.serial)
        return Outcome(CommandState.UNKNOWN, f"no result came within {self._settings.result_within:g} s")

    async def _ready(self, route: Route, timeout: float) -> None:
        """Raise NotSentError where nothing can be sent, or no result be heard: soon, so that others get their turn."""
        if trouble := self._trouble(route):
            raise NotSentError(trouble)
        if self._producer.is_ready(route.commands) and self._consumer.placed.is_set():
            return
        try:
            async with asyncio.timeout(min(READY_WITHIN, timeout)):
                await self._producer.ready(route.commands)
                # What is sent before it is known from where on results are read might be answered before that place.
                await self._consumer.placed.wait()
        except TimeoutError:
            raise NotSentError(self._trouble(route) or "the Kafka cluster is not connected") from None

    def _trouble(self, route: Route) -> str:
        return self._health.trouble(COMMANDS, route.commands) or self._health.trouble(
            RESULTS, route.results, self._group
        )
