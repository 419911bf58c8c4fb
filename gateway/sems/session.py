"""A session with one SEMS account: token, call budget, envelope, and errors by what is done next.

Token and login back-off are kept in `data_dir`, so that a restart costs no login and never hammers.
"""

import asyncio
import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import structlog

from gateway.core import files
from gateway.core.clock import Clock
from gateway.core.errors import UnsureError
from gateway.core.model import iso
from gateway.sems.budget import Budget
from gateway.sems.catalogue import Catalogue, Interface, Json, SemsError
from gateway.sems.errors import (
    BadAnswerError,
    LoginRefusedError,
    NoAnswerError,
    RateLimitedError,
    SemsRefusedError,
    TokenExpiredError,
    UnreachableError,
)

MAX_ANSWER: Final = 8 * 1024 * 1024
TIMEOUT: Final = httpx.Timeout(30.0, connect=10.0)
LOGIN_BACKOFF_FIRST: Final = 60.0
LOGIN_BACKOFF_MOST: Final = 6 * 3600.0
RATE_LIMIT_WAIT: Final = 300.0
"""Seconds clients wait after GY0429 (SEMS.md, seen)."""
TOKEN_MARGIN: Final = timedelta(minutes=5)


class Credentials(msgspec.Struct, frozen=True):
    """How one enters."""

    account: str
    password: str

    @property
    def password_md5(self) -> str:
        """MD5 hex of the password, as GetToken wants it (SEMS.md, seen)."""
        return hashlib.md5(self.password.encode(), usedforsecurity=False).hexdigest()

    @property
    def fingerprint(self) -> str:
        """Tells these credentials from others without telling what they are."""
        return hashlib.sha256(f"{self.account}\0{self.password}".encode()).hexdigest()[:16]


class _Kept(msgspec.Struct):
    """What outlives a restart."""

    fingerprint: str = ""
    token: str = ""
    expires: datetime | None = None
    refusals: int = 0
    """Logins refused in a row."""
    no_login_before: datetime | None = None


class Session:
    """Makes calls for one account. All users of an account share one session."""

    def __init__(
        self, catalogue: Catalogue, url: str, credentials: Credentials, store: Path, clock: Clock, budget: Budget
    ) -> None:
        self._catalogue = catalogue
        self._url = url.rstrip("/")
        self._credentials = credentials
        self._store = store
        self._clock = clock
        self.budget = budget
        self._http: httpx.AsyncClient | None = None
        self._kept = _Kept()
        self._login_lock = asyncio.Lock()
        self._limited_until = 0.0
        self._log = structlog.get_logger("sems").bind(account=credentials.account)

    async def start(self) -> None:
        """Read what was kept; open nothing yet."""
        self._kept = self._read_store()
        self._http = httpx.AsyncClient(timeout=TIMEOUT, follow_redirects=False, trust_env=False)

    async def stop(self) -> None:
        """Close connections."""
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    async def call(
        self, name: str, args: Mapping[str, object], *, control: bool = False, timeout: float | None = None
    ) -> Json:
        """Call an interface of the catalogue and return `data` of its answer.

        A token that has expired is renewed once, and the call repeated once. `control` may use the calls
        that polling must leave free. Past `timeout` seconds nothing is sent any more. Raises the errors of
        `gateway.sems.errors`.
        """
        interface = self._catalogue.interface(name)
        deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
        token = await self._token(control=control, deadline=deadline)
        try:
            return await self._request(interface, args, token, control=control, deadline=deadline)
        except TokenExpiredError:
            token = await self._token(control=control, deadline=deadline, instead_of=token)
            return await self._request(interface, args, token, control=control, deadline=deadline)

    async def _token(self, *, control: bool, deadline: float | None, instead_of: str = "") -> str:
        try:
            async with asyncio.timeout_at(deadline), self._login_lock:
                return await self._valid_token(control=control, instead_of=instead_of)
        except TimeoutError:
            raise UnreachableError("SEMS did not answer the login in time") from None
        except UnsureError as error:
            # Of the login, not of the call: that one certainly was not made.
            raise UnreachableError(str(error)) from error

    async def _valid_token(self, *, control: bool, instead_of: str) -> str:
        kept, now = self._kept, self._clock.now()
        if kept.token and kept.token != instead_of and kept.expires is not None and now < kept.expires:
            return kept.token
        if kept.no_login_before is not None and now < kept.no_login_before:
            raise LoginRefusedError(
                f"SEMS refused the login of account {self._credentials.account}; check account and password. "
                f"Next try at {iso(kept.no_login_before)}",
                (kept.no_login_before - now).total_seconds(),
            )
        return await self._log_in(control=control)

    async def _log_in(self, *, control: bool) -> str:
        interface = self._catalogue.interface("GetToken")
        args = {"account": self._credentials.account, "password_md5": self._credentials.password_md5}
        try:
            data = await self._request(interface, args, "", control=control, deadline=None)
        except SemsRefusedError as error:
            raise self._login_refused(error) from error
        token = data.get("token") if isinstance(data, dict) else None
        if not isinstance(token, str) or not token:
            raise BadAnswerError("SEMS answered the login without a token")
        lifetime = timedelta(seconds=self._catalogue.token_lifetime)
        margin = min(TOKEN_MARGIN, lifetime / 10)
        self._keep(_Kept(self._credentials.fingerprint, token, self._clock.now() + lifetime - margin))
        return token

    def _login_refused(self, error: SemsRefusedError) -> LoginRefusedError:
        refusals = self._kept.refusals + 1
        wait = min(LOGIN_BACKOFF_FIRST * 2 ** (refusals - 1), LOGIN_BACKOFF_MOST)
        until = self._clock.now() + timedelta(seconds=wait)
        self._keep(_Kept(self._credentials.fingerprint, refusals=refusals, no_login_before=until))
        return LoginRefusedError(
            f"SEMS refused the login of account {self._credentials.account} ({error}); check account and password. "
            f"Next try at {iso(until)}",
            wait,
        )

    async def _request(
        self, interface: Interface, args: Mapping[str, object], token: str, *, control: bool, deadline: float | None
    ) -> Json:
        self._check_limits(control=control)
        try:
            async with asyncio.timeout_at(deadline):
                body = await self._exchange(interface, interface.parameters(args), token)
        except TimeoutError:
            raise NoAnswerError(f"SEMS at {self._url} did not answer {interface.name} in time") from None
        return self._open_envelope(interface, body)

    def _check_limits(self, *, control: bool) -> None:
        """Raise rather than run over: ours is the first count, SEMS's own the second."""
        wait = self._limited_until - self._clock.monotonic()
        if wait > 0:
            raise RateLimitedError(f"SEMS limits this account's calls; next in {wait:.0f} s", wait)
        wait = self.budget.wait(control=control)
        if wait > 0:
            raise RateLimitedError(
                f"this account's {self.budget.per_hour} calls an hour are used up; next in {wait:.0f} s", wait
            )

    async def _exchange(self, interface: Interface, fields: Mapping[str, Any], token: str) -> bytes:
        if self._http is None:
            raise UnreachableError("the session is not open")
        where: dict[str, Any] = {"params": fields} if interface.method == "GET" else {"json": fields}
        url = self._url + self._catalogue.base + interface.path
        self.budget.spend()
        try:
            async with self._http.stream(
                interface.method, url, headers={"token": token} if token else {}, **where
            ) as answer:
                return await self._read(interface, answer)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol) as error:
            raise UnreachableError(f"SEMS at {self._url} can't be reached ({_first_line(error)})") from error
        except httpx.HTTPError as error:
            raise NoAnswerError(
                f"SEMS at {self._url} did not answer {interface.name} ({_first_line(error)})"
            ) from error

    async def _read(self, interface: Interface, answer: httpx.Response) -> bytes:
        if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
            raise self._rate_limited(_seconds(answer.headers.get("retry-after", "")))
        if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise NoAnswerError(f"SEMS answered {interface.name} with HTTP {answer.status_code}")
        if answer.status_code != httpx.codes.OK:
            raise BadAnswerError(f"SEMS answered {interface.name} with HTTP {answer.status_code}; is the url right?")
        body = bytearray()
        async for chunk in answer.aiter_bytes():
            body += chunk
            if len(body) > MAX_ANSWER:
                raise BadAnswerError(f"SEMS answered {interface.name} with more than {MAX_ANSWER >> 20} MiB")
        return bytes(body)

    def _open_envelope(self, interface: Interface, body: bytes) -> Json:
        try:
            envelope = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            kind = "a web page" if body.lstrip()[:1] == b"<" else "something that is not JSON"
            raise BadAnswerError(f"SEMS answered {interface.name} with {kind}; is the url right?") from None
        if not isinstance(envelope, dict) or "code" not in envelope:
            raise BadAnswerError(f"SEMS answered {interface.name} without a code")
        code = str(envelope["code"])
        if code in self._catalogue.success:
            data: Json = envelope.get("data")
            if data is None and interface.response:
                raise BadAnswerError(f"SEMS answered {interface.name} with success but without data")
            return data
        message = str(envelope.get("msg") or "")[:200]
        match self._catalogue.error_of(code):
            case SemsError.TOKEN_EXPIRED:
                raise TokenExpiredError(f"the token has expired ({code})")
            case SemsError.RATE_LIMITED:
                raise self._rate_limited(None)
            case _:
                raise SemsRefusedError(code, message)

    def _rate_limited(self, retry_after: float | None) -> RateLimitedError:
        wait = RATE_LIMIT_WAIT if retry_after is None else retry_after
        self._limited_until = self._clock.monotonic() + wait
        return RateLimitedError(f"SEMS limits this account's calls; next in {wait:.0f} s", wait)

    def _keep(self, kept: _Kept) -> None:
        self._kept = kept
        try:
            files.replace(self._store, msgspec.json.encode(kept), 0o600)
        except OSError as error:
            self._log.warning("the token can't be kept over a restart", file=str(self._store), error=str(error))

    def _read_store(self) -> _Kept:
        try:
            kept = msgspec.json.decode(self._store.read_bytes(), type=_Kept)
        except FileNotFoundError:
            return _Kept()
        except (OSError, msgspec.MsgspecError) as error:
            self._log.warning("what was kept of the last login can't be read", file=str(self._store), error=str(error))
            return _Kept()
        return kept if kept.fingerprint == self._credentials.fingerprint else _Kept()


def _seconds(text: str) -> float | None:
    """Read Retry-After in seconds; its date form is as good as none."""
    return float(text) if text.isascii() and text.isdigit() else None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0] or type(error).__name__
