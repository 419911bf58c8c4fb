"""Which topic a place was kept in, and by whom.

A topic that was deleted and made again has the same name and another id (KIP-516), and a place in the old one says
nothing of the new one. So its id is kept beside each place, in the text that Kafka keeps with an offset; and beside it
the run that kept it, so that another gateway with the same settings shows.
"""

import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final

import msgspec
import structlog
from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from gateway.kafka.logger import RdLog
from gateway.kafka.settings import KafkaConnection

ASK: Final = 5.0
"""Seconds that the cluster has for an answer."""
WAIT: Final = 2.0
"""Seconds that a reader waits for it before it begins."""
STEP: Final = 0.01
"""Seconds between looks at whether it is there."""
NO_ID: Final = frozenset({"", "AAAAAAAAAAAAAAAAAAAAAA"})
"""What a cluster says that gives its topics none (Apache Kafka before 2.8)."""
_NAME: Final = "sems-gateway"
_NONE: Final = "-"


class Mark(msgspec.Struct, frozen=True):
    """What is kept beside a place. It is untrusted: who may use the group may write it."""

    topic_id: str = ""
    """"" where that is not known."""
    run: str = ""
    """One run of one consumer; "" where somebody else kept the place."""

    @property
    def text(self) -> str:
        """As Kafka keeps it."""
        return f"{_NAME} {self.topic_id or _NONE} {self.run}"

    @classmethod
    def read(cls, text: str | None) -> "Mark":
        """Return what a text says; an empty mark where it is none of ours."""
        match (text or "").split(" "):
            case [name, topic_id, run] if name == _NAME:
                return cls("" if topic_id == _NONE else topic_id, run)
        return cls()


class Question:
    """What was asked of the cluster. Some never answer: those without a controller, as a mock."""

    def __init__(self, asked: Mapping[str, "Future[Any]"]) -> None:
        self._asked = asked

    def answer(self) -> dict[str, str] | None:
        """Return the ids of those topics that are there and have one; None before all is known. Never waits."""
        if not all(future.done() for future in self._asked.values()):
            return None
        found: dict[str, str] = {}
        for topic, future in self._asked.items():
            with suppress(KafkaException):
                found[topic] = str(future.result().topic_id)
        return {topic: id_ for topic, id_ in found.items() if id_ not in NO_ID}


class TopicIds:
    """Asks for the ids of topics. The clients of a bridge share it: only an admin client may ask."""

    def __init__(self, connection: KafkaConnection, client_id: str, log: structlog.stdlib.BoundLogger) -> None:
        self._connection = connection
        self._client_id = client_id
        self._log = log
        self._lock = threading.Lock()
        self._admin: AdminClient | None = None
        self._is_mute = False
        """Whether it was waited for in vain: that is done once."""

    def ask(self, topics: Collection[str]) -> Question:
        """Ask for the ids of topics; answered within ASK seconds."""
        try:
            with self._lock:
                if self._admin is None:
                    config = self._connection.config(self._client_id)
                    config["logger"] = RdLog(self._log, "topic ids")
                    self._admin = AdminClient(config)
                return Question(self._admin.describe_topics(TopicCollection(list(topics)), request_timeout=ASK))
        except (KafkaException, ValueError):
            return Question({})

    def of(self, topics: Collection[str], is_over: Callable[[], bool]) -> dict[str, str]:
        """Return the ids of topics; waits for WAIT seconds for them, or until it is over. Called in threads."""
        question = self.ask(topics)
        for _ in range(1 if self._is_mute else round(WAIT / STEP)):
            if (found := question.answer()) is not None:
                return found
            if is_over():
                return {}
            time.sleep(STEP)
        self._is_mute = True
        return {}

    def close(self) -> None:
        """Let go of the connection. Asked again, it makes another."""
        with self._lock:
            self._admin = None


def made_anew(known: dict[str, str], found: dict[str, str]) -> list[str]:
    """Return the topics that have another id than was known, and know those found from now on."""
    changed = [topic for topic, id_ in found.items() if known.get(topic, id_) != id_]
    known |= found
    return sorted(changed)
