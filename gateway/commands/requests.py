"""Reads what asks for setpoints as text or JSON. Whatever arrives, the answer is a `Request`, or says what is wrong."""

from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import Any, Final

import msgspec

from gateway.core import strict
from gateway.core.model import Reason, Value, iso
from gateway.core.points import SETPOINTS
from gateway.core.text import escaped

PAYLOAD_LIMIT: Final = 65_536
"""Bytes of a set message."""
TEXT_LIMIT: Final = 200
"""Characters of a value; no setpoint takes a longer one."""
ID_LIMIT: Final = 128
NAME_LIMIT: Final = 64
"""Characters of a name that the far side made up, as far as it is repeated to it."""
TTL_LIMIT: Final = 86_400.0
REVERT_LIMIT: Final = 30 * 86_400.0
"""Seconds."""
MAX_AHEAD: Final = timedelta(minutes=2)
"""By how much the clock of who asks may be ahead of ours. What is from later can't say how long it was on its way."""

_FIELDS: Final = ("id", "ttl", "revert_after", "revert_value", "time")
"""What a message may say besides values."""


class RequestError(Exception):
    """A set message that becomes no command."""

    def __init__(self, reason: Reason, detail: str, setpoint: str | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.setpoint = setpoint and escaped(setpoint, NAME_LIMIT)
        self.id: str | None = None
        """The caller's own, where one could be read."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A set message in order. Values are scalars, not yet judged."""

    values: Mapping[str, Value]
    """Setpoint → wanted value. At least one."""
    id: str | None = None
    ttl: float | None = None
    """Seconds; None where the settings decide."""
    revert_after: float | None = None
    """Seconds."""
    revert_value: Value = None
    time: datetime | None = None
    """When it was said, by the sender's clock."""

    def said(self, now: datetime) -> datetime:
        """Return when it was said: now, where it does not say, or a clock is a little ahead. Raises RequestError."""
        if self.time is None:
            return now
        if self.time - now > MAX_AHEAD:
            setpoint = next(iter(self.values)) if len(self.values) == 1 else None
            error = RequestError(Reason.BAD_REQUEST, ahead(self.time, now), setpoint)
            error.id = self.id
            raise error
        # A clock ahead of ours must not make a wish live longer.
        return min(self.time, now)

    def ids(self) -> list[str] | None:
        """Return the command's id, or one for each setpoint where there are several; None: make some up."""
        if self.id is None:
            return None
        if len(self.values) == 1:
            return [self.id]
        return [f"{self.id}/{setpoint}" for setpoint in self.values]


def ahead(said: datetime, now: datetime) -> str:
    """Return in words that a time is too far ahead of our clock."""
    return f"its time {iso(said)} is ahead of the gateway's clock, which shows {iso(now)}; set both clocks by NTP"


def parse(setpoint: str | None, payload: bytes) -> Request:
    """Read a set message for one setpoint, or, with None, for those it names. Raises RequestError."""
    try:
        body = _values_in(payload) if setpoint is None else _value_in(payload)
    except RequestError as error:
        error.setpoint = setpoint and escaped(setpoint, NAME_LIMIT)
        raise
    return _request(setpoint, body)


def parse_object(payload: bytes) -> Request:
    """Read `{<setpoint>: <value>, …}` or `{"setpoint": …, "value": …, …}`. Raises RequestError."""
    body = _values_in(payload)
    if "setpoint" not in body:
        return _request(None, body)
    setpoint = body.pop("setpoint")
    if not isinstance(setpoint, str):
        raise RequestError(Reason.BAD_REQUEST, f"setpoint takes the name of one, not {_brief(setpoint)}")
    return _request(setpoint, body)


def _request(setpoint: str | None, body: dict[str, Any]) -> Request:
    id_: str | None = None
    try:
        id_ = _read_id(body.get("id"))
        return _read(setpoint, id_, body)
    except RequestError as error:
        error.id = id_
        error.setpoint = error.setpoint or (setpoint and escaped(setpoint, NAME_LIMIT))
        raise


def _read(setpoint: str | None, id_: str | None, body: dict[str, Any]) -> Request:
    if setpoint is None:
        raw = {name: value for name, value in body.items() if name not in _FIELDS}
        _check_names(raw, [*SETPOINTS, *_FIELDS])
        if not raw:
            raise RequestError(Reason.BAD_REQUEST, 'it names no setpoint, e.g. {"active_power_limit": 50}')
    else:
        _check_names([setpoint], SETPOINTS)
        unknown = body.keys() - {"value", *_FIELDS}
        if unknown:
            name = min(unknown)
            raise RequestError(Reason.BAD_REQUEST, _unknown("key", name, ["value", *_FIELDS]))
        if "value" not in body:
            raise RequestError(Reason.BAD_REQUEST, 'the object has no "value"')
        raw = {setpoint: body["value"]}
    revert_after = _seconds("revert_after", body.get("revert_after"), REVERT_LIMIT)
    revert_value = _scalar("revert_value", body.get("revert_value"))
    if revert_value is not None:
        if revert_after is None:
            raise RequestError(Reason.BAD_REQUEST, "revert_value needs revert_after, the seconds until then")
        if len(raw) > 1:
            raise RequestError(Reason.BAD_REQUEST, "revert_value is for one setpoint; send a request for each")
    return Request(
        values={name: _scalar(name, value) for name, value in raw.items()},
        id=id_,
        ttl=_seconds("ttl", body.get("ttl"), TTL_LIMIT),
        revert_after=revert_after,
        revert_value=revert_value,
        time=_read_time(body.get("time")),
    )


def _value_in(payload: bytes) -> dict[str, Any]:
    """Return what stands in a message for one setpoint: an object as it is, else `{"value": …}`."""
    text = text_in(payload)
    # Anything that isn't JSON is a text, e.g. `charge`; the setpoint's own parser has the last word.
    if text[0] not in '{["' and len(text) > TEXT_LIMIT:
        raise RequestError(Reason.BAD_VALUE, f"the value has {len(text)} characters; at most {TEXT_LIMIT} make sense")
    try:
        decoded = strict.decode(text)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        if text[0] in '{["':
            raise RequestError(Reason.BAD_REQUEST, f"not JSON: {error}") from None
        return {"value": text}
    return decoded if isinstance(decoded, dict) else {"value": decoded}


def _values_in(payload: bytes) -> dict[str, Any]:
    text = text_in(payload)
    try:
        decoded = strict.decode(text)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise RequestError(Reason.BAD_REQUEST, f"not JSON: {error}") from None
    if not isinstance(decoded, dict):
        raise RequestError(Reason.BAD_REQUEST, 'not a JSON object, e.g. {"active_power_limit": 50}')
    return decoded


def text_in(payload: bytes) -> str:
    """Return what a message says, without white space round it. Raises RequestError."""
    if len(payload) > PAYLOAD_LIMIT:
        raise RequestError(
            Reason.BAD_REQUEST, f"the payload has {len(payload)} bytes; at most {PAYLOAD_LIMIT} are read"
        )
    try:
        text = payload.decode().strip()
    except UnicodeDecodeError as error:
        raise RequestError(Reason.BAD_REQUEST, f"not UTF-8: {error.reason} at byte {error.start}") from None
    if not text:
        raise RequestError(Reason.BAD_REQUEST, "the payload is empty")
    return text


def _read_id(raw: Any) -> str | None:
    if raw is None:
        return None
    if not isinstance(raw, str) or not 0 < len(raw) <= ID_LIMIT or not raw.isprintable():
        raise RequestError(Reason.BAD_REQUEST, f"id takes a text of 1 to {ID_LIMIT} printable characters")
    return raw


def _read_time(raw: Any) -> datetime | None:
    if raw is None:
        return None
    wrong = f"not {_brief(raw)}"
    try:
        time = datetime.fromisoformat(raw) if isinstance(raw, str) and len(raw) <= TEXT_LIMIT else None
        if time is not None and time.tzinfo is not None:
            return time.astimezone(UTC)
        if time is not None:
            wrong = f"the zone is missing: for UTC write {time.isoformat()}Z"
    except (ValueError, OverflowError):
        pass
    raise RequestError(
        Reason.BAD_REQUEST, f"time takes a time with its zone like 2026-06-21T12:00:00Z or …+02:00; {wrong}"
    )


def _seconds(name: str, raw: Any, most: float) -> float | None:
    if raw is None:
        return None
    if not isinstance(raw, (int, float)) or isinstance(raw, bool) or not 0 < raw <= most:
        raise RequestError(
            Reason.BAD_REQUEST, f"{name} takes a number of seconds above 0, at most {most:.0f}, not {_brief(raw)}"
        )
    return float(raw)


def _scalar(name: str, raw: Any) -> Value:
    """Return a value that a setpoint may or may not take; refuse what none does."""
    if raw is None or isinstance(raw, (bool, int, float)) or (isinstance(raw, str) and len(raw) <= TEXT_LIMIT):
        return raw
    raise RequestError(
        Reason.BAD_VALUE,
        f"{name} takes a number, true, false or a short text, not {_brief(raw)}",
        name if name in SETPOINTS else None,
    )


def _check_names(names: Iterable[str], known: Collection[str]) -> None:
    for name in names:
        if name not in SETPOINTS:
            raise RequestError(Reason.UNKNOWN_SETPOINT, _unknown("setpoint", name, known), name)


def _unknown(what: str, name: str, known: Collection[str]) -> str:
    near = get_close_matches(name[:NAME_LIMIT].lower(), known, 1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
    return f"there is no {what} {name[:NAME_LIMIT]!r}; {hint}"


def _brief(raw: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
    return kinds.get(type(raw)) or str(raw)[:TEXT_LIMIT]
