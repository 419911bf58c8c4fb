"""Reads every plant and device in rounds, within the account's call budget."""

import asyncio
from collections import deque
from datetime import datetime
from statistics import median_low
from typing import Final

import msgspec

from gateway.bridges.open_api.plants import Plants, Target
from gateway.core.bridge import Context
from gateway.core.errors import GatewayError, NotSentError
from gateway.core.model import Snapshot
from gateway.sems.budget import HOUR
from gateway.sems.catalogue import Catalogue
from gateway.sems.errors import BadAnswerError
from gateway.sems.normalise import entries, read
from gateway.sems.session import Session

PARALLEL: Final = 4
CADENCE_MOST: Final = 900.0
RESOLUTION: Final = 1.0
"""SEMS tells times to the second, so data may look a second old when they are new."""


class _Cadence(msgspec.Struct):
    """How often the cloud has news of a device: loggers upload more seldom than one may ask."""

    last: datetime | None = None
    gaps: deque[float] = msgspec.field(default_factory=lambda: deque(maxlen=3))

    def heard(self, time: datetime) -> None:
        if self.last is not None and time > self.last:
            self.gaps.append((time - self.last).total_seconds())
        if self.last is None or time > self.last:
            self.last = time

    def interval(self, polling: float) -> float:
        usual = min(median_low(self.gaps), CADENCE_MOST) if self.gaps else 0.0
        return max(polling, usual, RESOLUTION)


class Poller:
    """One round reads everything once."""

    def __init__(
        self, catalogue: Catalogue, session: Session, context: Context, plants: Plants, wanted_interval: float
    ) -> None:
        self._catalogue = catalogue
        self._session = session
        self._context = context
        self._plants = plants
        self._wanted = wanted_interval
        self._failing: dict[str, str] = {}
        self._cadences: dict[str, _Cadence] = {}

    @property
    def interval(self) -> float:
        """Seconds from one round to the next: as wanted, or longer where the budget asks for it."""
        return max(self._wanted, HOUR * len(self._plants) / self._session.budget.for_polling)

    async def round(self) -> None:
        """Read everything once. Raises what stands in the way of all readings; one device's trouble is its own."""
        waiting = deque(self._plants)
        readers = [asyncio.create_task(self._drain(waiting), name="reading") for _ in range(PARALLEL)]
        try:
            await asyncio.gather(*readers)
        finally:
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)
        if self._plants and len(self._failing) == len(self._plants):
            raise BadAnswerError(f"no device can be read; the last one: {next(reversed(self._failing.values()))}")

    async def _drain(self, waiting: deque[Target]) -> None:
        while waiting:
            target = waiting.popleft()
            serial = target.device.serial
            try:
                await self.read(target)
            except NotSentError:
                raise
            except GatewayError as error:
                if serial not in self._failing:
                    self._context.log.warning("device can't be read", serial=serial, error=str(error))
                self._failing[serial] = str(error)
            else:
                if self._failing.pop(serial, None) is not None:
                    self._context.log.info("device can be read again", serial=serial)

    async def read(self, target: Target) -> None:
        """Read one device and publish it."""
        interface = self._catalogue.interface(target.interface)
        serial = target.device.serial
        data = await self._session.call(interface.name, {target.argument: serial})
        now = self._context.clock.now()
        for entry in entries(interface, data):
            reading = read(interface, entry, target.zone, now)
            time = reading.time or now
            cadence = self._cadences.setdefault(serial, _Cadence())
            cadence.heard(time)
            self._context.publish(
                Snapshot(
                    serial=serial,
                    time=time,
                    source=self._context.name,
                    interval=cadence.interval(self.interval),
                    values=reading.values,
                )
            )
