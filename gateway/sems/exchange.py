"""One call to SEMS over HTTP: what is sent, and what an answer means, by the rows of the catalogue."""

import asyncio
import math
import uuid
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx
import msgspec

from gateway.core.clock import Clock
from gateway.sems.budget import Budget, Priority
from gateway.sems.catalogue import Catalogue, Interface, Json, SemsError
from gateway.sems.errors import (
    CallError,
    ConnectionLostError,
    HttpStatusError,
    NoCodeError,
    NoDataError,
    NoLicenceError,
    NotJsonError,
    RateLimitedError,
    SemsRefusedError,
    ServerError,
    TimedOutError,
    TokenExpiredError,
    TooLongError,
    TruncatedError,
    UnauthorisedError,
    UnreachableError,
    WebPageError,
)

MAX_ANSWER: Final = 8 * 1024 * 1024
MAX_MESSAGE: Final = 200
TIMEOUT: Final = httpx.Timeout(30.0, connect=10.0)
ANSWER_MOST: Final = 120.0
"""Seconds for a whole exchange: a server may send a byte now and then for ever."""
RATE_LIMIT_WAIT: Final = 300.0
"""Seconds clients wait after GY0429 (SEMS.md, seen)."""
RATE_LIMIT_LEAST: Final = 1.0
RATE_LIMIT_MOST: Final = 24 * 3600.0
"""Lock-outs of that length have been seen (SEMS.md); whoever says more is not believed."""
BOM: Final = b"\xef\xbb\xbf"


class Exchange:
    """Makes calls, each counted before it leaves."""

    def __init__(self, catalogue: Catalogue, url: str, clock: Clock, budget: Budget) -> None:
        self.calls: Counter[str] = Counter()
        """Interface → calls made."""
        self._catalogue = catalogue
        self._url = url.rstrip("/")
        self._clock = clock
        self._budget = budget
        self._http: httpx.AsyncClient | None = None

    async def start(self) -> None:
        """Connect to nothing yet."""
        self._http = httpx.AsyncClient(timeout=TIMEOUT, follow_redirects=False, trust_env=False)

    async def stop(self) -> None:
        """Close connections."""
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    async def request(
        self,
        interface: Interface,
        fields: Mapping[str, Json],
        *,
        headers: Mapping[str, str],
        auth: httpx.Auth | None = None,
        priority: Priority,
        deadline: float | None = None,
    ) -> Json:
        """Make one call and return `data` of its answer, or all of it where there is no envelope.

        `deadline` is on the loop's clock; past it nothing is sent. Raises the errors of `gateway.sems.errors`.
        """
        if self._http is None:
            raise UnreachableError("the session is not open")
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(deadline):
                await self._budget.take(priority)
        except TimeoutError:
            raise UnreachableError(f"no time was left to ask SEMS for {interface.name}") from None
        end = loop.time() + ANSWER_MOST if deadline is None else min(deadline, loop.time() + ANSWER_MOST)
        if loop.time() >= end:
            raise UnreachableError(f"no time was left to ask SEMS for {interface.name}")
        self.calls[interface.name] += 1
        try:
            async with asyncio.timeout_at(end):
                answer = await self._exchange(self._http, interface, fields, headers, auth)
        except TimeoutError:
            raise TimedOutError(f"SEMS at {self._url} did not answer {interface.name} in time") from None
        return self._understand(interface, answer)

    async def _exchange(
        self,
        http: httpx.AsyncClient,
        interface: Interface,
        fields: Mapping[str, Json],
        headers: Mapping[str, str],
        auth: httpx.Auth | None,
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
        url = self._url + self._catalogue.url_path(interface)
        try:
            async with http.stream(interface.method, url, headers=sent, auth=auth, **body) as answer:
                return _Answer(answer.status_code, answer.headers, await _read(interface, answer))
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise UnreachableError(f"SEMS at {self._url} can't be reached ({_first_line(error)})") from error
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise UnreachableError(f"{url} is no address that can be asked ({_first_line(error)})") from error
        except httpx.TimeoutException as error:
            raise TimedOutError(f"SEMS at {self._url} did not answer {interface.name} in time") from error
        except httpx.DecodingError as error:
            raise NotJsonError(f"SEMS answered {interface.name} with what can't be unpacked") from error
        except httpx.HTTPError as error:
            raise ConnectionLostError(
                f"SEMS at {self._url} broke off while it answered {interface.name} ({_first_line(error)})"
            ) from error

    def _understand(self, interface: Interface, answer: "_Answer") -> Json:
        if answer.status == httpx.codes.TOO_MANY_REQUESTS:
            raise self._rate_limited(self._retry_after(answer.headers))
        if answer.status >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise ServerError(f"SEMS answered {interface.name} with HTTP {answer.status}")
        if not httpx.codes.is_success(answer.status):
            raise self._bad_status(interface, answer)
        document = _decode(interface, answer)
        if interface.bare:
            known = self._known_refusal(document)
            if known is not None:
                raise known
            return document
        if not isinstance(document, dict) or "code" not in document:
            raise NoCodeError(f"SEMS answered {interface.name} without a code")
        if str(document["code"]) not in self._catalogue.success:
            raise self._refusal(str(document["code"]), _message(document))
        data = document.get("data")
        if data is None and interface.response:
            raise NoDataError(f"SEMS answered {interface.name} with success but without data")
        return data

    def _bad_status(self, interface: Interface, answer: "_Answer") -> CallError:
        """Return what a 3xx or 4xx means: by its body if that is known, else by the status itself."""
        try:
            known = self._known_refusal(msgspec.json.decode(answer.body))
        except (msgspec.DecodeError, UnicodeDecodeError):
            known = None
        if known is not None:
            return known
        if self._catalogue.error_of(str(answer.status)) is not None:
            return self._refusal(str(answer.status), "")
        return HttpStatusError(
            f"SEMS answered {interface.name} with HTTP {answer.status}; is the url right?", answer.status
        )

    def _known_refusal(self, document: Json) -> CallError | None:
        """Return what an envelope or an OAuth error (RFC 6749, 5.2) means, where the catalogue knows its code."""
        if isinstance(document, dict):
            for key in ("code", "error"):
                code = str(document.get(key))
                if self._catalogue.error_of(code) is not None:
                    return self._refusal(code, _message(document))
        return None

    def _refusal(self, code: str, message: str) -> CallError:
        match self._catalogue.error_of(code):
            case SemsError.TOKEN_EXPIRED:
                return TokenExpiredError(f"the token has expired ({code})")
            case SemsError.RATE_LIMITED:
                return self._rate_limited(RATE_LIMIT_WAIT)
            case SemsError.NO_LICENCE:
                return NoLicenceError(code, message)
            case SemsError.UNAUTHORISED:
                return UnauthorisedError(code, message)
            case _:
                return SemsRefusedError(code, message)

    def _rate_limited(self, wait: float) -> RateLimitedError:
        self._budget.hold(wait)
        return RateLimitedError(f"SEMS limits this account's calls; next in {wait:.0f} s", wait)

    def _retry_after(self, headers: httpx.Headers) -> float:
        """Return the seconds to wait that a Retry-After says, in one form or the other (RFC 9110, 10.2.3)."""
        text = headers.get("retry-after", "").strip()
        wait = RATE_LIMIT_WAIT
        if text.isascii() and text.isdigit():
            wait = float(text)
        elif (time := _date(text)) is not None:
            # The far side's own clock, where it tells it: ours may be wrong.
            wait = math.ceil((time - (_date(headers.get("date", "")) or self._clock.now())).total_seconds())
        return min(max(wait, RATE_LIMIT_LEAST), RATE_LIMIT_MOST)


class _Answer(msgspec.Struct, frozen=True):
    status: int
    headers: httpx.Headers
    body: bytes


async def _read(interface: Interface, answer: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in answer.aiter_bytes():
        body += chunk
        if len(body) > MAX_ANSWER:
            raise TooLongError(f"SEMS answered {interface.name} with more than {MAX_ANSWER >> 20} MiB")
    return bytes(body)


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


def _message(document: Mapping[str, Json]) -> str:
    return str(document.get("msg") or document.get("error_description") or "")[:MAX_MESSAGE]


def _date(text: str) -> datetime | None:
    try:
        time = parsedate_to_datetime(text)
    except ValueError:
        return None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0] or type(error).__name__
