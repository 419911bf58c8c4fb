"""Tells a device's past: the series SEMS keeps, call by call, with what calls the account has left."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final, Protocol
from zoneinfo import ZoneInfo

from gateway.core.bridge import Context
from gateway.core.errors import GatewayError, NotSentError, RefusedError, UnsureError
from gateway.core.model import Outline, Page, Pause, Resolution
from gateway.sems.budget import Priority
from gateway.sems.catalogue import Catalogue, Interface, Json, Use
from gateway.sems.normalise import samples
from gateway.sems.plants import Target
from gateway.sems.session import Session

TRIES: Final = 4
RETRY_FIRST: Final = 2.0
RETRY_MOST: Final = 60.0
DAYS: Final = {"day": 1, "month": 31, "year": 366}
"""How many days a call covers at most."""


class Known(Protocol):
    """What the account holds."""

    def get(self, serial: str) -> Target | None:
        """Return what is known of a serial number."""
        ...


class History:
    """The past of one account's devices; see `core.bridge.Historian`."""

    def __init__(self, catalogue: Catalogue, session: Session, context: Context, plants: Known) -> None:
        self._catalogue = catalogue
        self._session = session
        self._context = context
        self._plants = plants

    def keeps(self, serial: str) -> bool:
        """Return whether SEMS keeps series of that device."""
        target = self._plants.get(serial)
        return target is not None and any(self._catalogue.using(Use.SERIES, target.type))

    def outline(self, serial: str, start: datetime, end: datetime, resolution: Resolution) -> Outline:
        """See `Historian.outline`."""
        target, interfaces = self._ways(serial, resolution)
        points = dict.fromkeys(row.point for i in interfaces for row in i.response if row.point)
        return Outline(sum(1 for _ in pages(interfaces[0].span, start, end, target.zone)), tuple(points))

    async def history(
        self, serial: str, start: datetime, end: datetime, resolution: Resolution
    ) -> AsyncIterator[Page | Pause]:
        """See `Historian.history`. Of several interfaces, the first that answers tells it all."""
        target, interfaces = self._ways(serial, resolution)
        for first, last in pages(interfaces[0].span, start, end, target.zone):
            begins, ends = max(start, midnight(first, target.zone)), min(end, midnight(last, target.zone))
            async for part in self._page(target, interfaces, first, min(last, _day_after(ends, target.zone))):
                if isinstance(part, Pause):
                    yield part
                    continue
                interface, data = part
                interfaces = [interface]
                found = samples(interface, data, target.zone, self._context.clock.now(), _noon(first))
                yield Page(begins, ends, [sample for sample in found if begins <= sample.time < ends])

    def _ways(self, serial: str, resolution: Resolution) -> tuple[Target, list[Interface]]:
        """Return the interfaces that tell it, best first; all of one span. Raises RefusedError."""
        target = self._plants.get(serial)
        if target is None:
            raise RefusedError(f"there is no device {serial}")
        every = list(self._catalogue.using(Use.SERIES, target.type))
        fitting = [interface for interface in every if interface.step == resolution.value]
        if not fitting:
            steps = ", ".join(dict.fromkeys(interface.step for interface in every))
            there_is = f"there is one by {steps}" if steps else "nor any other"
            raise RefusedError(f"SEMS keeps no history by {resolution} of {serial} ({target.type}); {there_is}")
        return target, [interface for interface in fitting if interface.span == fitting[0].span]

    async def _page(
        self, target: Target, interfaces: Sequence[Interface], first: date, last: date
    ) -> AsyncIterator[Pause | tuple[Interface, Json]]:
        """Ask one interface after the other, until one answers. Raises what the last one did.

        `first` is the first local day that is asked for, `last` the first that is not.
        """
        args = {
            "serial": target.serial,
            "serials": [target.serial],
            "plant": target.plant,
            "plants": [target.plant],
            "type": target.type,
            "day": _noon(first),
            "start": _noon(first),
            "end": _noon(last) - timedelta(days=1),
        }
        refusal: GatewayError | None = None
        for interface in interfaces:
            try:
                async for part in self._asked(interface, args):
                    yield part if isinstance(part, Pause) else (interface, part[0])
                return
            except (RefusedError, UnsureError) as error:
                refusal = error
        if refusal is not None:
            raise refusal

    async def _asked(self, interface: Interface, args: dict[str, object]) -> AsyncIterator[Pause | tuple[Json]]:
        """Call until there is an answer, for as long as it takes where calls are limited or SEMS is away."""
        clock = self._context.clock
        pause = RETRY_FIRST
        tries = 0
        while True:
            try:
                yield (await self._session.call(interface.name, args, priority=Priority.HISTORY),)
                return
            except NotSentError as error:
                wait = pause if error.retry_after is None else max(error.retry_after, 0.0)
                yield Pause(clock.now() + timedelta(seconds=wait), str(error))
            except UnsureError as error:
                tries += 1
                if tries == TRIES:
                    raise
                wait = pause
                yield Pause(clock.now() + timedelta(seconds=wait), f"{error}; trying again")
            await asyncio.sleep(wait)
            pause = min(pause * 2, RETRY_MOST)


def pages(span: str, start: datetime, end: datetime, zone: ZoneInfo) -> Iterator[tuple[date, date]]:
    """Yield the local days from and before which each call counts: whole days, months or years of the plant's."""
    first = _first_day(span, start.astimezone(zone).date())
    while midnight(first, zone) < end:
        after = _first_day(span, first + timedelta(days=DAYS[span]))
        yield first, after
        first = after


def midnight(day: date, zone: ZoneInfo) -> datetime:
    """Return when a local day begins, UTC. Where clocks are set forward at midnight, that is an hour later."""
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)


def _first_day(span: str, day: date) -> date:
    match span:
        case "year":
            return day.replace(month=1, day=1)
        case "month":
            return day.replace(day=1)
        case _:
            return day


def _day_after(end: datetime, zone: ZoneInfo) -> date:
    """Return the first local day that has nothing before `end`."""
    return (end - timedelta(microseconds=1)).astimezone(zone).date() + timedelta(days=1)


def _noon(day: date) -> datetime:
    """Return the day as a `local_time` argument takes it; at noon, for no zone is without one."""
    return datetime(day.year, day.month, day.day, 12)  # noqa: DTZ001 - local to the plant
