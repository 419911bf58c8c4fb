"""GoodWe's data transfer over Kafka: each message holds what a push over HTTP would.

That is assumed: nothing public says what GoodWe writes there (SEMS.md). An offset is committed when every history has
what its message brought, so after an outage, of whichever side, all that the topic still holds is read.
"""

from codecs import BOM_UTF8
from collections import Counter
from typing import cast

import msgspec

from gateway.api.bridge import Context
from gateway.bridges.kafka.ledger import Ledger
from gateway.bridges.kafka.settings import TelemetrySettings
from gateway.bridges.kafka.skipped import Skipped
from gateway.kafka import Consumer, Received
from gateway.sems.catalogue import Json
from gateway.sems.pushed import BadPushError, Intake, Outcome


class Telemetry:
    """Takes messages, one batch after another."""

    def __init__(self, settings: TelemetrySettings, context: Context, skipped: Skipped) -> None:
        self._settings = settings
        self._context = context
        self._skipped = skipped
        self.counts: Counter[Outcome] = Counter()
        """Objects by what became of them."""

    async def run(self, consumer: Consumer, ledger: Ledger) -> None:
        """Read until cancelled."""
        # What came before this start and was not committed comes again, so nothing is remembered of it.
        intake = Intake(self._settings, self._context, "telemetry")
        intake.begin()
        async for batch in consumer.batches():
            ledger.put(await self._take(batch, intake), batch)
            await ledger.room()

    async def _take(self, batch: list[Received], intake: Intake) -> int:
        """Hand a batch to the router; returns the lowest number by which it knows what came, or 0."""
        first = 0
        for message in batch:
            for pushed in self._objects(message):
                try:
                    taken = await intake.take(pushed)
                except BadPushError as error:
                    self.counts[Outcome.BAD] += 1
                    self._skipped.note(message, error.kind, str(error))
                    continue
                except Exception as error:
                    self.counts[Outcome.BAD] += 1
                    self._context.log.debug("traceback", exc_info=error)
                    self._skipped.note(message, "not understood", f"it can't be used ({type(error).__name__})")
                    continue
                self.counts[taken.outcome] += 1
                for reason in taken.dropped:
                    self._skipped.note_part(message, reason, reason)
                if taken.first:
                    first = min(first or taken.first, taken.first)
        return first

    def _objects(self, message: Received) -> list[Json]:
        """Return what a message holds: the items of its list, or the one object."""
        if message.oversize:
            self.counts[Outcome.TOO_LARGE] += 1
            self._skipped.note(message, "too large", f"{message.oversize} bytes; max_bytes says how many are taken")
            return []
        try:
            data = msgspec.json.decode((message.value or b"").removeprefix(BOM_UTF8))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self.counts[Outcome.BAD] += 1
            self._skipped.note(message, "no JSON", f"this is no JSON: {error}")
            return []
        return cast("list[Json]", data if isinstance(data, list) else [data])
