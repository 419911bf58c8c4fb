"""What counts in a Sparkplug session: bdSeq from connection to connection, seq from message to message, aliases."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
import structlog

from gateway.bridges.mqtt.client import Client
from gateway.bridges.mqtt.sparkplug.topics import MessageType, SparkplugTopics
from gateway.core.clock import Clock
from gateway.core.kept_file import KeptFile

NUMBERS: Final = 256
"""bdSeq and seq run from 0 to 255 and begin again."""


class _Kept(msgspec.Struct):
    bd_seq: dict[str, int]
    """`<group>/<node>` → number of the last CONNECT."""


class BirthDeath:
    """bdSeq: one more for every CONNECT, also over restarts [topics-nbirth-bdseq-increment]."""

    def __init__(self, file: Path, node: str, log: structlog.stdlib.BoundLogger) -> None:
        self._node = node
        self._kept: _Kept | None = None
        self._file = KeptFile(
            file,
            _Kept,
            log,
            # Hosts only compare a death's number with the last birth's, so to begin anew does no harm.
            unreadable="bdSeq begins at 0 again, for its file can't be read",
            unwritable="bdSeq can't be kept on disk",
        )

    def next(self) -> int:
        """Return the number for a new CONNECT; it is on disk before, so no crash uses one twice. Blocks.

        Where the disk does not take it the number goes on in memory, for data matter more.
        """
        kept = self._kept = self._kept or self._file.read() or _Kept({})
        number = (kept.bd_seq.get(self._node, -1) + 1) % NUMBERS
        kept.bd_seq[self._node] = number
        self._file.write_now(msgspec.json.encode(kept))
        return number


class Aliases:
    """A number for every metric of the node and its devices, none twice [payloads-alias-uniqueness]."""

    def __init__(self) -> None:
        self._next = 0
        self._numbers: dict[str, dict[str, int]] = {}
        """Serial, empty for the node → metric → alias."""

    def number(self, serial: str, metric: str) -> int:
        """Return a metric's alias, the same for as long as the device is known."""
        numbers = self._numbers.setdefault(serial, {})
        number = numbers.get(metric)
        if number is None:
            number = numbers[metric] = self._next
            self._next += 1
        return number

    def name(self, serial: str, alias: int) -> str | None:
        """Return the metric with this alias."""
        return next((name for name, number in self._numbers.get(serial, {}).items() if number == alias), None)

    def forget(self, serial: str) -> None:
        """Drop a device's; the numbers are not given again."""
        self._numbers.pop(serial, None)


class Line:
    """What the node says, numbered in the order in which it is said."""

    def __init__(self, client: Client, topics: SparkplugTopics, clock: Clock) -> None:
        self._client = client
        self._topics = topics
        self._clock = clock
        self._seq = 0

    def restart(self) -> None:
        """Let the next message, an NBIRTH, have number 0 [topics-nbirth-seq-num]."""
        self._seq = 0

    async def say(
        self,
        type_: MessageType,
        device: str | None,
        encode: Callable[[datetime, int], bytes],
        shorter: Callable[[datetime, int], bytes] | None = None,
    ) -> bool:
        """Publish what `encode` makes of the time and the next number, or `shorter` where that is too large.

        Returns whether the broker takes it: what was left out has no number. Raises LostError.
        """
        topic, now = self._topics.of(type_, device), self._clock.now()
        payload = encode(now, self._seq)
        if shorter is not None and len(payload) > self._client.room(topic):
            payload = shorter(now, self._seq)
        if not await self._client.publish(topic, payload, 0, retain=False):
            return False
        self._seq = (self._seq + 1) % NUMBERS
        return True
