"""Reads a device's past: the series SEMS keeps, call by call, with what calls the account has left."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Final, NamedTuple, Protocol

from gateway.api.contexts import BaseContext
from gateway.core.errors import GatewayError, NotSentError, RefusedError, UnsureError
from gateway.core.model import HistoryPlan, Page, RateLimitWait, Resolution, Sample
from gateway.core.text import MAX_NAME, plain
from gateway.sems.budget import Priority
from gateway.sems.catalogue import Catalogue, Interface, Json, Use
from gateway.sems.errors import NoListError, TimeUnreadableError
from gateway.sems.normalise import entries, has_list, samples
from gateway.sems.plants import Target
from gateway.sems.session import Session
from gateway.sems.times import MAX_SHOWN, Dates

TRIES: Final = 4
RETRY_FIRST: Final = 2.0
MAX_RETRY_SECONDS: Final = 60.0
MAX_DEEP: Final = 3
"""Objects within each other in which a list is looked for."""
DAYS: Final = {"day": 1, "month": 31, "year": 366}
"""How many days a call covers at most."""


class Known(Protocol):
    """What the account holds."""

    def get(self, serial: str) -> Target | None:
        """Return what is known of a serial number."""
        ...


class History:
    """The past of one account's devices; see `core.bridge.HistoryProvider`."""

    def __init__(
        self, catalogue: Catalogue, session: Session, context: BaseContext, plants: Known, dates: Dates | None = None
    ) -> None:
        self._catalogue = catalogue
        self._session = session
        self._context = context
        self._plants = plants
        self._dates = Dates() if dates is None else dates

    def keeps(self, serial: str) -> bool:
        """Return whether SEMS keeps series of that device."""
        target = self._plants.get(serial)
        return target is not None and any(self._catalogue.using(Use.SERIES, target.type))

    def history_plan(self, serial: str, start: datetime, end: datetime, resolution: Resolution) -> HistoryPlan:
        """See `HistoryProvider.outline`."""
        target, interfaces = self._ways(serial, resolution)
        points = dict.fromkeys(row.point for i in interfaces for row in i.response if row.point)
        return HistoryPlan(sum(1 for _ in pages(interfaces[0].span, start, end, target.zone)), tuple(points))

    async def history(
        self, serial: str, start: datetime, end: datetime, resolution: Resolution
    ) -> AsyncIterator[Page | RateLimitWait]:
        """See `HistoryProvider.history`. Of several interfaces, the first that has something for a page is taken."""
        target, interfaces = self._ways(serial, resolution)
        for first, last in pages(interfaces[0].span, start, end, target.zone):
            begins, ends = max(start, midnight(first, target.zone)), min(end, midnight(last, target.zone))
            wanted = _Wanted(begins, ends, first, min(last, _day_after(ends, target.zone)))
            async for part in self._page(target, interfaces, wanted):
                yield part

    def _ways(self, serial: str, resolution: Resolution) -> tuple[Target, list[Interface]]:
        """Return the interfaces that have it, best first; all of one span. Raises RefusedError."""
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
        self, target: Target, interfaces: list[Interface], wanted: "_Wanted"
    ) -> AsyncIterator[Page | RateLimitWait]:
        """Ask one interface after the other, until one has something. A page is empty where SEMS has nothing for it.

        What is refused is taken out of `interfaces`, unless it is the last: it would be refused again.
        Raises what the last trouble was, where another interface may have had something.
        """
        args = {
            "serial": target.serial,
            "serials": [target.serial],
            "plant": target.plant,
            "plants": [target.plant],
            "type": target.type,
            "day": _noon(wanted.first),
            "start": _noon(wanted.first),
            "end": _noon(wanted.last) - timedelta(days=1),
        }
        trouble: GatewayError | None = None
        nothing = False
        for interface in list(interfaces):
            try:
                async for part in self._asked(interface, args):
                    if isinstance(part, RateLimitWait):
                        yield part
                        continue
                    found = self._told(interface, part[0], target, wanted)
                    if found:
                        yield Page(wanted.begins, wanted.ends, found)
                        return
                    nothing = True
            except RefusedError as error:
                trouble = trouble or error
                if len(interfaces) > 1:
                    interfaces.remove(interface)
            except UnsureError as error:
                # Of lists that lie elsewhere the best interface's is the one to see to.
                trouble = trouble if isinstance(trouble, NoListError) else error
        if trouble is not None and not (nothing and isinstance(trouble, RefusedError)):
            raise trouble
        yield Page(wanted.begins, wanted.ends, [])

    def _told(self, interface: Interface, data: Json, target: Target, wanted: "_Wanted") -> list[Sample]:
        """Return what an answer has of a page; nothing where no sample has a value. Raises TimeUnreadableError."""
        with self._session.reading(interface.name, target.serial):
            every = samples(interface, data, target.zone, self._context.clock.now(), _noon(wanted.first), self._dates)
            if not every:
                _look_for_list(interface, data)
                _look_for_times(interface, data)
        found = [sample for sample in every if wanted.begins <= sample.time < wanted.ends]
        return found if any(value is not None for sample in found for value in sample.values.values()) else []

    async def _asked(self, interface: Interface, args: dict[str, object]) -> AsyncIterator[RateLimitWait | tuple[Json]]:
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
                yield RateLimitWait(clock.now() + timedelta(seconds=wait), str(error))
            except UnsureError as error:
                tries += 1
                if tries == TRIES:
                    raise
                wait = pause
                yield RateLimitWait(clock.now() + timedelta(seconds=wait), f"{error}; trying again")
            await asyncio.sleep(wait)
            pause = min(pause * 2, MAX_RETRY_SECONDS)


class _Wanted(NamedTuple):
    """What one page is to hold."""

    begins: datetime
    ends: datetime
    first: date
    """The first local day that is asked for."""
    last: date
    """The first that is not."""


def _look_for_list(interface: Interface, data: Json) -> None:
    """Raise NoListError where an answer has none of its interface's lists, but another: that says nothing of a day."""
    if not interface.lists or has_list(interface, data):
        return
    others = [name for name in _lists(data) if name not in interface.lists]
    if not others:
        return
    found = plain(others[0], MAX_NAME)
    remedy = f"overrides: {{interfaces: {{{interface.name}: {{lists: [{found}]}}}}}}"
    raise NoListError(
        f"SEMS answered {interface.name} with a list {found!r}, and none of {', '.join(map(repr, interface.lists))}; "
        f"where that is the series, set {remedy}"
    )


def _lists(data: Json, above: str = "", deep: int = 0) -> Iterator[str]:
    """Yield where an answer has lists of objects with something in them."""
    for name, value in data.items() if isinstance(data, dict) else ():
        path = f"{above}{name}"
        if isinstance(value, list) and any(isinstance(item, dict) for item in value):
            yield path
        elif deep < MAX_DEEP:
            yield from _lists(value, f"{path}.", deep + 1)


def _look_for_times(interface: Interface, data: Json) -> None:
    """Raise TimeUnreadableError where an answer, of which no sample could be made, has entries with values."""
    points = [row.field for row in interface.response if row.point]
    found = [entry for entry in entries(interface, data) if any(entry.get(field) is not None for field in points)]
    if not found:
        return
    times = [row.field for row in interface.response if row.attribute == "time"]
    said = next((text for entry in found for field in times if (text := entry.get(field)) is not None), None)
    if said is None:
        raise TimeUnreadableError(
            f"{interface.name} answers with {len(found)} entries, none of which has a time "
            f"({', '.join(dict.fromkeys(times))}); see overrides in docs/sems.md"
        )
    raise TimeUnreadableError(
        f"{interface.name} answers with {len(found)} entries whose times can't be read, e.g. "
        f"{plain(str(said), MAX_SHOWN)!r}; set date_format"
    )


def pages(span: str, start: datetime, end: datetime, zone: tzinfo) -> Iterator[tuple[date, date]]:
    """Yield the local days from and before which each call counts: whole days, months or years of the plant's."""
    first = _first_day(span, start.astimezone(zone).date())
    while midnight(first, zone) < end:
        after = _first_day(span, first + timedelta(days=DAYS[span]))
        yield first, after
        first = after


def midnight(day: date, zone: tzinfo) -> datetime:
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


def _day_after(end: datetime, zone: tzinfo) -> date:
    """Return the first local day that has nothing before `end`."""
    return (end - timedelta(microseconds=1)).astimezone(zone).date() + timedelta(days=1)


def _noon(day: date) -> datetime:
    """Return the day as a `local_time` argument takes it; at noon, for no zone is without one."""
    return datetime(day.year, day.month, day.day, 12)  # noqa: DTZ001 - local to the plant
