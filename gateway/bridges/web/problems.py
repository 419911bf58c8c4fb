"""What goes wrong, as `application/problem+json` (RFC 9457): a row a kind."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from starlette.responses import Response

from gateway.core.model import Reason
from gateway.core.text import MAX_DETAIL, plain

MEDIA_TYPE: Final = "application/problem+json"
URN: Final = "urn:sems-gateway:problem:"


class Kind(msgspec.Struct, frozen=True):
    """A row."""

    status: int
    title: str
    do: str
    """What the caller can do about it."""
    retry_after: int | None = None
    """Seconds."""


KINDS: Final[Mapping[str, Kind]] = {
    # a command is rejected, by its reason
    Reason.CONTROL_DISABLED: Kind(403, "The gateway is read-only", "set control.enabled: true in its configuration"),
    Reason.UNKNOWN_DEVICE: Kind(404, "No such device", "GET /api/v1/devices lists those there are"),
    Reason.UNKNOWN_SETPOINT: Kind(
        422, "No such setpoint", "GET /api/v1/devices/{serial} lists those this token may write"
    ),
    Reason.NOT_PERMITTED: Kind(403, "Not permitted", "add a rule to control.allow that names this origin"),
    Reason.BAD_VALUE: Kind(422, "The setpoint does not take this value", "send a value of its type"),
    Reason.OUT_OF_RANGE: Kind(
        422, "The value is out of range", "GET /api/v1/devices/{serial} has the range for this token"
    ),
    Reason.BAD_STEP: Kind(
        422, "The value is between two steps", "GET /api/v1/devices/{serial} has the step for this token"
    ),
    Reason.RAMP_LIMITED: Kind(429, "The value changes too fast", "the detail has what is allowed now", 60),
    Reason.RATE_LIMITED: Kind(429, "Too many commands", "wait as long as Retry-After says", 60),
    Reason.EXPIRED: Kind(422, "It has expired already", "send it anew; check the clocks where it names a time"),
    Reason.DUPLICATE: Kind(409, "The id belongs to another command", "choose a new id, or leave it out"),
    Reason.NO_CONTROLLER: Kind(
        503, "Nobody can carry it out now", "GET /api/v1/bridges shows which bridge is down and why", 10
    ),
    Reason.BAD_REQUEST: Kind(400, "The request makes no sense", "docs/http.md shows what may be sent"),
    Reason.NOT_STORED: Kind(503, "The journal can't be written", "see to the disk that data_dir is on", 10),
    "halted": Kind(409, "Control is halted", "POST /api/v1/resume once it is safe; GET /api/v1/halt says who and why"),
    # a request is no command yet, or is none
    "unauthorized": Kind(401, "A token is needed", "send Authorization: Bearer and a token of bridges.<name>.tokens"),
    "read_only_token": Kind(403, "This token only reads", "use a token of tokens: that has write: true"),
    "doubled_header": Kind(400, "A header that decides comes twice", "send it once"),
    "foreign_host": Kind(
        403,
        "The Host header names another machine",
        "ask for an address or localhost, or name it in hosts of the bridge",
    ),
    "foreign_origin": Kind(
        403, "A web page of another origin may not", "behind a proxy, name the page's host in hosts of the bridge"
    ),
    "guessing": Kind(429, "Too many wrong tokens from there", "wait as long as Retry-After says"),
    "too_many_streams": Kind(503, "Too many read the stream", "close pages that nobody looks at", 10),
    "not_found": Kind(404, "Nothing is here", "docs/reference/http-api.md lists the paths"),
    "unknown_command": Kind(404, "No such command", "its id is in the answer to the request that made it"),
    "not_cancellable": Kind(409, "It can't be cancelled any more", "set what should be in force instead"),
    "method_not_allowed": Kind(405, "Not by this method", "the Allow header has those there are"),
    "not_json": Kind(415, "The body must be JSON", "send Content-Type: application/json"),
    "too_large": Kind(413, "The body is too large", "send less, e.g. one request for each device"),
    "timed_out": Kind(408, "The body took too long", "send it anew"),
    "failed": Kind(500, "The gateway failed", "its log has what happened"),
}


UNREAD: Final = ("too_large", "timed_out")
"""After these the rest of the body is not waited for."""


class ProblemError(Exception):
    """A request is answered with a problem."""

    def __init__(self, kind: str, detail: str, *, retry_after: int | None = None, **more: Any) -> None:
        super().__init__(detail)
        self.kind = kind
        self.retry_after = retry_after
        self.more = more
        """Members of the answer besides the usual ones."""


def response(error: ProblemError, headers: Mapping[str, str] = {}) -> Response:
    """Return the answer."""
    row = KINDS[error.kind]
    body = {
        "type": URN + error.kind,
        "title": row.title,
        "status": row.status,
        "reason": error.kind,
        "detail": plain(str(error), MAX_DETAIL),
        "do": row.do,
    }
    sent = dict(headers)
    wait = error.retry_after or row.retry_after
    if wait:
        sent["Retry-After"] = str(wait)
    if error.kind in UNREAD:
        sent["Connection"] = "close"
    if row.status == 401:
        sent["WWW-Authenticate"] = "Bearer"
    return Response(msgspec.json.encode(body | error.more), row.status, sent, MEDIA_TYPE)


def worst(reasons: Sequence[tuple[Reason, str]]) -> tuple[Reason, str]:
    """Return what the others of one request were refused for: the first reason that is not just "another was"."""
    return next((found for found in reasons if found[0] is not Reason.BAD_REQUEST), reasons[0])
