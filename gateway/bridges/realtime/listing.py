"""Which numbers there are: those of the configuration or its file, or all that the cloud lists; and what they are."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gateway.api.bridge import Context
from gateway.bridges.realtime.licence import Licence
from gateway.bridges.realtime.roster import Roster
from gateway.bridges.realtime.settings import RealtimeSettings
from gateway.core.errors import GatewayError, RefusedError
from gateway.core.model import DeviceKind
from gateway.sems.account_times import AccountTimes
from gateway.sems.catalogue import Catalogue, Use
from gateway.sems.discovery import Discovery, Found
from gateway.sems.errors import NoLicenceError
from gateway.sems.normalise import Reading
from gateway.sems.plants import Plants, Target
from gateway.sems.session import Session
from gateway.sems.whitelist import read_numbers

FILE_LOOK: Final = 10.0
"""Seconds between looks whether the file of numbers has changed."""
ZONE: Final = ("time_zone", "time_span")
TURN: Final = 500
"""Devices of a list that are gone through in a turn of the loop: others are served in between."""
NOTHING_SAID: Final = (Found(), Reading({}, {}))


class Listing(Discovery):
    """Keeps roster and devices in step with whitelist and list."""

    refused_pause = 600.0
    """Nothing else lists the numbers, but a list that is refused is no trouble of the moment."""

    def __init__(
        self,
        settings: RealtimeSettings,
        catalogue: Catalogue,
        session: Session,
        context: Context,
        roster: Roster,
        licence: Licence,
    ) -> None:
        times = AccountTimes(context, settings.date_format, settings.time_zone)
        super().__init__(catalogue, session, context, Plants(times.dates), times)
        self._settings = settings
        self._roster = roster
        self._licence = licence
        self._interface = next(catalogue.using(Use.DEVICES), None)
        self._described: dict[str, tuple[Found, Reading]] = {}
        """Serial → what the list says of a device, and of its zone."""
        self._kinds: dict[str, DeviceKind] = {}
        """Serial → kind, where an answer said it better than the type."""
        self.plan_interval = 0.0
        """Seconds between looks at the list that the plan has calls for."""

    # the whitelist

    def begin(self) -> None:
        """Take the numbers of the configuration."""
        self._set(self._settings.whitelist.numbers)

    async def watch_file(self) -> None:
        """Read the file of numbers whenever it changes, for ever. One that can't be used changes nothing."""
        file = self._settings.whitelist.file
        if file is None:
            return
        seen, trouble = _mark(file), ""
        while True:
            await asyncio.sleep(FILE_LOOK)
            mark = _mark(file)
            if mark == seen:
                continue
            seen = mark
            try:
                numbers = read_numbers(file)
            except ValueError as error:
                if str(error) != trouble:
                    self._context.log.warning("the whitelist stays as it was", error=str(error))
                trouble = str(error)
                continue
            trouble = ""
            before = len(self._roster)
            self._set(numbers)
            self._context.log.info("the whitelist was read again", numbers=len(numbers), before=before)

    def _set(self, numbers: Sequence[str]) -> None:
        for serial in self._roster.set(numbers):
            self.devices.drop(serial)
            self._described.pop(serial, None)
            self._context.withdraw(serial)
        self.on_found()

    # the list

    @property
    def interval(self) -> float:
        """See `Discovery.interval`."""
        return max(self._settings.list_interval, self.plan_interval)

    @property
    def blind(self) -> bool:
        """See `Discovery.blind`."""
        return self._settings.whitelist.everything and not len(self._roster)

    @property
    def hold(self) -> float:
        """See `Discovery.hold`."""
        return self._licence.wait

    async def run(self) -> None:
        """See `Discovery.run`. Without an interface that lists devices there is nothing to look at."""
        if self._interface is None:
            self.on_round()
        else:
            await super().run()

    def explain(self, error: GatewayError) -> str:
        """See `Discovery.explain`."""
        if isinstance(error, NoLicenceError):
            return f"{error.words}: {error}; {error.advice}"
        if isinstance(error, RefusedError):
            return f'{error}; SEMS lists no devices, so write the serial numbers in the place of whitelist: "*"'
        return super().explain(error)

    async def round(self) -> None:
        """See `Discovery.round`."""
        if self._interface is None:
            return
        listed = {entry.serial: entry async for page in self.pages(self._interface) for entry in page}
        if self._settings.whitelist.everything:
            gone = self._doubts.believe("", self._interface.name, list(self._roster), listed)
            self._set(list(listed if gone else {**dict.fromkeys(self._roster), **listed}))
        for n, (serial, entry) in enumerate(listed.items(), 1):
            if n % TURN == 0:
                await asyncio.sleep(0)
            if serial in self._roster:
                if entry.type:
                    self._roster.found(serial, entry.type)
                found, said = Found(), entry.reading.attributes
                found.add(entry.reading)
                self._described[serial] = found, Reading({}, {name: said.get(name) for name in ZONE})
                if self.devices.get(serial) is not None:
                    self.know(serial)

    # devices

    def target(self, serial: str, type_: str) -> Target:
        """Return a device as answers about it are read."""
        known = self.devices.get(serial)
        if known is not None and known.type == type_:
            return known
        return self._target(serial, type_)

    def know(self, serial: str, said_type: str = "") -> Target:
        """Announce a device of which there are data; `said_type` is what its data call it."""
        kind = self._catalogue.kind_of(said_type) if said_type else None
        if kind is not None:
            self._kinds[serial] = kind
        target = self._target(serial, self._roster.type_of(serial))
        if target != self.devices.get(serial):
            self.devices.put(target)
            self._context.announce(target.device)
        return target

    def _target(self, serial: str, type_: str) -> Target:
        found, said = self._described.get(serial, NOTHING_SAID)
        zone, name = self.times.zone(found.plant or serial, said)
        kind = self._kinds.get(serial) or self._catalogue.kind_of(type_) or DeviceKind.INVERTER
        return Target(found.device(serial, kind, name, {}), type_, zone)


def _mark(file: Path) -> tuple[int, int]:
    """Return what changes when the file does."""
    try:
        found = file.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size
