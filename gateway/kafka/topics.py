"""Topics that the gateway creates, where it is told to."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import structlog
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic as RawTopic

from gateway.core.errors import GatewayError
from gateway.kafka import error_messages
from gateway.kafka.logger import RdLog
from gateway.kafka.settings import KafkaConnection

ASK: Final = 10.0
"""Seconds that the cluster has for an answer."""


class NewTopic(msgspec.Struct, frozen=True):
    """A topic that should be there."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str] = {}


async def create_topics(
    connection: KafkaConnection, topics: Sequence[NewTopic], *, client_id: str, log: structlog.stdlib.BoundLogger
) -> list[str]:
    """Create those that are missing; returns their names. Raises GatewayError, in words for a person."""
    return await asyncio.to_thread(_create, connection, topics, client_id, log)


def _create(
    connection: KafkaConnection, topics: Sequence[NewTopic], client_id: str, log: structlog.stdlib.BoundLogger
) -> list[str]:
    config: dict[str, Any] = {**connection.config(client_id), "logger": RdLog(log, "topics")}
    admin = AdminClient(config)
    wanted = [
        RawTopic(t.name, num_partitions=t.partitions, replication_factor=t.replication, config=dict(t.config))
        for t in topics
    ]
    made: list[str] = []
    for name, future in admin.create_topics(wanted, request_timeout=ASK, operation_timeout=ASK).items():
        try:
            future.result(2 * ASK)
            made.append(name)
        except KafkaException as error:
            met = error.args[0]
            if met.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise GatewayError(f"can't create topic {name}: {error_messages.of(met, name)[1]}") from None
        except TimeoutError:
            raise GatewayError(f"can't create topic {name}: the Kafka cluster does not answer") from None
    return made
