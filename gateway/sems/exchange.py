"""One call to SEMS over HTTP: what is sent, and what an answer means, by the rows of the catalogue."""

import asyncio
import math
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, Final

import httpx
import msgspec

from gateway.core.clock import Clock
from gateway.core.text import MAX_REASON, plain
from gateway.sems.budget import Budget, Priority
from gateway.sems.catalogue import READS, Catalogue, Interface, Json, SemsError, Use
from gateway.sems.errors import (
    CallError,
    ConnectionLostError,
    HttpStatusError,
    NoCodeError,
    NoDataError,
    NoLicenceError,
    NoRightError,
    NotDoneError,
    NotJsonError,
    RateLimitedError,
    SemsRefusedError,
    ServerError,
    SystemFailureError,
    TimedOutError,
    TokenExpiredError,
    TruncatedError,
    UnauthorisedError,
    UnreachableError,
    WebPageError,
    WrongParameterError,
    understood,
)
from gateway.sems.reasons import code_of, reason_of
from gateway.sems.unreachable import unreachable
from gateway.sems.wire import Call, client, read_body, trusted

MAX_ANSWER_SECONDS: Final = 60.0
"""Seconds for a whole exchange, from the connection to the last byte: a server may send one now and then for ever."""
REFUSALS: Final[Mapping[SemsError | None, type[SemsRefusedError]]] = {
    SemsError.NO_LICENCE: NoLicenceError,
    SemsError.NO_RIGHT: NoRightError,
    SemsError.UNAUTHORISED: UnauthorisedError,
    SemsError.DISOBEYED: NotDoneError,
}
RATE_LIMIT_WAIT: Final = 300.0
"""Seconds clients wait after GY0429 (SEMS.md, seen)."""
MIN_RATE_LIMIT_SECONDS: Final = 1.0
MAX_RATE_LIMIT_SECONDS: Final = 24 * 3600.0
"""Lock-outs of that length have been seen (SEMS.md); whoever says more is not believed."""
BOM: Final = b"\xef\xbb\xbf"


class Exchange:
    """Makes calls, each counted before it leaves."""

    def __init__(self, catalogue: Catalogue, url: str, clock: Clock, budget: Budget) -> None:
        self.calls: Counter[str] = Counter()
        """Interface → calls made."""
        self.on_answer: Callable[[Interface, Mapping[str, Json], int, bytes], None] = lambda *_: None
        """Shown every answer as it came: the interface, the fields sent, the HTTP status and the body."""
        self._catalogue = catalogue
        self._url = url.rstrip("/")
        self._clock = clock
        self._budget = budget
        self._http: httpx.AsyncClient | None = None
        self._anew: httpx.AsyncClient | None = None
        """What makes each call over a connection of its own."""

    async def start(self) -> None:
        """Connect to nothing yet."""
        trust = await asyncio.to_thread(trusted)  # tens of milliseconds, which the loop need not wait
        self._http, self._anew = client(trust), client(trust, kept=0)

    async def stop(self) -> None:
        """Close connections."""
        clients, self._http, self._anew = (self._http, self._anew), None, None
        for each in clients:
            if each is not None:
                await each.aclose()

    async def request(
        self,
        interface: Interface,
        fields: Mapping[str, Json],
        *,
        headers: Mapping[str, str],
        auth: httpx.Auth | None = None,
        priority: Priority,
        deadline: float | None = None,
        may_leave: Callable[[], bool] | None = None,
    ) -> Json:
        """Make one call and return `data` of its answer, or all of it where there is no envelope.

        `deadline` is on the loop's clock; past it nothing is sent. `may_leave` is asked right before the first byte
        of it leaves, for a machine that sleeps, or waits for a connection, does not count the time. Raises the errors
        of `gateway.sems.errors`.

        A server ends a connection that is kept open when it likes, also just as a call leaves. One that only reads is
        made once more then, and counted like any; what does something never is, for it may have been done (RFC 9110
        9.2.2).
        """
        call = partial(self._call, interface, fields, headers, auth, priority, deadline, may_leave)
        try:
            return await call(self._http)
        except ConnectionLostError as error:
            if not error.found_it_closed or interface.use not in READS:
                raise
        return await call(self._anew)

    async def _call(
        self,
        interface: Interface,
        fields: Mapping[str, Json],
        headers: Mapping[str, str],
        auth: httpx.Auth | None,
        priority: Priority,
        deadline: float | None,
        may_leave: Callable[[], bool] | None,
        http: httpx.AsyncClient | None,
    ) -> Json:
        if http is None:
            raise UnreachableError("the session is not open")
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(deadline):
                await self._budget.take(priority)
        except TimeoutError:
            raise UnreachableError(f"no time was left to ask SEMS for {interface.name}") from None
        end = loop.time() + MAX_ANSWER_SECONDS if deadline is None else min(deadline, loop.time() + MAX_ANSWER_SECONDS)
        if loop.time() >= end:
            raise UnreachableError(f"no time was left to ask SEMS for {interface.name}")
        self.calls[interface.name] += 1
        with understood(f"SEMS's answer to {interface.name}"):
            try:
                async with asyncio.timeout_at(end):
                    answer = await self._exchange(http, interface, fields, headers, auth, may_leave)
            except TimeoutError:
                raise TimedOutError(f"SEMS at {self._url} did not answer {interface.name} in time") from None
            self.on_answer(interface, fields, answer.status, answer.body)
            return self._understand(interface, answer, fields)

    async def _exchange(
        self,
        http: httpx.AsyncClient,
        interface: Interface,
        fields: Mapping[str, Json],
        headers: Mapping[str, str],
        auth: httpx.Auth | None,
        may_leave: Callable[[], bool] | None,
    ) -> "_Answer":
        sent = dict(headers)
        if self._catalogue.request_id:
            sent[self._catalogue.request_id] = str(uuid.uuid4())
        body: dict[str, Any] = {}
        if interface.method == "GET":
            body["params"] = fields
        elif interface.body == "form":
            body["data"] = fields
        else:
            body["content"] = msgspec.json.encode(fields)
            sent["Content-Type"] = "application/json"
        call = Call(interface.name, may_leave)
        body["extensions"] = {"trace": call}
        url = self._url + self._catalogue.url_path(interface)
        try:
            with call.under_way():
                async with http.stream(interface.method, url, headers=sent, auth=auth, **body) as answer:
                    if (said := _date(answer.headers.get("date", ""))) is not None:
                        self._clock.hear(said)
                    return _Answer(answer.status_code, answer.headers, await read_body(interface.name, answer))
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise unreachable(self._url, error, self._clock.now()) from error
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise UnreachableError(f"{url} is no address that can be asked ({_first_line(error)})") from error
        except httpx.TimeoutException as error:
            raise TimedOutError(f"SEMS at {self._url} did not answer {interface.name} in time") from error
        except httpx.HTTPError as error:
            raise ConnectionLostError(
                f"SEMS at {self._url} broke off while it answered {interface.name} ({_first_line(error)})",
                found_it_closed=call.found_it_closed,
            ) from error

    def _understand(self, interface: Interface, answer: "_Answer", fields: Mapping[str, Json]) -> Json:
        if answer.status == httpx.codes.TOO_MANY_REQUESTS:
            raise self._rate_limited(self._retry_after(answer.headers))
        if answer.status >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise ServerError(_with_reason(f"SEMS answered {interface.name} with HTTP {answer.status}", _peek(answer)))
        if not httpx.codes.is_success(answer.status):
            raise self._bad_status(interface, answer, fields)
        document = _decode(interface, answer)
        if interface.bare:
            if isinstance(document, dict):
                codes = [code for key in (self._catalogue.envelope.code, "error") if (code := code_of(document, key))]
                if codes and codes[0] not in self._catalogue.success:
                    raise self._refusal(interface, codes[0], reason_of(document), fields)
            return document
        envelope = self._catalogue.envelope
        code = code_of(document, envelope.code) if isinstance(document, dict) else ""
        if not isinstance(document, dict) or not code:
            raise NoCodeError(_with_reason(f"SEMS answered {interface.name} without a code", document))
        if code not in self._catalogue.success:
            raise self._refusal(interface, code, reason_of(document), fields)
        data = document.get(envelope.data)
        if data is None and interface.response:
            raise NoDataError(f"SEMS answered {interface.name} with success but without data")
        return data

    def _bad_status(self, interface: Interface, answer: "_Answer", fields: Mapping[str, Json]) -> CallError:
        """Return what a 3xx or 4xx means: by its body if that is known, else by the status itself."""
        document = _peek(answer)
        known = self._known_refusal(interface, document, fields)
        if known is not None:
            return known
        if self._meaning(interface, str(answer.status)) is not None:
            return self._refusal(interface, str(answer.status), reason_of(document), fields)
        text = f"SEMS answered {interface.name} with HTTP {answer.status}; is the url right?"
        return HttpStatusError(_with_reason(text, document), answer.status)

    def _meaning(self, interface: Interface, code: str) -> SemsError | None:
        return self._catalogue.error_of(code, login=interface.use is Use.LOGIN)

    def _known_refusal(self, interface: Interface, document: Json, fields: Mapping[str, Json]) -> CallError | None:
        """Return what an envelope or an OAuth error (RFC 6749, 5.2) means, where the catalogue knows its code."""
        if isinstance(document, dict):
            for key in (self._catalogue.envelope.code, "error"):
                code = code_of(document, key)
                if self._meaning(interface, code) is not None:
                    return self._refusal(interface, code, reason_of(document), fields)
        return None

    def _refusal(self, interface: Interface, code: str, reason: str, fields: Mapping[str, Json]) -> CallError:
        match self._meaning(interface, code):
            case SemsError.TOKEN_EXPIRED:
                return TokenExpiredError(f"SEMS wants a new login ({code}{': ' if reason else ''}{reason})")
            case SemsError.RATE_LIMITED:
                return self._rate_limited(RATE_LIMIT_WAIT, f" ({code}{': ' if reason else ''}{reason})")
            case SemsError.SYSTEM_ERROR:
                return SystemFailureError(f"SEMS said {code} to {interface.name}: {reason or 'no reason given'}")
            case SemsError.WRONG_PARAMETER:
                return WrongParameterError(code, reason, interface.name, _names(fields))
            case error:
                return REFUSALS.get(error, SemsRefusedError)(code, reason)

    def _rate_limited(self, wait: float, said: str = "") -> RateLimitedError:
        self._budget.hold(wait)
        return RateLimitedError(f"SEMS limits this account's calls{said}; next in {wait:.0f} s", wait)

    def _retry_after(self, headers: httpx.Headers) -> float:
        """Return the seconds to wait that a Retry-After says, in one form or the other (RFC 9110, 10.2.3)."""
        text = headers.get("retry-after", "").strip()
        wait = RATE_LIMIT_WAIT
        if text.isascii() and text.isdigit():
            wait = float(text)
        elif (time := _date(text)) is not None:
            # The far side's own clock, where it says it: ours may be wrong.
            wait = math.ceil((time - (_date(headers.get("date", "")) or self._clock.now())).total_seconds())
        return min(max(wait, MIN_RATE_LIMIT_SECONDS), MAX_RATE_LIMIT_SECONDS)


class _Answer(msgspec.Struct, frozen=True):
    status: int
    headers: httpx.Headers
    body: bytes


def _peek(answer: _Answer) -> Json:
    """Return what the body of an answer that failed says, where it is JSON."""
    try:
        document: Json = msgspec.json.decode(answer.body.removeprefix(BOM))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return document


def _with_reason(text: str, document: Json) -> str:
    reason = reason_of(document)
    return f"{text}; it says: {reason}" if reason else text


def _names(fields: object, above: str = "") -> list[str]:
    """Return the names of the fields that were sent, never what was in them; a list's are its first entry's."""
    if isinstance(fields, list):
        fields = fields[0] if fields else None
    if not isinstance(fields, Mapping):
        return [above] if above else []
    return [name for key, value in fields.items() for name in _names(value, f"{above}.{key}" if above else key)]


def _decode(interface: Interface, answer: _Answer) -> Json:
    body = answer.body.removeprefix(BOM)
    try:
        document: Json = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if body.lstrip()[:1] == b"<":
            raise WebPageError(f"SEMS answered {interface.name} with a web page; is the url right?") from None
        if "truncated" in str(error):
            raise TruncatedError(f"SEMS's answer to {interface.name} ends after {len(body)} bytes") from None
        raise NotJsonError(f"SEMS answered {interface.name} with something that is not JSON") from None
    return document


def _date(text: str) -> datetime | None:
    try:
        time = parsedate_to_datetime(text)
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _first_line(error: Exception) -> str:
    return plain((str(error).splitlines() or [""])[0], MAX_REASON) or type(error).__name__
