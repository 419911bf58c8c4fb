"""Whether a Kafka cluster lets this gateway in, and whether its topics are there. Nothing is read or written."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

import structlog
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from gateway.core.probe import Mark, Probe
from gateway.kafka import error_messages
from gateway.kafka.logger import RdLog
from gateway.kafka.settings import KafkaConnection

WITHIN: Final = 10.0
"""Seconds that the cluster has for an answer."""


async def probe_cluster(
    connection: KafkaConnection, topics: Iterable[str], *, client_id: str, log: structlog.stdlib.BoundLogger
) -> AsyncIterator[Probe]:
    """Ask for metadata, and whether these topics are among them."""
    met: list[KafkaError] = []
    try:
        brokers, known = await asyncio.to_thread(_ask, connection, client_id, log, met)
    except KafkaException as error:
        # That nothing was answered is said by the exception; why, by what was met on the way.
        why = next((one for one in met if error_messages.of(one)[0] is not error_messages.AWAY), error.args[0])
        yield Probe(Mark.WRONG, "kafka", error_messages.of(why)[1])
        return
    count = f"{brokers} brokers" if brokers != 1 else "1 broker"
    yield Probe(Mark.WELL, "kafka", f"the Kafka cluster answers, with {count}")
    for topic in topics:
        if topic in known:
            yield Probe(Mark.WELL, "kafka", f"topic {topic} has {known[topic]} partitions")
        else:
            yield Probe(
                Mark.WRONG, "kafka", f"there is no topic {topic}, or we may not see it", "see its name, and the ACLs"
            )


def _ask(
    connection: KafkaConnection, client_id: str, log: structlog.stdlib.BoundLogger, met: list[KafkaError]
) -> tuple[int, dict[str, int]]:
    config: dict[str, Any] = {**connection.config(client_id), "logger": RdLog(log, "probe"), "error_cb": met.append}
    admin = AdminClient(config)
    found = admin.list_topics(timeout=WITHIN)
    return len(found.brokers), {name: len(topic.partitions) for name, topic in found.topics.items()}
