"""The token of one account: got by one login, kept over restarts; a refused login backs off, also over restarts."""

import asyncio
import math
from collections import deque
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final
from weakref import WeakValueDictionary

import httpx
import msgspec
import structlog

from gateway.core import files
from gateway.core.bad_json import BAD_JSON
from gateway.core.clock import Clock
from gateway.core.errors import UnsureError
from gateway.core.kept_file import restored
from gateway.core.model import iso
from gateway.sems.budget import HOUR, Priority
from gateway.sems.catalogue import Catalogue, Json, Use
from gateway.sems.credentials import Credentials
from gateway.sems.error_tracker import ErrorTracker
from gateway.sems.errors import (
    CallError,
    HttpStatusError,
    LoginHeldError,
    LoginRefusedError,
    NoDataError,
    SemsRefusedError,
    TokenExpiredError,
    UnreachableError,
    WrongParameterError,
    understood,
)
from gateway.sems.exchange import Exchange
from gateway.sems.normalise import entries, read

BACKOFF_FIRST: Final = 60.0
MAX_BACKOFF_SECONDS: Final = 6 * 3600.0
MARGIN: Final = 300.0
"""Seconds before its end at which a token is not used any more."""
KEPT_OUT: Final = 3600.0
"""Seconds for which no new login is made for a call that a new token did not let in."""
MAX_LOGINS_AN_HOUR: Final = 20
"""Within an hour, though each works: two programs that end each other's tokens would log in with every call."""
TOKEN_LONGEST: Final = 8192
MAX_LIFETIME_SECONDS: Final = 90 * 86400.0
"""Seconds; whoever promises more of a token is not believed."""
STOP_WAIT: Final = 3.0
"""Seconds that a login in flight is given at the end: SEMS's refusal must be received, or the next start asks again."""
REFUSING: Final = frozenset({400, 401, 403})
"""HTTP statuses by which a login is refused."""


class AccessToken(msgspec.Struct, frozen=True, eq=False):
    """What one login brought. Two are different though SEMS may give the same token twice."""

    token: str


Aware = Annotated[datetime, msgspec.Meta(tz=True)]


class _Kept(msgspec.Struct):
    """What outlives a restart."""

    fingerprint: str = ""
    token: str = ""
    expires: Aware | None = None
    refusals: int = 0
    """Logins in a row that were refused, or brought a token that was not taken."""
    no_login_before: Aware | None = None
    reject: bool = False
    """Whether it was the token that was not taken."""


Who = tuple[str, ...]
"""A call: its interface, and whom it is about."""


class Login:
    """Gets the token. However many ask at once, there is one login, and no impatience of theirs ends it."""

    def __init__(
        self,
        catalogue: Catalogue,
        credentials: Credentials,
        store: Path,
        clock: Clock,
        exchange: Exchange,
        troubles: ErrorTracker,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self._interface = next(catalogue.using(Use.LOGIN))
        self._lifetime = catalogue.token.lifetime
        self._credentials = credentials
        self._store = store
        self._clock = clock
        self._exchange = exchange
        self._troubles = troubles
        self._log = log
        self._access_token: AccessToken | None = None
        self._refusals = 0
        self._rejected = False
        self._taken: AccessToken | None = None
        """The newest that SEMS has taken for some call."""
        self._doubted: AccessToken | None = None
        """One that was new, and was not taken for the first call it was used for."""
        self._doubted_by = ""
        """The interface of that call."""
        self._kept_out: dict[Who, float] = {}
        """Calls for which a new pass was not taken → when, on the monotonic clock."""
        # On the monotonic clock, for the wall clock may jump.
        self._expires = -math.inf
        self._no_login_before = -math.inf
        self._logins: deque[float] = deque(maxlen=MAX_LOGINS_AN_HOUR)
        self._stored: _Kept | None = None
        """What is in the file, as far as we know; another session of the account may have written since."""
        self._turn = _turn(store)
        self._task: asyncio.Task[AccessToken] | None = None

    async def start(self) -> None:
        """Read what was kept."""
        self._adopt()

    def _adopt(self) -> None:
        """Go by what the file says, where that is not what we wrote ourselves."""
        kept = self._read_store()
        if kept is None:
            return
        self._access_token = AccessToken(kept.token) if kept.token else None
        self._refusals, self._rejected = kept.refusals, kept.reject
        self._expires = self._monotonic(kept.expires, self._lifetime)
        self._no_login_before = self._monotonic(kept.no_login_before, _backoff(kept.refusals))

    async def stop(self) -> None:
        """Let a login come to its end, if it does soon."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=STOP_WAIT)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def enter(self, deadline: float | None = None, instead_of: AccessToken | None = None) -> AccessToken:
        """Return a pass that holds as far as we know, and is not the one that was found not to.

        `deadline` is on the loop's clock. Raises what the exchange raises, LoginRefusedError and LoginHeldError, but
        no UnsureError, for the call that needs the pass certainly was not made.
        """
        if (held := self._other_than(instead_of)) is not None:
            return held
        if instead_of is not None and (self._refusals or instead_of is self._doubted):
            self.reject(instead_of)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._log_in(), name="SEMS login")
            self._task.add_done_callback(_heard)
        try:
            async with asyncio.timeout_at(deadline):
                return await asyncio.shield(self._task)
        except TimeoutError:
            raise UnreachableError("SEMS did not answer the login in time") from None
        except UnsureError as error:
            not_made = UnreachableError(str(error))
            not_made.noted = True
            raise not_made from error

    def proved(self, used: AccessToken) -> None:
        """Take note that SEMS takes the token."""
        self._taken, self._doubted = used, None
        self._troubles.well(self._interface.name)
        if self._refusals:
            self._refusals = 0
            self._keep()

    def reject(self, found: AccessToken) -> None:
        """Take note that SEMS does not take a token though it is new: that login was as good as refused."""
        if found is self._access_token:
            self._back_off(reject=True)

    def not_taken(self, used: AccessToken, who: Who) -> None:
        """Take note that SEMS does not take a token, though it is new, for one call.

        It may be that call's own trouble: that shows once the same token is taken for another. Where it is not taken
        for the next one either, the login was as good as refused.
        """
        self._kept_out[who] = self._clock.monotonic()
        if self._taken is None or (used is self._doubted and who[0] != self._doubted_by):
            self.reject(used)
        elif used is not self._taken:
            self._doubted, self._doubted_by = used, who[0]

    def is_alone(self, used: AccessToken, who: Who) -> bool:
        """Return whether SEMS takes this token for others, and lately took no new one for this call.

        An interface that keeps out two devices keeps out all.
        """
        now = self._clock.monotonic()
        self._kept_out = {kept: at for kept, at in self._kept_out.items() if now - at < KEPT_OUT}
        if used is not self._taken:
            return False
        return who in self._kept_out or sum(kept[0] == who[0] for kept in self._kept_out) > 1

    async def _log_in(self) -> AccessToken:
        async with self._turn:
            found = self._access_token
            self._adopt()  # another bridge of the account may have logged in, or been refused
            held = self._other_than(found)
            return await self._log_in_alone() if held is None else held

    def _other_than(self, known: AccessToken | None) -> AccessToken | None:
        token = self._access_token
        return token if token is not known and self._clock.monotonic() < self._expires else None

    async def _log_in_alone(self) -> AccessToken:
        with self._troubles.watch(self._interface.name):
            self._check()
            try:
                data = await self._ask()
            except (SemsRefusedError, TokenExpiredError) as error:
                raise self._refused(error) from error
            except HttpStatusError as error:
                if error.status not in REFUSING:
                    raise
                raise self._refused(error) from error
            self._logins.append(self._clock.monotonic())
            with understood("SEMS's answer to the login"):
                token, lifetime = self._read(data)
            self._access_token = AccessToken(token)
            self._expires = self._clock.monotonic() + lifetime - min(MARGIN, lifetime / 10)
            self._keep()
            return self._access_token

    def _check(self) -> None:
        """Raise unless one may log in now."""
        now = self._clock.monotonic()
        wait = self._no_login_before - now
        if wait > 0 and self._rejected:
            raise LoginHeldError(f"SEMS does not take the tokens it gives; next login at {self._after(wait)}", wait)
        if wait > 0:
            raise self._refusal("SEMS refused the last login", wait)
        if len(self._logins) == MAX_LOGINS_AN_HOUR and (wait := self._logins[0] + HOUR - now) > 0:
            raise LoginHeldError(
                f"SEMS ended the tokens of {MAX_LOGINS_AN_HOUR} logins in an hour; next login at {self._after(wait)}",
                wait,
            )

    async def _ask(self) -> Json:
        interface, credentials = self._interface, self._credentials
        args = {"account": credentials.account, "password_md5": credentials.password_md5}
        auth = httpx.BasicAuth(credentials.account, credentials.password) if interface.auth == "basic" else None
        # Without a token nothing goes, so this call is as urgent as the most urgent one that may wait for it.
        return await self._exchange.request(
            interface, interface.parameters(args), headers={}, auth=auth, priority=Priority.REVERT
        )

    def _read(self, data: Json) -> tuple[str, float]:
        """Return the token and its lifetime in seconds. The token is taken as it is: it is longer than other texts."""
        row = next(row for row in self._interface.response if row.attribute == "token")
        for entry in entries(self._interface, data):
            token: Json = entry
            for key in row.field.split("."):
                token = token.get(key) if isinstance(token, dict) else None
            if isinstance(token, str) and 0 < len(token) <= TOKEN_LONGEST and token.isascii() and token.isprintable():
                said = read(self._interface, entry, UTC, self._clock.now()).number("lifetime")
                return token, min(said, MAX_LIFETIME_SECONDS) if said is not None and said > 0 else self._lifetime
        raise NoDataError("SEMS answered the login without a token")

    def _refused(self, error: CallError) -> LoginRefusedError:
        self._back_off(reject=False)
        return self._refusal(f"SEMS refused the login ({error})", _backoff(self._refusals), error)

    def _refusal(self, said: str, wait: float, error: CallError | None = None) -> LoginRefusedError:
        if isinstance(error, WrongParameterError):
            return LoginRefusedError(f"{said}. Next try at {self._after(wait)}", wait, error.advice)
        what = "client id and client secret" if self._interface.auth == "basic" else "account and password"
        return LoginRefusedError(
            f"{said}: {what} do not open this account. Next try at {self._after(wait)}", wait, f"check {what}"
        )

    def _back_off(self, *, reject: bool) -> None:
        self._access_token, self._rejected = None, reject
        self._refusals += 1
        self._no_login_before = self._clock.monotonic() + _backoff(self._refusals)
        self._keep()

    def _keep(self) -> None:
        """Write down what has to outlive a restart: seldom, and before anything is done that relies on it."""
        kept = _Kept(
            fingerprint=self._credentials.fingerprint,
            token=self._access_token.token if self._access_token is not None else "",
            expires=self._wall(self._expires),
            refusals=self._refusals,
            no_login_before=self._wall(self._no_login_before),
            reject=self._rejected,
        )
        try:
            files.keep(self._store, msgspec.json.encode(kept))
            self._stored = kept
        except OSError as error:
            self._log.warning("the token can't be kept over a restart", file=str(self._store), error=str(error))

    def _read_store(self) -> _Kept | None:
        """Return what was kept with these credentials, unless it is what is known already."""
        try:
            kept = restored(self._store, _Kept, self._log)
            if kept == self._stored:
                return None
            self._stored = kept
        except FileNotFoundError:
            return None
        except (OSError, *BAD_JSON) as error:
            self._log.warning("what was kept of the last login can't be read", file=str(self._store), error=str(error))
            return None
        return kept if kept.fingerprint == self._credentials.fingerprint else None

    def _wall(self, monotonic: float) -> datetime | None:
        left = monotonic - self._clock.monotonic()
        return self._clock.now() + timedelta(seconds=left) if left > 0 else None

    def _monotonic(self, time: datetime | None, most: float) -> float:
        """Return a wall time as a monotonic one; no further ahead than `most` seconds, if the clock was set back."""
        if time is None:
            return -math.inf
        return self._clock.monotonic() + min((time - self._clock.now()).total_seconds(), most)

    def _after(self, wait: float) -> str:
        return iso(self._clock.now() + timedelta(seconds=wait))


def _backoff(refusals: int) -> float:
    """Return the seconds without a login after so many refused ones."""
    return min(BACKOFF_FIRST * 2.0 ** min(max(refusals - 1, 0), 30), MAX_BACKOFF_SECONDS)


def _turn(store: Path) -> asyncio.Lock:
    """Return what has the sessions of one account log in one after the other."""
    path = store.absolute()
    turn = _TURNS.get(path)
    if turn is None:
        turn = _TURNS[path] = asyncio.Lock()
    return turn


_TURNS: Final[WeakValueDictionary[Path, asyncio.Lock]] = WeakValueDictionary()


def _heard(task: asyncio.Task[AccessToken]) -> None:
    """Take a login's error, though whoever asked for it may be gone."""
    if not task.cancelled():
        task.exception()
