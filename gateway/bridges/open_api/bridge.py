"""One SEMS account over an Open API, as source, controller and historian."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import ClassVar, Final
from zoneinfo import ZoneInfo

from gateway.bridges.open_api.control import Control
from gateway.bridges.open_api.discovery import Discovery
from gateway.bridges.open_api.history import History
from gateway.bridges.open_api.metrics import METRICS
from gateway.bridges.open_api.planner import Wishes
from gateway.bridges.open_api.polling import Poller
from gateway.bridges.open_api.settings import OpenApiSettings
from gateway.core.bridge import BridgeSettings, Context, Effort, Outcome
from gateway.core.errors import GatewayError, NotSentError
from gateway.core.model import Command, Outline, Page, Pause, Resolution, Value
from gateway.sems.budget import Budget
from gateway.sems.plants import Plants
from gateway.sems.session import Session

RETRY_FIRST: Final = 2.0
RETRY_MOST: Final = 60.0
RETRY_INCOMPLETE: Final = 300.0
"""Seconds until plants are looked into again of which one could not be."""
FIRST_SHARE: Final = 0.5
"""Of the calls for polling that the first discovery may use."""


class OpenApiBridge:
    """Source, controller and historian."""

    Settings: ClassVar[type[BridgeSettings]] = OpenApiSettings

    def __init__(self, settings: OpenApiSettings, context: Context) -> None:
        self._settings = settings
        self._context = context
        catalogue, credentials = settings.catalogue, settings.credentials
        budget = Budget.shared(
            credentials.file(context.data_dir, settings.platform.api, "budget"), settings.calls, context.clock
        )
        self._session = Session(
            catalogue,
            settings.host,
            credentials,
            credentials.file(context.data_dir, settings.platform.api, "session"),
            context.clock,
            budget,
            context.name,
        )
        self._plants = Plants()
        self._discovery = Discovery(catalogue, self._session, context, self._plants, ZoneInfo(settings.time_zone))
        self._discovery.allowance.per_hour = max(1, int(FIRST_SHARE * budget.for_polling))
        wishes = Wishes(settings.poll_interval, settings.pushed_poll_interval, settings.discovery_interval)
        self._poller = Poller(catalogue, self._session, context, self._plants, self._discovery, wishes)
        self._discovery.on_found = self._poller.found
        self._control = Control(
            catalogue,
            self._session,
            context,
            self._plants,
            take_dispatch=settings.take_dispatch,
            read_back=settings.read_back,
            unsettle=self._poller.unsettle,
        )
        self._history = History(catalogue, self._session, context, self._plants)

    async def start(self) -> None:
        """Log in, discover and poll, in the background: SEMS may be away."""
        await self._session.start()
        METRICS.watch(self._context.name, self._poller)
        self._context.report(up=None, detail=f"connecting to SEMS at {self._settings.host}")
        self._context.spawn(self._discover(), "discovery")
        self._context.spawn(self._poller.run(), "polling")

    async def stop(self) -> None:
        """Close the session."""
        METRICS.forget(self._context.name)
        await self._session.stop()

    def takes(self, serial: str, setpoint: str) -> bool:
        """See `Controller.takes`."""
        return self._control.takes(serial, setpoint)

    def turn(self, command: Command) -> asyncio.Future[None]:
        """See `Paced.turn`."""
        return self._control.turn(command)

    def leave(self, command: Command) -> None:
        """See `Paced.leave`."""
        self._control.leave(command)

    def effort(self, setpoint: str, serials: Sequence[str]) -> Effort:
        """See `Estimator.effort`."""
        return self._control.effort(setpoint, serials)

    async def send(self, command: Command, in_force: Mapping[str, Value], timeout: float) -> str:
        """See `Controller.send`."""
        return await self._control.send(command, in_force, timeout)

    async def result(self, command: Command, receipt: str) -> Outcome:
        """See `Controller.result`."""
        return await self._control.result(command, receipt)

    def keeps(self, serial: str) -> bool:
        """See `Historian.keeps`."""
        return self._history.keeps(serial)

    def outline(self, serial: str, start: datetime, end: datetime, resolution: Resolution) -> Outline:
        """See `Historian.outline`."""
        return self._history.outline(serial, start, end, resolution)

    def history(
        self, serial: str, start: datetime, end: datetime, resolution: Resolution
    ) -> AsyncIterator[Page | Pause]:
        """See `Historian.history`."""
        return self._history.history(serial, start, end, resolution)

    async def _discover(self) -> None:
        """Look for plants and devices, again and again. No failure of SEMS ends this."""
        clock = self._context.clock
        pause, trouble = RETRY_FIRST, False
        while True:
            began = clock.monotonic()
            try:
                await self._discovery.round()
            except GatewayError as error:
                if not len(self._plants):
                    self._context.report(up=False, detail=f"{error}; trying again")
                elif not trouble:
                    self._context.log.warning("devices can't be looked for", error=str(error))
                trouble = True
                wait = (error.retry_after or 0.0) if isinstance(error, NotSentError) else 0.0
                await asyncio.sleep(max(pause, wait))
                pause = min(pause * 2, RETRY_MOST)
                continue
            if trouble and len(self._plants):
                self._context.log.info("devices can be looked for again")
            pause, trouble = RETRY_FIRST, False
            self._plants.looked_for = self._plants.looked_for or self._discovery.complete
            self._poller.discovered()
            every = self._settings.discovery_interval
            if not self._discovery.complete:
                every = min(every, RETRY_INCOMPLETE)
            await asyncio.sleep(max(0.0, began + every - clock.monotonic()))
