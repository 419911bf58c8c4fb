"""One account of the Real-Time Data API, as a source. There is no control in this API, and none here."""

from collections.abc import AsyncIterator
from typing import ClassVar, Final

from gateway.api.bridge import BridgeSettings, Context
from gateway.api.served import CallBudget
from gateway.bridges.realtime.licence import Licence
from gateway.bridges.realtime.listing import Listing
from gateway.bridges.realtime.poller import NumberPoller
from gateway.bridges.realtime.roster import METRICS as NUMBERS
from gateway.bridges.realtime.roster import Roster
from gateway.bridges.realtime.settings import ACCOUNT_API, RealtimeSettings
from gateway.core.probe import Probe
from gateway.sems.budget import Budget
from gateway.sems.poller import polling_metrics
from gateway.sems.probe import probe_cloud
from gateway.sems.session import Session
from gateway.sems.unknown_fields import UnknownFields

METRICS: Final = polling_metrics("sems_gateway_realtime")


class RealtimeBridge:
    """Source of whitelisted devices' data."""

    Settings: ClassVar[type[BridgeSettings]] = RealtimeSettings

    def __init__(self, settings: RealtimeSettings, context: Context) -> None:
        self._settings = settings
        self._context = context
        catalogue, credentials = settings.catalogue, settings.credentials
        budget = Budget.shared(credentials.file(context.data_dir, ACCOUNT_API, "budget"), settings.calls, context.clock)
        self._session = Session(
            catalogue,
            settings.host,
            credentials,
            credentials.file(context.data_dir, ACCOUNT_API, "session"),
            context.clock,
            budget,
            context.name,
        )
        self._session.answered = UnknownFields(context).look
        store = context.data_dir / f"{context.name}-numbers.json"
        self._roster = Roster(store, settings.types, context.clock, context.log)
        self._licence = Licence(credentials.file(context.data_dir, ACCOUNT_API, "licence"), context.clock, context.log)
        self._listing = Listing(settings, catalogue, self._session, context, self._roster, self._licence)
        self._poller = NumberPoller(
            settings, catalogue, self._session, context, self._roster, self._listing, self._licence
        )
        self._listing.on_found = self._poller.found
        self._listing.on_round = self._poller.discovered
        self._listing.on_failed = self._poller.unlisted

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
        """Log in and read, in the background: SEMS may be away."""
        self._roster.restore()
        self._licence.restore()
        self._listing.times.restore()
        self._listing.begin()
        await self._session.start()
        METRICS.watch(self._context.name, self._poller)
        NUMBERS.watch(self._context.name, self._roster)
        self._context.report(up=None, detail=f"connecting to SEMS at {self._settings.host}")
        self._context.spawn(self._listing.run(), "list")
        self._context.spawn(self._poller.run(), "reading")
        self._context.spawn(self._poller.keep(), "keeping")
        self._context.spawn(self._listing.times.run(), "times")
        if self._settings.whitelist.file is not None:
            self._context.spawn(self._listing.watch_file(), "whitelist")

    async def stop(self) -> None:
        """Close the session."""
        METRICS.forget(self._context.name)
        NUMBERS.forget(self._context.name)
        await self._session.stop()
