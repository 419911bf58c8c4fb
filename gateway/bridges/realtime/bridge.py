"""One account of the Real-Time Data API, as a source. There is no control in this API, and none here."""

import asyncio
from typing import ClassVar, Final

from gateway.bridges.realtime.listing import Listing
from gateway.bridges.realtime.metrics import METRICS
from gateway.bridges.realtime.reader import Reader
from gateway.bridges.realtime.roster import Roster
from gateway.bridges.realtime.settings import ACCOUNT_API, RealtimeSettings
from gateway.core.bridge import BridgeSettings, Context
from gateway.core.errors import GatewayError, NotSentError, RefusedError
from gateway.sems.budget import Budget
from gateway.sems.errors import NoLicenceError
from gateway.sems.session import Session

RETRY_FIRST: Final = 2.0
RETRY_MOST: Final = 60.0
REFUSED_LEAST: Final = 600.0
"""Seconds until a list that SEMS refuses is asked for again, where nothing else tells the numbers."""


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
        store = context.data_dir / f"{context.name}-numbers.json"
        self._roster = Roster(store, settings.types, context.clock, context.log)
        self._listing = Listing(settings, catalogue, self._session, context, self._roster)
        self._reader = Reader(settings, catalogue, self._session, context, self._roster, self._listing)
        self._listing.on_changed = self._reader.changed

    async def start(self) -> None:
        """Log in and read, in the background: SEMS may be away."""
        self._roster.restore()
        self._listing.begin()
        await self._session.start()
        METRICS.watch(self._context.name, self._reader)
        self._context.report(up=None, detail=f"connecting to SEMS at {self._settings.host}")
        self._context.spawn(self._list(), "list")
        self._context.spawn(self._reader.run(), "reading")
        self._context.spawn(self._reader.keep(), "keeping")
        if self._settings.whitelist.file is not None:
            self._context.spawn(self._listing.watch_file(), "whitelist")

    async def stop(self) -> None:
        """Close the session."""
        METRICS.forget(self._context.name)
        await self._session.stop()

    async def _list(self) -> None:
        """Look at the list of devices, again and again. No failure of SEMS ends this."""
        if not self._listing.has_list:
            self._reader.listed()
            return
        pause, trouble = RETRY_FIRST, False
        everything = self._settings.whitelist.everything
        while True:
            try:
                await self._listing.round()
            except GatewayError as error:
                if not isinstance(error, NotSentError) and not everything:
                    self._reader.listed()  # the numbers are known without it
                if everything and not len(self._roster):
                    self._context.report(up=False, detail=self._in_words(error))
                elif not trouble:
                    self._context.log.warning("SEMS does not list the devices", error=str(error))
                trouble = True
                wait = (error.retry_after or 0.0) if isinstance(error, NotSentError) else 0.0
                least = REFUSED_LEAST if isinstance(error, RefusedError) else pause
                await asyncio.sleep(max(least, wait))
                pause = min(pause * 2, RETRY_MOST)
                continue
            if trouble:
                self._context.log.info("SEMS lists the devices again")
            pause, trouble = RETRY_FIRST, False
            self._reader.listed()
            await asyncio.sleep(max(self._settings.list_interval, self._reader.plan.list_interval))

    @staticmethod
    def _in_words(error: GatewayError) -> str:
        if isinstance(error, NoLicenceError):
            return f"{error.words}: {error}; {error.advice}"
        if isinstance(error, RefusedError):
            return f'{error}; SEMS lists no devices, so write the serial numbers in the place of whitelist: "*"'
        return f"{error}; trying again"
