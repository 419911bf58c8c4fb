"""What can be made to go wrong."""

from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from http import HTTPStatus
from typing import Annotated, Any, Final

import msgspec
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.core.model import Severity
from gateway.sems.catalogue import Catalogue, SemsError
from gateway.simulator.controls import Obedience
from gateway.simulator.requests import RefusedError, code_of, status_of
from gateway.simulator.results import Delay, Fault, Faults, ResultFault
from gateway.simulator.shares import Delays, Shares

JSON: Final = "application/json; charset=utf-8"
RETRY_AFTER: Final = 60
"""Seconds that a spoilt answer asks a client to wait."""
HUGE: Final = 64 * 1024 * 1024
"""Bytes of an answer that no client should read to the end."""
GHOSTS: Final = 300
NO_RIGHT: Final = "100025"
"""SEMS.md, seen."""
_CHUNK: Final = 64 * 1024
_MORE: Final = 100
"""Bytes that are promised and never come."""
_PAGE: Final = "<!DOCTYPE html><html><head><title>SEMS Portal</title></head><body>Please wait…</body></html>"
_ERROR_PAGE: Final = "<html><body><h1>Server Error</h1></body></html>"


class Spoil(StrEnum):
    """What becomes of an answer."""

    HTTP_500 = "http_500"
    HTTP_502 = "http_502"
    HTTP_503 = "http_503"
    HTTP_504 = "http_504"
    HTTP_429 = "http_429"
    """With Retry-After in seconds."""
    HTTP_429_DATE = "http_429_date"
    """With Retry-After as a date."""
    HTTP_429_BARE = "http_429_bare"
    """Without Retry-After."""
    HTML = "html"
    """A web page, with HTTP 200."""
    TRUNCATED = "truncated"
    """Half the body, as if it were all of it."""
    CUT = "cut"
    """Half the body, and then the connection ends."""
    WRONG_LENGTH = "wrong_length"
    """The body, and a Content-Length that promises more; then the connection ends."""
    HUGE = "huge"
    """64 MiB."""
    EMPTY = "empty"
    NULL_DATA = "null_data"
    """Success without data, with HTTP 200."""
    EMPTY_LISTS = "empty_lists"
    """Success, and every list in it is empty, with HTTP 200: seen at GoodWe's portal."""
    EMPTY_DATA = "empty_data"
    """Success, and `data` is an object with nothing in it, with HTTP 200: seen at GoodWe's portal."""
    GHOSTS = "ghosts"
    """Every list that names devices names 300 more that there are not."""
    REFUSED = "refused"
    """A code that says: this account has no right to this."""
    TOKEN_EXPIRED = "token_expired"  # noqa: S105 - the name of a fault
    LOGIN_REFUSED = "login_refused"
    RATE_LIMITED = "rate_limited"
    WRONG_PARAMETER = "wrong_parameter"
    NO_RIGHT = "no_right"
    NOT_REACHED = "not_reached"
    SYSTEM_ERROR = "system_error"


class Spoilt(msgspec.Struct, frozen=True):
    """An answer that is to be spoilt."""

    body: bytes
    """As it would have been."""
    catalogue: Catalogue
    bare: bool
    """It has no envelope."""
    time: datetime
    """Wall clock, UTC."""


class _Broken(Response):
    """An answer whose connection ends before what it promised has come."""

    def __init__(self, body: bytes, promised: int) -> None:
        super().__init__(body, media_type=JSON)
        self.headers["Content-Length"] = str(promised)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send what there is, and leave; the server then closes the connection."""
        del scope, receive
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": bytes(self.body), "more_body": True})


def refusal(catalogue: Catalogue, error: RefusedError, code: str | int = "", *, bare: bool = False) -> Response:
    """Return the answer of an API that refuses; `code` for the envelope where it is not the catalogue's."""
    code = code or code_of(catalogue, error.reason)
    if bare:  # RFC 6749 §5.2
        status = HTTPStatus.UNAUTHORIZED if error.reason is SemsError.LOGIN_REFUSED else HTTPStatus.BAD_REQUEST
        content: dict[str, object] = {"error": code, "error_description": error.text}
        return Response(msgspec.json.encode(content), error.status or status, error.headers, JSON)
    content = {"code": code, "msg": error.text, "data": None}
    status_code = error.status or status_of(catalogue, error.reason)
    return Response(msgspec.json.encode(content), status_code, error.headers, JSON)


def _refused(error: SemsError) -> Callable[[Spoilt], Response]:
    return lambda spoilt: refusal(spoilt.catalogue, RefusedError(error, error.value), bare=spoilt.bare)


def _failed(status: int, retry_after: Callable[[Spoilt], str] | None = None) -> Callable[[Spoilt], Response]:
    return lambda spoilt: HTMLResponse(
        _ERROR_PAGE, status, {"Retry-After": retry_after(spoilt)} if retry_after else None
    )


def _date(spoilt: Spoilt) -> str:
    """Return when to come again, as RFC 9110 §5.6.7 writes it."""
    return (spoilt.time + timedelta(seconds=RETRY_AFTER)).astimezone(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")


def _json(content: object) -> Response:
    return Response(msgspec.json.encode(content), media_type=JSON)


def _success(spoilt: Spoilt, data: object) -> Response:
    return _json({"code": spoilt.catalogue.success[0], "msg": "success", "data": data})


def _emptied(said: Any) -> Any:
    if isinstance(said, dict):
        return {key: _emptied(value) for key, value in said.items()}
    return [] if isinstance(said, list) else said


def _haunted(said: Any) -> Any:
    if isinstance(said, dict):
        return {key: _haunted(value) for key, value in said.items()}
    if not isinstance(said, list):
        return said
    first = next((one for one in said if isinstance(one, dict)), {})
    names = [key for key in first if key.lower().endswith("sn")]
    ghosts = [first | dict.fromkeys(names, f"GHOST{n:04}") for n in range(GHOSTS)] if names else []
    return [*map(_haunted, said), *ghosts]


async def _flood() -> AsyncIterator[bytes]:
    yield b'{"code":"0","msg":"'
    for _ in range(HUGE // _CHUNK):
        yield b"x" * _CHUNK
    yield b'","data":null}'


SPOILT: Final[Mapping[Spoil, Callable[[Spoilt], Response]]] = {
    Spoil.HTTP_500: _failed(500),
    Spoil.HTTP_502: _failed(502),
    Spoil.HTTP_503: _failed(503),
    Spoil.HTTP_504: _failed(504),
    Spoil.HTTP_429: _failed(429, lambda _: str(RETRY_AFTER)),
    Spoil.HTTP_429_DATE: _failed(429, _date),
    Spoil.HTTP_429_BARE: _failed(429),
    Spoil.HTML: lambda _: HTMLResponse(_PAGE),
    Spoil.TRUNCATED: lambda spoilt: Response(spoilt.body[: len(spoilt.body) // 2], media_type=JSON),
    Spoil.CUT: lambda spoilt: _Broken(spoilt.body[: len(spoilt.body) // 2], len(spoilt.body)),
    Spoil.WRONG_LENGTH: lambda spoilt: _Broken(spoilt.body, len(spoilt.body) + _MORE),
    Spoil.HUGE: lambda _: StreamingResponse(_flood(), media_type=JSON),
    Spoil.EMPTY: lambda _: Response(b"", media_type=JSON),
    Spoil.NULL_DATA: lambda spoilt: _json(None) if spoilt.bare else _success(spoilt, None),
    Spoil.EMPTY_LISTS: lambda spoilt: _json(_emptied(msgspec.json.decode(spoilt.body))),
    Spoil.EMPTY_DATA: lambda spoilt: _success(spoilt, {}),
    Spoil.GHOSTS: lambda spoilt: _json(_haunted(msgspec.json.decode(spoilt.body))),
    Spoil.REFUSED: lambda _: _json({"code": NO_RIGHT, "msg": "no right to this", "data": None}),
    Spoil.TOKEN_EXPIRED: _refused(SemsError.TOKEN_EXPIRED),
    Spoil.LOGIN_REFUSED: _refused(SemsError.LOGIN_REFUSED),
    Spoil.RATE_LIMITED: _refused(SemsError.RATE_LIMITED),
    Spoil.WRONG_PARAMETER: _refused(SemsError.WRONG_PARAMETER),
    Spoil.NO_RIGHT: _refused(SemsError.NO_RIGHT),
    Spoil.NOT_REACHED: _refused(SemsError.DISOBEYED),
    Spoil.SYSTEM_ERROR: _refused(SemsError.SYSTEM_ERROR),
}
"""Fault → the answer there is instead."""


class AnswerFault(Fault, kw_only=True, forbid_unknown_fields=True):
    """How answers are spoilt."""

    answer: Spoil | None = None
    """None: the answer is as it should be, only late."""
    says: Mapping[str, str | float | bool | None] = {}
    """Field → what it says instead, wherever in the answer it is."""
    executed: bool = False
    """Whether the call is carried out all the same, and only its answer lost."""

    @property
    def carries_out(self) -> bool:
        """Whether the call is carried out."""
        return self.executed or self.answer in {None, Spoil.EMPTY_LISTS, Spoil.EMPTY_DATA, Spoil.GHOSTS}


def reworded(response: Response, says: Mapping[str, str | float | bool | None]) -> Response:
    """Return an answer in which these fields say something else."""

    def walk(said: Any) -> Any:
        if isinstance(said, dict):
            return {key: says[key] if key in says else walk(value) for key, value in said.items()}
        return [walk(item) for item in said] if isinstance(said, list) else said

    content = msgspec.json.encode(walk(msgspec.json.decode(bytes(response.body))))
    return Response(content, response.status_code, media_type=JSON)


class AnswerFaults(Faults[AnswerFault]):
    """What spoils answers now."""

    delay = 0.0
    """Seconds before every answer."""


class DeviceFault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is the matter with a device; a field left out stays as it is."""

    offline: bool | None = None
    """It is offline: status -1, its last values, and commands fail."""
    tripped: bool | None = None
    """It stands still with a fault code: status 2."""
    obedience: Obedience | None = None


class AlarmOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An alarm that a device is to raise, or to clear."""

    serial: str
    code: Annotated[str, msgspec.Meta(min_length=1)]
    text: str = ""
    severity: Severity = Severity.WARNING
    cleared: bool = False
    """Not to be raised, but cleared: those with this code."""


class FaultOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to go wrong from now on; a field left out stays as it is."""

    clear: bool = False
    """First make everything well again."""
    devices: Mapping[str, DeviceFault] = {}
    """By serial number."""
    alarms: tuple[AlarmOrder, ...] = ()
    answers: tuple[AnswerFault, ...] | None = None
    """The first that concerns a call spoils its answer. An empty list ends it."""
    results: tuple[ResultFault, ...] | None = None
    """The first that concerns a batch request spoils its results. An empty list ends it."""
    answer_delay: Delay | None = None
    """Seconds before each answer."""
    device_delay: Delay | Delays | None = None
    """Seconds until devices obey; from the next command on."""
    shares: Shares | None = None
    """Parts of all inverters that have a fault; those that had one by an earlier order are well first."""
    owner_changes: Annotated[float, msgspec.Meta(ge=0, le=1_000_000)] | None = None
    """Setpoints that owners overwrite in the app in an hour of the physics clock, over the whole fleet."""
    licence: bool | None = None
    """Whether the licence of the Real-Time Data API is in force."""
    unauthorised: tuple[str, ...] | None = None
    """Serial numbers whose owners do not agree to the Real-Time Data API, all of them."""
    refuse_logins: bool | None = None
    """Of all accounts."""
    revoke_tokens: bool = False
    """Of all accounts."""
