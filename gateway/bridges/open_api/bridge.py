"""One SEMS account over an Open API, as source, controller and history provider."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import ClassVar, Final

from gateway.api.bridge import BridgeSettings, Context
from gateway.api.served import CallBudget
from gateway.bridges.open_api.control import Control
from gateway.bridges.open_api.discovery import PlantDiscovery
from gateway.bridges.open_api.gaps.filler import METRICS as GAPS
from gateway.bridges.open_api.gaps.filler import Filler
from gateway.bridges.open_api.history import History
from gateway.bridges.open_api.poller import PlantPoller
from gateway.bridges.open_api.settings import OpenApiSettings
from gateway.core.controller import CallEstimate, Outcome
from gateway.core.model import Command, HistoryPlan, Page, RateLimitWait, Resolution, Value
from gateway.core.probe import Probe
from gateway.sems.account_times import AccountTimes
from gateway.sems.budget import Budget
from gateway.sems.listed import Listed
from gateway.sems.plan import PollIntervals
from gateway.sems.plants import Plants
from gateway.sems.poller import polling_metrics
from gateway.sems.probe import probe_cloud
from gateway.sems.session import Session
from gateway.sems.unknown_fields import UnknownFields

METRICS: Final = polling_metrics("sems_gateway_open_api")
FIRST_SHARE: Final = 0.5
"""Of the calls for polling that the first discovery may use."""


class OpenApiBridge:
    """Source, controller and history provider."""

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
        self._session.answered = UnknownFields(context).look
        self._times = AccountTimes(context, settings.date_format, settings.time_zone)
        self._plants = Plants(self._times.dates)
        listed = Listed(context.data_dir / f"{context.name}-listed.json", context.log)
        self._discovery = PlantDiscovery(
            catalogue,
            self._session,
            context,
            self._plants,
            self._times,
            settings.given,
            listed,
            settings.discovery_interval,
        )
        self._discovery.allowance.per_hour = max(1, int(FIRST_SHARE * budget.for_polling))
        intervals = PollIntervals(settings.poll_interval, settings.pushed_poll_interval, settings.discovery_interval)
        self._poller = PlantPoller(catalogue, self._session, context, self._discovery, intervals)
        self._discovery.on_found = self._poller.found
        self._discovery.on_round = self._discovered
        self._control = Control(
            catalogue,
            self._session,
            context,
            self._plants,
            take_dispatch=settings.take_dispatch,
            loggers=settings.loggers,
            read_back=settings.read_back,
            invalidate=self._poller.invalidate,
        )
        self._history = History(catalogue, self._session, context, self._plants, self._times.dates)
        self._filler = Filler(settings.fill_gaps_within, catalogue, context, self._history, self._plants, self)
        self._poller.on_read = self._filler.read

    def probe(self) -> AsyncIterator[Probe]:
        """See `Probing`."""
        return probe_cloud(self._settings.host, self._context.clock)

    def call_budget(self) -> CallBudget:
        """See `Budgeted`."""
        return self._session.budget.status()

    @property
    def where(self) -> str:
        """For the line at start."""
        return self._settings.host

    async def start(self) -> None:
        """Log in, discover and poll, in the background: SEMS may be away."""
        self._times.restore()
        await self._session.start()
        METRICS.watch(self._context.name, self._poller)
        self._context.report(up=None, detail=f"connecting to SEMS at {self._settings.host}")
        self._context.spawn(self._discovery.run(), "discovery")
        self._context.spawn(self._poller.run(), "polling")
        self._context.spawn(self._times.run(), "times")
        await self._filler.start(self._context.spawn)
        GAPS.watch(self._context.name, self._filler)

    async def stop(self) -> None:
        """Close the session."""
        METRICS.forget(self._context.name)
        GAPS.forget(self._context.name)
        await self._filler.stop()
        await self._session.stop()

    def takes(self, serial: str, setpoint: str) -> bool:
        """See `Controller.takes`."""
        return self._control.takes(serial, setpoint)

    def turn(self, command: Command) -> asyncio.Future[None]:
        """See `Admitting.turn`."""
        return self._control.turn(command)

    def leave(self, command: Command) -> None:
        """See `Admitting.leave`."""
        self._control.leave(command)

    def call_estimate(self, setpoint: str, serials: Sequence[str]) -> CallEstimate:
        """See `Estimator.call_estimate`."""
        return self._control.call_estimate(setpoint, serials)

    async def send(self, command: Command, in_force: Mapping[str, Value], timeout: float) -> str:
        """See `Controller.send`."""
        return await self._control.send(command, in_force, timeout)

    async def result(self, command: Command, receipt: str) -> Outcome:
        """See `Controller.result`."""
        return await self._control.result(command, receipt)

    def keeps(self, serial: str) -> bool:
        """See `HistoryProvider.keeps`."""
        return self._history.keeps(serial)

    def history_plan(self, serial: str, start: datetime, end: datetime, resolution: Resolution) -> HistoryPlan:
        """See `HistoryProvider.history_plan`."""
        return self._history.history_plan(serial, start, end, resolution)

    def history(
        self, serial: str, start: datetime, end: datetime, resolution: Resolution
    ) -> AsyncIterator[Page | RateLimitWait]:
        """See `HistoryProvider.history`."""
        return self._history.history(serial, start, end, resolution)

    def _discovered(self) -> None:
        """Take note that a look for devices has come to its end."""
        self._plants.looked_for = self._plants.looked_for or self._discovery.complete
        self._poller.discovered()
