"""A session with one SEMS account: calls by the catalogue, with token, call budget and errors by what is done next.

Token, login back-off and budget are kept in `data_dir`, so that a restart costs no login, never hammers, and never
overruns.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import structlog

from gateway.core.clock import Clock
from gateway.core.metrics import Metrics, counter, gauge
from gateway.sems.budget import Budget, Priority
from gateway.sems.catalogue import Catalogue, Interface, Json
from gateway.sems.credentials import Credentials
from gateway.sems.error_tracker import ErrorTracker
from gateway.sems.errors import KeptOutError, TokenExpiredError, understood
from gateway.sems.exchange import Exchange
from gateway.sems.login import AccessToken, Login

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
        self._troubles = ErrorTracker(log, clock)
        self._exchange = Exchange(catalogue, url, clock, budget)
        self.answered: Callable[[Interface, Json], None] = lambda _, __: None
        """Shown every answer that is a success, of whatever call."""
        self.calls: Final = self._exchange.calls
        """Interface → calls made."""
        self.errors: Final = self._troubles.counts
        """Kind → how often it was met."""
        self._login = Login(catalogue, credentials, store, clock, self._exchange, self._troubles, log)

    async def start(self) -> None:
        """Read what was kept; open no connection yet."""
        await self._login.start()
        await self.budget.settle()
        await self._exchange.start()
        METRICS.watch(self._name, self)

    async def stop(self) -> None:
        """Close connections."""
        METRICS.forget(self._name)
        await self._login.stop()
        await self._exchange.stop()
        await self.budget.settle()

    def listen(self, receive: Callable[[Interface, Mapping[str, Json], int, bytes], None]) -> None:
        """Show every answer as it comes, the login's too, before anything is read into it; see `Exchange.on_answer`."""
        self._exchange.on_answer = receive

    async def call(
        self,
        name: str,
        args: Mapping[str, object],
        *,
        priority: Priority = Priority.POLLING,
        timeout: float | None = None,
        setpoint: str = "",
        more: Sequence[Mapping[str, object]] = (),
        may_leave: Callable[[], bool] | None = None,
    ) -> Json:
        """Call an interface of the catalogue and return `data` of its answer.

        A token that has expired is renewed once, and the call repeated once. `priority` says which share of the
        account's calls it may use; `setpoint` is the one commanded; `more` is for whom else the call is, see
        `Interface.together`. Past `timeout` seconds nothing is sent any more, nor where `may_leave` says no.
        Raises the errors of `gateway.sems.errors`; KeyError for an interface or argument that is not there.
        """
        interface = self._catalogue.interface(name)
        fields = interface.together([args, *more], setpoint)
        # Calls for history may have to wait while control goes on, so they are not of one subject.
        subject = (priority, *(hash(str(args[arg])) for arg in SUBJECT_ARGS if arg in args))
        deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
        token = self._catalogue.token

        async def attempt(entered: AccessToken) -> Json:
            data = await self._exchange.request(
                interface,
                fields,
                headers={token.header: token.prefix + entered.token},
                priority=priority,
                deadline=deadline,
                may_leave=may_leave,
            )
            self._login.proved(entered)
            with understood(f"SEMS's answer to {name}"):
                self.answered(interface, data)
            return data

        who = (name, *(str(args[arg]) for arg in SUBJECT_ARGS if arg in args))
        with self._troubles.watch(name, subject):
            self.budget.check(priority)  # or a login would be made for a call that can't be
            entered = await self._login.enter(deadline)
            try:
                return await attempt(entered)
            except TokenExpiredError as error:
                if self._login.is_alone(entered, who):
                    raise KeptOutError(f"SEMS takes the token for other calls, and not for {name}: {error}") from error
                self._troubles.met(error, name, subject)
            renewed = await self._login.enter(deadline, instead_of=entered)
            try:
                return await attempt(renewed)
            except TokenExpiredError:
                self._login.not_taken(renewed, who)
                raise

    @contextmanager
    def reading(self, name: str, *subject: object) -> Iterator[None]:
        """Do what follows a call: what nobody foresaw becomes NotUnderstoodError, counted and logged like the call's.

        `name` is an interface's, or says what is read; `subject` whom it is about.
        """
        with self._troubles.watch(name, ("reading", *subject)), understood(name):
            yield


METRICS: Final = Metrics[Session](
    counter("sems_gateway_sems_calls", "calls made to SEMS", lambda session: session.calls, "interface"),
    counter(
        "sems_gateway_sems_errors",
        "calls to SEMS that did not work out; see docs/errors.md",
        lambda session: session.errors,
        "error",
    ),
    gauge(
        "sems_gateway_sems_budget_used",
        "calls the account made within the last hour",
        lambda session: session.budget.used,
    ),
    gauge(
        "sems_gateway_sems_budget_calls",
        "calls the account may make within an hour",
        lambda session: session.budget.per_hour,
    ),
)
