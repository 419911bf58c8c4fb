"""The bridge: wires what the settings ask for to the clients it needs."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import ClassVar, Final

from gateway.api.bridge import BridgeSettings, Context
from gateway.bridges.kafka.commands import Answering, Asking
from gateway.bridges.kafka.joined import Joined
from gateway.bridges.kafka.ledger import Ledger
from gateway.bridges.kafka.publisher import Publisher
from gateway.bridges.kafka.settings import KafkaSettings
from gateway.bridges.kafka.skipped import SKIPPED, Skipped
from gateway.bridges.kafka.telemetry import Telemetry
from gateway.core.controller import Outcome
from gateway.core.errors import GatewayError, NotSentError
from gateway.core.mailbox import Updates
from gateway.core.metrics import Metrics, counter, gauge
from gateway.core.model import Command, CommandState, Device, Value
from gateway.core.probe import Probe
from gateway.kafka import (
    METERS,
    TROUBLES,
    Consumer,
    Health,
    Producer,
    Start,
    TopicIds,
    create_topics,
    watch_credentials,
)
from gateway.kafka.probe import probe_cluster
from gateway.sems.pushed import Outcome as Fate

CREATE_AGAIN: Final = 10.0
"""Seconds before topics that could not be created are tried again."""
RESULT_WITHIN: Final = 115.0
"""Seconds after which a command of which nothing is heard ends as unknown; the gateway itself waits little longer."""


class KafkaBridge:
    """Source, sink, origin and controller, as far as the settings go."""

    Settings: ClassVar[type[BridgeSettings]] = KafkaSettings
    listens: ClassVar[bool] = True
    """It waits for messages, so it finds no devices by itself."""
    pushed_within: ClassVar[float] = RESULT_WITHIN
    """What the gateway that polls tells of a command ends it. See `Pushing`."""

    backlog: int
    """There only with `publish`, for it makes a `HistorySink` of this."""

    def __init__(self, settings: KafkaSettings, context: Context) -> None:
        self._settings = settings
        self._context = context
        if settings.publish:
            self.backlog = settings.publish.backlog
        self._health = Health(context.report)
        self._skipped = Skipped(context.log, context.clock)
        self._telemetry = Telemetry(settings.telemetry, context, self._skipped) if settings.telemetry else None
        self._publisher = Publisher(settings.publish, context, self._skipped) if settings.publish else None
        self._joined = Joined(settings.join, context, self._skipped) if settings.join else None
        self.telemetry: Counter[Fate] = self._telemetry.counts if self._telemetry else Counter()
        """Objects that GoodWe sent, by what became of them."""
        self.served: Mapping[str, Device] = self._joined.devices if self._joined else {}
        """Devices of a joined gateway."""
        self._asking = (
            Asking(settings.join, context, self._joined, self._skipped) if settings.join and self._joined else None
        )
        self._answering = (
            Answering(settings.publish, context, self._skipped)
            if settings.publish and settings.publish.commands
            else None
        )
        self._clients: dict[str, Producer | Consumer] = {}
        self._ids = TopicIds(settings.connection, self._client_id("topics"), context.log)

    def probe(self) -> AsyncIterator[Probe]:
        """See `Probing`. Topics that it may create itself need not be there."""
        settings = self._settings
        topics = [
            *(settings.telemetry.topics if settings.telemetry else ()),
            *(self._publisher.topics if self._publisher and settings.publish and not settings.publish.create else ()),
            *(self._joined.topics if self._joined else ()),
        ]
        return probe_cluster(settings.connection, topics, client_id=self._client_id("doctor"), log=self._context.log)

    @property
    def where(self) -> str:
        """For the line at start."""
        return ",".join(self._settings.connection.bootstrap_servers)

    async def start(self) -> None:
        """Begin to connect. Raises GatewayError where librdkafka can't use the settings."""
        settings = self._settings
        if self._publisher is not None:
            self._publisher.anew()
            await self._produce("publisher", self._publisher.topics, keep_trying=True)
            if settings.publish and settings.publish.create:
                self._context.spawn(self._create(), "create topics")
        if settings.telemetry is not None and self._telemetry is not None:
            ledger = Ledger(self._context)
            consumer = await self._consume("telemetry", settings.telemetry.topics, settings.group)
            self._context.spawn(self._telemetry.run(consumer, ledger), "telemetry")
            self._context.spawn(ledger.run(consumer), "commit")
        if self._joined is not None:
            ledger = Ledger(self._context)
            consumer = await self._consume("joined", self._joined.topics, settings.group, starts=self._joined.starts)
            self._context.spawn(self._joined.run(consumer, ledger), "joined")
            self._context.spawn(ledger.run(consumer), "commit")
        if settings.join is not None and settings.join.commands and self._asking is not None:
            await self._produce("commands", [self._asking.commands_topic])
            consumer = await self._consume("events", [self._asking.events_topic], self._own_group("events"), alone=True)
            self._context.spawn(self._asking.hear(consumer), "events")
        if self._answering is not None:
            consumer = await self._consume("asked", [self._answering.topic], self._own_group("commands"), alone=True)
            self._context.spawn(self._answering.run(consumer), "commands")
        self._context.spawn(watch_credentials(settings.connection, self._context.log), "credentials")
        METERS.watch(self._context.name, {name: client.meter for name, client in self._clients.items()})
        TROUBLES.watch(self._context.name, self._health)
        SKIPPED.watch(self._context.name, self._skipped)
        METRICS.watch(self._context.name, self)

    async def stop(self) -> None:
        """Commit what is done, let what waits leave, and say that served devices are no more known."""
        for shown in (METERS, TROUBLES, SKIPPED, METRICS):
            shown.forget(self._context.name)
        clients, self._clients = self._clients, {}
        await asyncio.gather(*(client.stop() for client in clients.values()))
        self._ids.close()
        if self._joined is not None:
            self._joined.leave()

    # sink

    async def deliver(self, updates: Updates) -> None:
        """See `HistorySink`."""
        producer = self._clients.get("publisher")
        if self._publisher is None:
            return
        if not isinstance(producer, Producer):
            raise GatewayError("the bridge is not connected to the Kafka cluster")
        await self._publisher.deliver(updates, producer)

    # controller

    def takes(self, serial: str, setpoint: str) -> bool:
        """See `Controller`."""
        return self._asking is not None and self._asking.takes(serial, setpoint)

    async def send(self, command: Command, in_force: Mapping[str, Value], timeout: float) -> str:  # noqa: ARG002
        """See `Controller`. The gateway that carries it out knows the rest of the group itself."""
        producer = self._clients.get("commands")
        if self._asking is None or not isinstance(producer, Producer):
            raise NotSentError("the bridge is not connected to the Kafka cluster")
        return await self._asking.send(command, timeout, producer)

    async def result(self, command: Command, receipt: str) -> Outcome:  # noqa: ARG002
        """See `Controller`."""
        if not receipt:
            return Outcome(CommandState.ACCEPTED, "it never left")
        return Outcome(CommandState.UNKNOWN, f"the gateway that polls told nothing within {RESULT_WITHIN:g} s")

    # clients

    async def _produce(self, name: str, topics: Sequence[str], *, keep_trying: bool = False) -> None:
        linger = self._settings.publish.linger_ms if keep_trying and self._settings.publish else 0
        producer = Producer(
            self._settings.connection,
            name,
            topics,
            client_id=self._client_id(name),
            health=self._health,
            log=self._context.log,
            linger_ms=linger,
            keep_trying=keep_trying,
            ids=self._ids if keep_trying else None,
        )
        await producer.start()
        self._clients[name] = producer
        self._context.spawn(producer.given_up(), f"producer {name}")

    async def _consume(
        self,
        name: str,
        topics: Sequence[str],
        group: str,
        *,
        starts: Mapping[str, Start] | None = None,
        alone: bool = False,
    ) -> Consumer:
        consumer = Consumer(
            self._settings.connection,
            name,
            topics,
            group=group,
            client_id=self._client_id(name),
            health=self._health,
            log=self._context.log,
            member=self._settings.member or f"{self._context.gateway_id}.{self._context.name}",
            session_timeout=self._settings.session_timeout,
            max_bytes=self._settings.max_bytes,
            starts=starts,
            alone=alone,
            ids=self._ids,
        )
        await consumer.start()
        self._clients[name] = consumer
        return consumer

    def _client_id(self, name: str) -> str:
        return f"{self._context.gateway_id}.{self._context.name}.{name}"

    def _own_group(self, what: str) -> str:
        """Return the name of a group that has this gateway alone: it reads all partitions."""
        return f"{self._settings.group}.{self._context.gateway_id}.{self._context.name}.{what}"

    async def _create(self) -> None:
        """Create the topics that are missing; until that is done nothing is sent."""
        if self._publisher is None:
            return
        wanted = self._publisher.wanted()
        while True:
            try:
                made = await create_topics(
                    self._settings.connection, wanted, client_id=self._client_id("topics"), log=self._context.log
                )
            except GatewayError as error:
                self._health.met("topics", "create", str(error))
                await asyncio.sleep(CREATE_AGAIN)
            else:
                self._health.well("topics", "")
                if made:
                    self._context.log.info("topics created", topics=made)
                return


METRICS: Final = Metrics[KafkaBridge](
    counter(
        "sems_gateway_kafka_telemetry",
        "what GoodWe has sent, by what became of it",
        lambda bridge: bridge.telemetry,
        "outcome",
    ),
    gauge("sems_gateway_kafka_served", "devices of a joined gateway served here", lambda bridge: len(bridge.served)),
)
