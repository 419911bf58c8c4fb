"""A session with one SEMS account: calls by the catalogue, with token, call budget and errors by what is done next.

Token, login back-off and budget are kept in `data_dir`, so that a restart costs no login, never hammers, and never
overruns.
"""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import structlog

from gateway.core.clock import Clock
from gateway.sems.budget import Budget, Priority
from gateway.sems.catalogue import Catalogue, Json
from gateway.sems.errors import TokenExpiredError
from gateway.sems.exchange import Exchange
from gateway.sems.login import Credentials, Login, Pass
from gateway.sems.metrics import METRICS, Watched
from gateway.sems.troubles import Troubles

__all__ = ["Credentials", "Session"]

SUBJECT_ARGS: Final = ("plant", "plants", "serial", "serials")


class Session:
    """Makes calls for one account. All users of an account share one session."""

    def __init__(
        self,
        catalogue: Catalogue,
        url: str,
        credentials: Credentials,
        store: Path,
        clock: Clock,
        budget: Budget,
        name: str = "sems",
    ) -> None:
        self.budget = budget
        self._catalogue = catalogue
        self._name = name
        log = structlog.get_logger("sems").bind(bridge=name, account=credentials.account)
        self._troubles = Troubles(log, clock)
        self._exchange = Exchange(catalogue, url, clock, budget)
        self._login = Login(catalogue, credentials, store, clock, self._exchange, self._troubles, log)

    async def start(self) -> None:
        """Read what was kept; open no connection yet."""
        await self._login.start()
        await self.budget.settle()
        await self._exchange.start()
        METRICS.watch(self._name, Watched(self._exchange.calls, self._troubles.counts, self.budget))

    async def stop(self) -> None:
        """Close connections."""
        METRICS.forget(self._name)
        await self._login.stop()
        await self._exchange.stop()
        await self.budget.settle()

    async def call(
        self,
        name: str,
        args: Mapping[str, object],
        *,
        priority: Priority = Priority.POLLING,
        timeout: float | None = None,
        setpoint: str = "",
        more: Sequence[Mapping[str, object]] = (),
    ) -> Json:
        """Call an interface of the catalogue and return `data` of its answer.

        A token that has expired is renewed once, and the call repeated once. `priority` says which share of the
        account's calls it may use; `setpoint` is the one commanded; `more` is for whom else the call is, see
        `Interface.together`. Past `timeout` seconds nothing is sent any more.
        Raises the errors of `gateway.sems.errors`; KeyError for an interface or argument that is not there.
        """
        interface = self._catalogue.interface(name)
        fields = interface.together([args, *more], setpoint)
        # Calls for history may have to wait while control goes on, so they are not of one subject.
        subject = (priority, *(hash(str(args[arg])) for arg in SUBJECT_ARGS if arg in args))
        deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout

        async def attempt(entered: Pass) -> Json:
            data = await self._exchange.request(
                interface, fields, headers=self._headers(entered), priority=priority, deadline=deadline
            )
            self._login.proved()
            return data

        with self._troubles.watch(name, subject):
            self.budget.check(priority)  # or a login would be made for a call that can't be
            entered = await self._login.enter(deadline)
            try:
                return await attempt(entered)
            except TokenExpiredError as error:
                self._troubles.met(error, name, subject)
            renewed = await self._login.enter(deadline, instead_of=entered)
            try:
                return await attempt(renewed)
            except TokenExpiredError:
                self._login.useless(renewed)
                raise

    def _headers(self, entered: Pass) -> dict[str, str]:
        token = self._catalogue.token
        return {token.header: token.prefix + entered.token}
