"""When things were measured, by one account; and what was found out of how it does, kept over restarts.

SEMS's times are believed as far as they make sense. Where one can't be read, is from the future, or is in nobody knows
which zone, freshness comes from what changes: dead data don't, and so don't look good for ever.
"""

import asyncio
from collections.abc import Callable, Hashable, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cached_property
from typing import Annotated, Final

import msgspec

from gateway.api.contexts import BaseContext
from gateway.core.findings import FindingCode
from gateway.core.kept_file import KeptFile
from gateway.core.model import Device, Value
from gateway.core.points import POINTS, Kind
from gateway.core.zones import fixed, offset_name, zone_name, zone_named
from gateway.sems.normalise import Reading
from gateway.sems.times import AHEAD, AUTO, Dates, Order, order_of
from gateway.sems.zones import Offsets, odd_zone, said_zone

SAVE: Final = 10.0
"""Seconds between looks whether there is something to keep."""
STALE_INTERVALS: Final = 3
"""After so many intervals without news a device is stale."""
PLACED_WITHIN: Final = timedelta(minutes=1)
"""From a device's first data on until another bridge has said in which plant it is."""
MEASURED: Final = frozenset({Kind.MEASUREMENT, Kind.TOTAL})


class _Kept(msgspec.Struct):
    """What outlives a restart."""

    order: Order | None = None
    evidence: str = ""
    offsets: dict[str, Annotated[int, msgspec.Meta(ge=-24 * 60, le=24 * 60)]] = {}
    """Plant → minutes ahead of UTC."""


class _Since(msgspec.Struct):
    """What something said last, and since when it has said the same."""

    said: Hashable
    since: datetime


class AccountTimes:
    """Of one bridge."""

    def __init__(self, context: BaseContext, date_format: str = AUTO, time_zone: str = "") -> None:
        """Keep what the settings say; `time_zone` is empty where they say nothing."""
        self._context = context
        self._given = zone_named(time_zone)
        self.dates: Final = Dates(None if date_format == AUTO else order_of(date_format))
        self.dates.on_learned = self._learned
        self.dates.on_unread = self._unread
        self._offsets = Offsets()
        self._same: dict[tuple[str, str], _Since] = {}
        """Serial and interface → what it said, where its times are of no use."""
        self._odd_zones: dict[str, str] = {}
        """Plant → what it says its zone is, where there is none such."""
        self._alone_since: dict[str, datetime] = {}
        """Device without a plant → since when its zone was missed."""
        self._changed = False
        self.on_inferred: Callable[[str], None] = lambda _: None
        """Called with a plant's id when its zone was found out."""

    # zones

    def zone(self, plant: str, said: Reading) -> tuple[tzinfo, str]:
        """Return a plant's zone by what an answer says of it, and its name; empty where it is not known.

        First what the plant says, then the settings, then what its times show.
        """
        zone = said_zone(said)
        if zone is None and (text := odd_zone(said)):
            self._odd_zones[plant] = text
            if self._given is None and plant not in self._offsets.known:
                self._ask_for_zone(plant)
        zone = zone or self._given
        if zone is not None:
            if self._offsets.known.pop(plant, None) is not None:
                self._changed = True
            self._context.settle(FindingCode.ZONE_INFERRED, plant)
            self._context.settle(FindingCode.ZONE_UNKNOWN, plant)
            return zone, zone_name(zone)
        return self.inferred(plant) or (UTC, "")

    def inferred(self, plant: str) -> tuple[tzinfo, str] | None:
        """Return the zone that was found by a plant's times, and its name; None while they have not."""
        offset = self._offsets.known.get(plant)
        zone = None if offset is None else fixed(offset)
        return None if zone is None else (zone, zone_name(zone))

    # times

    def measured(self, device: Device, interface: str, reading: Reading, interval: float) -> datetime:
        """Return when what an answer says was measured, UTC, never ahead of now; due again in `interval` seconds."""
        now = self._context.clock.now()
        if reading.time is None:
            return self._change(device, interface, _values(reading.values), now) if "time" in reading.unread else now
        time = reading.time
        plant = device.plant or device.serial
        if reading.local is not None and (not device.time_zone or plant in self._offsets.known):
            if self._offsets.take(plant, device.serial, reading.local, now):
                self._infer(plant)
            offset = self._offsets.known.get(plant)
            if offset is None:
                return self._without_zone(device, reading.local, interval, now)
            time = reading.local.replace(tzinfo=UTC) - offset
        if time <= now + AHEAD:
            return min(time, now)
        return self._change(device, interface, time, now)

    def forget(self, serial: str) -> None:
        """Forget a device or plant that is known no more."""
        self._offsets.forget(serial)
        self.dates.forget(serial)
        self._odd_zones.pop(serial, None)
        self._alone_since.pop(serial, None)
        self._context.settle(FindingCode.ZONE_UNKNOWN, serial)
        for key in [key for key in self._same if key[0] == serial]:
            del self._same[key]

    def _without_zone(self, device: Device, local: datetime, interval: float, now: datetime) -> datetime:
        """Return when something was measured of which only the order of its times is known.

        UTC is the zone of those that fit it. Others are as old as their news are; one that had none yet is stale.
        """
        seen = self._offsets.seen(device.serial)
        if seen.fits_utc:
            return min(local.replace(tzinfo=UTC), now)
        # Of a device that was only pushed, another bridge may yet say the plant, and so the zone.
        if device.plant or now - self._alone_since.setdefault(device.serial, now) >= PLACED_WITHIN:
            self._ask_for_zone(device.plant or device.serial)
        if not seen.moved:
            seen.since = min(seen.since, now - timedelta(seconds=STALE_INTERVALS * interval + 1))
        return min(now, seen.since - max(timedelta(), seen.local - local))

    def _change(self, device: Device, interface: str, said: Hashable, now: datetime) -> datetime:
        """Return since when an interface has said the same of a device."""
        known = self._same.get((device.serial, interface))
        if known is None or known.said != said:
            known = self._same[device.serial, interface] = _Since(said, now)
        return min(known.since, now)

    # what a person should know

    def _learned(self) -> None:
        self._changed = True
        self._say_order()

    def _say_order(self) -> None:
        order = self.dates.order
        if order is not None and self.dates.evidence:
            self._context.find(
                FindingCode.DATE_ORDER, "", f"dates are written {order}, as {self.dates.evidence!r} shows",
                f"where that is wrong, set bridges.{self._context.name}.date_format",
            )  # fmt: skip

    def _unread(self, interface: str, text: str) -> None:
        if not text:
            self._context.settle(FindingCode.TIME_UNREADABLE, interface)
            return
        self._context.find(
            FindingCode.TIME_UNREADABLE, interface,
            f"{interface} has times that can't be read, such as {text!r}; data count as fresh while they change",
            f"set bridges.{self._context.name}.date_format to the account's, e.g. dd/MM/yyyy or MM/dd/yyyy",
        )  # fmt: skip

    def _ask_for_zone(self, plant: str) -> None:
        self._context.find(
            FindingCode.ZONE_UNKNOWN, plant,
            f"plant {plant} {self._said(plant)}; until then only devices whose times move on count as fresh",
            f"set bridges.{self._context.name}.time_zone, e.g. Europe/Berlin",
        )  # fmt: skip

    def _infer(self, plant: str) -> None:
        self._changed = True
        self._context.settle(FindingCode.ZONE_UNKNOWN, plant)
        self._say_inferred(plant)
        self.on_inferred(plant)

    def _say_inferred(self, plant: str) -> None:
        self._context.find(
            FindingCode.ZONE_INFERRED, plant,
            f"plant {plant} {self._said(plant)}; by its newest times it is "
            f"{offset_name(self._offsets.known[plant])}",
            f"where that is wrong, set bridges.{self._context.name}.time_zone",
        )  # fmt: skip

    def _said(self, plant: str) -> str:
        text = self._odd_zones.get(plant)
        return f"says that its time zone is {text!r}, which may be any" if text else "does not say its time zone"

    # over restarts

    def restore(self) -> None:
        """Read what was kept. A file that can't be read is logged; then all is found out anew."""
        kept = self._file.read()
        if kept is None:
            return
        if kept.order is not None:
            self.dates.restore(kept.order, kept.evidence)
            self._say_order()
        if self._given is None:
            offsets = {plant: timedelta(minutes=minutes) for plant, minutes in kept.offsets.items()}
            self._offsets.known.update({plant: offset for plant, offset in offsets.items() if fixed(offset)})
            for plant in self._offsets.known:
                self._say_inferred(plant)

    async def run(self) -> None:
        """Write down what was found out, for ever."""
        try:
            while True:
                await asyncio.sleep(SAVE)
                await self._save()
        finally:
            await asyncio.shield(self._save())

    async def _save(self) -> None:
        """Write what has changed, in a thread. A disk that does not take it is logged."""
        if not self._changed:
            return
        self._changed = False
        learned = bool(self.dates.evidence)
        offsets = {plant: round(offset / timedelta(minutes=1)) for plant, offset in self._offsets.known.items()}
        kept = _Kept(self.dates.order if learned else None, self.dates.evidence, offsets)
        await self._file.write(msgspec.json.encode(kept))

    @cached_property
    def _file(self) -> KeptFile[_Kept]:
        return KeptFile(
            self._context.data_dir / f"{self._context.name}-times.json",
            _Kept,
            self._context.log,
            unreadable="what was known of SEMS's times can't be read",
            unwritable="what is known of SEMS's times can't be kept",
        )


def _values(values: Mapping[str, Value]) -> Hashable:
    """Return what changes when something is measured anew."""
    return frozenset((point, value) for point, value in values.items() if POINTS[point].kind in MEASURED)
