"""Finds what an account holds, again and again: what the ways in to SEMS have in common.

A way in says what one round is: plants and their devices, or the serial numbers of a whitelist.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC
from typing import Final

import msgspec

from gateway.api.bridge import Context
from gateway.core.errors import GatewayError, NotSentError, RefusedError
from gateway.core.model import Device, DeviceKind, Range
from gateway.sems.account_times import AccountTimes
from gateway.sems.allowance import Allowance
from gateway.sems.budget import Priority
from gateway.sems.calls import Entry, read_entries
from gateway.sems.catalogue import Catalogue, Interface, Json
from gateway.sems.doubts import AGAIN, ListDoubts
from gateway.sems.errors import NoListError
from gateway.sems.normalise import Reading, has_list
from gateway.sems.plants import Plants, Target
from gateway.sems.session import Session

PAGE_SIZE: Final = 100
MAX_PAGES: Final = 1000
TICK: Final = 0.01
"""Seconds that are not worth dividing: sums of times are not exact."""
RETRY_FIRST: Final = 2.0
MAX_RETRY_SECONDS: Final = 60.0
NOBODY: Final = Target(Device(serial="", kind=DeviceKind.INVERTER), "", UTC)


class Found(msgspec.Struct):
    """A device, as the answers so far describe it; the first that says something is believed."""

    plant: str = ""
    type: str = ""
    name: str = ""
    model: str = ""
    rated_power: float | None = None
    battery_power_max: float | None = None

    def add(self, reading: Reading) -> None:
        """Take in what another answer says."""
        self.plant = self.plant or reading.text("plant")
        self.name = self.name or reading.text("name")
        self.model = self.model or reading.text("model")
        if self.rated_power is None:
            self.rated_power = reading.number("rated_power")
        if self.battery_power_max is None:
            self.battery_power_max = reading.number("battery_power_max")

    def device(self, serial: str, kind: DeviceKind, zone: str, setpoints: Mapping[str, Range]) -> Device:
        """Return it as the gateway knows devices."""
        return Device(
            serial=serial,
            kind=kind,
            name=self.name,
            model=self.model,
            plant=self.plant,
            rated_power=self.rated_power,
            time_zone=zone,
            setpoints=setpoints,
        )


class Discovery(ABC):
    """Looks at an account's lists."""

    refused_pause = 0.0
    """Seconds at least until a list that SEMS refuses is asked for again."""

    def __init__(
        self, catalogue: Catalogue, session: Session, context: Context, devices: Plants, times: AccountTimes
    ) -> None:
        self._catalogue = catalogue
        self._session = session
        self._context = context
        self.devices = devices
        """What is announced."""
        self.times = times
        times.on_inferred = self._move
        self.allowance = Allowance(session.budget.for_polling, context.clock)
        """Calls an hour."""
        self._doubts = ListDoubts(context)
        self.on_found: Callable[[], None] = lambda: None
        """Called when something may have come or gone."""
        self.on_round: Callable[[], None] = lambda: None
        """Called when a round has come to its end."""
        self.on_failed: Callable[[GatewayError], None] = lambda _: None
        """Called with what has ended a round."""

    @abstractmethod
    async def round(self) -> None:
        """Look at everything once. Raises what stands in the way of all; then all stays as it was."""

    @property
    @abstractmethod
    def interval(self) -> float:
        """Seconds from one round to the next, unless a list is doubted."""

    @property
    @abstractmethod
    def blind(self) -> bool:
        """Whether nothing can be read without a list, and there was none yet."""

    @property
    def doubtful(self) -> bool:
        """Whether a list is doubted, and to be read again soon."""
        return bool(self._doubts)

    async def run(self) -> None:
        """Make rounds, for ever. No failure of SEMS ends this."""
        clock, pause, trouble = self._context.clock, RETRY_FIRST, False
        while True:
            began = clock.monotonic()
            try:
                with self._session.reading("the list of devices"):
                    await self.round()
            except GatewayError as error:
                if self.blind:
                    self._context.report(up=False, detail=self.explain(error))
                elif not trouble:
                    self._context.log.warning("SEMS does not list the devices", error=str(error))
                trouble = True
                self.on_failed(error)
                wait = (error.retry_after or 0.0) if isinstance(error, NotSentError) else 0.0
                least = self.refused_pause if isinstance(error, RefusedError) else 0.0
                await asyncio.sleep(max(pause, wait, least))
                pause = min(pause * 2, MAX_RETRY_SECONDS)
                continue
            if trouble and not self.blind:
                self._context.log.info("SEMS lists the devices again")
            pause, trouble = RETRY_FIRST, False
            self.on_round()
            every = min(self.interval, AGAIN) if self.doubtful else self.interval
            await asyncio.sleep(max(0.0, began + every - clock.monotonic()))

    def explain(self, error: GatewayError) -> str:
        """Return what the bridge's state says of an error while nothing is known."""
        return f"{error}; trying again"

    # the way of a call

    async def pages(self, interface: Interface) -> AsyncIterator[list[Entry]]:
        """Yield what a list names, page by page.

        A page may be shorter than asked for and not be the last, so it ends with the first that brings nothing new.
        """
        known: set[str] = set()
        short = False
        for page in range(1, MAX_PAGES + 1):
            try:
                data = await self.call(interface, {"page": page, "page_size": PAGE_SIZE}, is_list=page == 1)
            except RefusedError:
                if not short:
                    raise
                return  # there is no such page
            entries = read_entries(interface, data, [NOBODY], self.devices, self._context.clock.now())
            listed = {entry.serial: entry async for entry in entries if entry.serial}
            new = [entry for serial, entry in listed.items() if serial not in known]
            if not new:
                return
            short = len(listed) < PAGE_SIZE
            known |= listed.keys()
            yield new

    async def call(self, interface: Interface, args: dict[str, object], *, is_list: bool = False) -> Json:
        """Make a call when there is one to make: discovery has its own part of the account's calls.

        Raises NoListError where a list `is_list` and there is none: that says nothing about what is there.
        """
        while wait := max(self.hold, self._session.budget.wait(Priority.POLLING)):
            await asyncio.sleep(max(wait, TICK))
        self.allowance.take()
        data = await self._session.call(interface.name, args)
        if is_list and not has_list(interface, data):
            raise NoListError(f"SEMS answered {interface.name} with success, and without a list")
        return data

    @property
    def hold(self) -> float:
        """Seconds for which no call may be made, whatever the account's budget says."""
        return self.allowance.wait()

    def _move(self, plant: str) -> None:
        """Put a plant into the zone that was found by its times."""
        if found := self.times.inferred(plant):
            for target in self.devices.move(plant, *found):
                self._context.announce(target.device)
