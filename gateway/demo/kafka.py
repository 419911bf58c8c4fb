"""The demo's Kafka: librdkafka's mock cluster, inside this process, with sockets of its own and nothing to install.

It knows topics, groups and offsets, and forgets all when the demo ends. It is not Kafka: no disk, no logins, no rights.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from confluent_kafka import KafkaException, Producer

from gateway.kafka.logger import NO_LOG

START_TIMEOUT: Final = 10.0


class DemoKafka:
    """A cluster of one broker, as long as it is started."""

    def __init__(self) -> None:
        self.server = ""
        """Its address, `host:port`, once it has been started."""
        self._cluster: Producer | None = None

    async def start(self, topics: Sequence[str]) -> None:
        """Start it, with these topics. Raises OSError where it does not start."""
        await asyncio.to_thread(self._start, topics)

    async def stop(self) -> None:
        """End it. Does nothing when it does not run."""
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            await asyncio.to_thread(cluster.close)

    def _start(self, topics: Sequence[str]) -> None:
        cluster = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "logger": NO_LOG})
        try:
            (broker,) = cluster.list_topics(timeout=START_TIMEOUT).brokers.values()
            for topic in topics:
                # The mock creates a topic when it is first asked for.
                cluster.list_topics(topic, timeout=START_TIMEOUT)
        except KafkaException as error:
            raise OSError(f"librdkafka's mock cluster does not start: {error}") from None
        self._cluster = cluster
        self.server = f"{broker.host}:{broker.port}"
