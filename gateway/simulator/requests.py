"""What a client sends, checked by the request rows of the catalogue; and how it is refused."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Final
from urllib.parse import parse_qsl

import msgspec

from gateway.core.model import Value
from gateway.core.points import NONE, SETPOINTS, BadValueError
from gateway.sems.catalogue import Catalogue, Interface, Json, RequestField, SemsError
from gateway.simulator.specs import DeviceSpec

MAX_TEXT: Final = 256
_MISSING: Final[Json] = "\0missing"

Argument = Value | datetime | tuple[str, ...]
Args = Mapping[str, Argument]
"""By the gateway's names. Times are the plant's own, without a zone."""


class Refusal(Enum):
    """Codes for what a client did wrong: the classic API's and the developer platform's. [assumed], but the first."""

    BAD_PARAMETER = ("100004", "P0214")
    NOT_FOUND = ("100013", "GY0404")
    NOT_SUPPORTED = ("100006", "GY0406")
    BAD_BODY = ("100007", "GY0415")
    BODY_TOO_LARGE = ("100008", "GY0413")
    WRONG_METHOD = ("100009", "GY0405")
    NO_INTERFACE = ("100010", "GY0410")
    BAD_REQUEST_ID = ("100011", "GY0400")
    NO_AUTHORITY = ("100012", "GY0403")


class RefusedError(Exception):
    """The call is answered with a code that is not success."""

    def __init__(
        self,
        reason: Refusal | SemsError,
        text: str,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text
        self.status = status
        """HTTP's; None for that which the API has for the reason."""
        self.headers = headers


def code_of(catalogue: Catalogue, reason: Refusal | SemsError) -> str:
    """Return the envelope code that an API has for an error: the first of the catalogue's that is no HTTP status."""
    if isinstance(reason, Refusal):
        classic, newer = reason.value
        return newer if catalogue.request_id else classic
    return next(row.code for row in catalogue.codes if row.error is reason and not _is_status(row.code))


def status_of(catalogue: Catalogue, reason: Refusal | SemsError) -> int:
    """Return the HTTP status that an API has for an error: what the catalogue lists among its codes, else 200."""
    rows = (row.code for row in catalogue.codes if row.error is reason and _is_status(row.code))
    return int(next(rows, "200"))


def _is_status(code: str) -> bool:
    return len(code) == 3 and code.isdigit()


def parse_body(interface: Interface, body: bytes) -> dict[str, Json]:
    """Return the fields of a JSON body, or of a form. Raises RefusedError."""
    if interface.body == "form":
        return dict(parse_qsl(body.decode("utf-8", "replace")))
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise RefusedError(Refusal.BAD_BODY, "the body is not JSON") from None
    if not isinstance(fields, dict):
        raise RefusedError(Refusal.BAD_BODY, "the body is not a JSON object")
    return fields


def separated(takers: Sequence[Interface], fields: Mapping[str, Json]) -> list[Mapping[str, Json]]:
    """Return the fields once for each item of the list in them that says what the call is for; mostly that is one."""
    for name in (row.field.partition(".0.")[0] for taker in takers for row in taker.request if ".0." in row.field):
        items = fields.get(name)
        if isinstance(items, list) and len(items) > 1:
            return [{**fields, name: [item]} for item in items]
    return [fields]


def serial_in(interface: Interface, fields: Mapping[str, Json]) -> str:
    """Return the serial number that a call is about. Raises RefusedError where there is none."""
    row = next(row for row in interface.request if row.arg == "serial")
    raw = _find(fields, row.field)
    if raw is _MISSING:
        raise _bad(row, "is missing")
    return str(_value(interface, row, raw))


def choose(takers: Sequence[Interface], fields: Mapping[str, Json]) -> Interface:
    """Return that one of the interfaces at a path which these fields are for. Raises RefusedError.

    They differ in the fields which all of them have: by constants, by options, and by the type of device.
    """
    if len(takers) == 1:
        return takers[0]
    common = frozenset[str].intersection(*(frozenset(row.field for row in taker.request) for taker in takers))
    for taker in takers:
        if all(_fits(taker, row, fields) for row in taker.request if row.field in common):
            return taker
    sent = ", ".join(f"{field} {fields.get(field)!r:.60}" for field in sorted(common) if field in fields)
    raise RefusedError(Refusal.BAD_PARAMETER, f"{takers[0].path} does nothing for {sent or 'so few fields'}")


def _fits(interface: Interface, row: RequestField, fields: Mapping[str, Json]) -> bool:
    raw = _find(fields, row.field)
    if row.const is not None:
        return raw == row.const
    if not row.options:
        return True
    meaning = next((meaning for meaning, option in row.options.items() if raw == option), None)
    return meaning is not None and (row.arg != "type" or meaning in interface.of)


def arguments(interface: Interface, fields: Mapping[str, Json]) -> dict[str, Argument]:
    """Return the interface's arguments. Fields it does not know do not matter. Raises RefusedError."""
    args: dict[str, Argument] = {}
    groups = {row.only for row in interface.request if row.only and _find(fields, row.field) is not _MISSING}
    for row in interface.request:
        if row.only and row.only not in groups:
            continue
        raw = _find(fields, row.field)
        if raw is _MISSING:
            raise _bad(row, "is missing")
        value = _value(interface, row, raw)
        if row.arg:
            args[row.arg] = value
    if interface.setpoints and not args.keys() & set(interface.setpoints):
        raise RefusedError(Refusal.BAD_PARAMETER, f"it takes one of {', '.join(interface.setpoints)}")
    return args


def check_device(interface: Interface, device: DeviceSpec | None, args: Args) -> None:
    """Refuse what this device's battery is not large enough for."""
    battery, power = device.model.battery if device else None, args.get("battery_power_target")
    if battery and isinstance(power, float) and power > battery.max_power:
        text = f"the battery takes at most {battery.max_power:g} W from {interface.name}"
        raise RefusedError(Refusal.BAD_PARAMETER, text)


def _find(fields: Mapping[str, Json], path: str) -> Json:
    """Return the value of a field that may lie deeper, or `_MISSING`. Lists hold one entry here."""
    place: Json = fields  # type: ignore[assignment] # it is only read
    for key in path.split("."):
        if isinstance(place, list) and key.isdigit():
            if len(place) > int(key) + 1:
                raise RefusedError(Refusal.BAD_PARAMETER, f"{path} is one of {len(place)}; one at a time, please")
            place = place[int(key)] if int(key) < len(place) else _MISSING
        elif isinstance(place, dict) and key in place:
            place = place[key]
        else:
            return _MISSING
    return place


def _value(interface: Interface, row: RequestField, raw: Json) -> Argument:
    if row.const is not None:
        if type(raw) is not type(row.const) or raw != row.const:
            raise _bad(row, f"is not {row.const!r}")
        return row.const
    if row.type == "list" and not row.options:
        return _texts(row, raw, interface.batch)
    if row.type == "local_time" and not row.options:
        return _moment(row, raw)
    if row.none is not None and type(raw) is type(row.none) and raw == row.none:
        return NONE
    value = _option(row, raw) if row.options else _typed(row, raw)
    setpoint = SETPOINTS.get(row.arg)
    if setpoint is None:
        return value
    try:
        return setpoint.parse(value)
    except BadValueError as error:
        raise _bad(row, f"is wrong: {error}") from None


def _texts(row: RequestField, raw: Json, most: int) -> tuple[str, ...]:
    texts = [text for text in raw if isinstance(text, str) and len(text) <= MAX_TEXT] if isinstance(raw, list) else []
    if not isinstance(raw, list) or len(texts) != len(raw):
        raise _bad(row, "takes a list of texts")
    if not 1 <= len(texts) <= most:
        raise _bad(row, f"takes 1 to {most} of them")
    return tuple(dict.fromkeys(texts))


def _moment(row: RequestField, raw: Json) -> datetime:
    try:
        return datetime.strptime(str(raw), row.format)  # noqa: DTZ007 - local to the plant
    except ValueError:
        raise _bad(row, f"takes a time written {row.format}") from None


def _option(row: RequestField, raw: Json) -> str:
    for meaning, option in row.options.items():
        if type(raw) is type(option) and raw == option:
            return meaning
    raise _bad(row, f"is not one of {list(row.options.values())}")


def _typed(row: RequestField, raw: Json) -> str | int | float:
    if isinstance(raw, str) and row.type == "text" and len(raw) <= MAX_TEXT:
        return raw
    if isinstance(raw, int) and not isinstance(raw, bool) and row.type in {"integer", "number"}:
        return raw
    if isinstance(raw, float) and row.type == "number":
        return raw
    raise _bad(row, f"takes {row.type}")


def _bad(row: RequestField, text: str) -> RefusedError:
    return RefusedError(Refusal.BAD_PARAMETER, f"{row.field} {text}")
