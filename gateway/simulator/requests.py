"""What a client sends, checked by the request rows of the catalogue; and how it is refused."""

from collections.abc import Mapping
from enum import Enum
from typing import Final

import msgspec

from gateway.core.model import Value
from gateway.core.points import SETPOINTS, BadValueError
from gateway.sems.catalogue import Catalogue, Interface, Json, RequestField, SemsError
from gateway.simulator.specs import DeviceSpec

MAX_TEXT: Final = 256


class Refusal(Enum):
    """Codes that the catalogue does not know. [assumed], all of them."""

    BAD_PARAMETER = "100003"
    NOT_FOUND = "100005"
    NOT_SUPPORTED = "100006"
    BAD_BODY = "100007"
    BODY_TOO_LARGE = "100008"
    WRONG_METHOD = "100009"
    NO_INTERFACE = "100010"


class RefusedError(Exception):
    """The call is answered with a code that is not success."""

    def __init__(self, code: str, text: str, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.status = status
        self.headers = headers


def refuse(refusal: Refusal, text: str, status: int = 200) -> RefusedError:
    """Return the error for a refusal."""
    return RefusedError(refusal.value, text, status)


def code_of(catalogue: Catalogue, error: SemsError) -> str:
    """Return the first code that a catalogue has for an error."""
    return next(row.code for row in catalogue.codes if row.error is error)


def parse_body(body: bytes) -> dict[str, Json]:
    """Return the fields of a JSON body. Raises RefusedError."""
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise refuse(Refusal.BAD_BODY, "the body is not JSON") from None
    if not isinstance(fields, dict):
        raise refuse(Refusal.BAD_BODY, "the body is not a JSON object")
    return fields


def arguments(interface: Interface, fields: Mapping[str, Json]) -> dict[str, Value]:
    """Return the interface's arguments by the gateway's names. Unknown fields do not matter. Raises RefusedError."""
    args: dict[str, Value] = {}
    for row in interface.request:
        if row.field not in fields:
            raise refuse(Refusal.BAD_PARAMETER, f"{row.field} is missing")
        value = _value(row, fields[row.field])
        if row.arg:
            args[row.arg] = value
    return args


def check_device(interface: Interface, device: DeviceSpec, args: Mapping[str, Value]) -> None:
    """Refuse what this device has no hardware for, or not enough."""
    if interface.kinds and device.model.kind not in interface.kinds:
        raise refuse(Refusal.NOT_SUPPORTED, f"{device.model.name} does not support {interface.name}")
    battery, power = device.model.battery, args.get("battery_power_target")
    if battery and isinstance(power, float) and power > battery.max_power:
        raise refuse(Refusal.BAD_PARAMETER, f"the battery takes at most {battery.max_power:g} W")


def _value(row: RequestField, raw: Json) -> Value:
    if row.const is not None:
        return _same(row, raw)
    value = _option(row, raw) if row.options else _typed(row, raw)
    setpoint = SETPOINTS.get(row.arg)
    if setpoint is None:
        return value
    try:
        return setpoint.parse(value)
    except BadValueError as error:
        raise refuse(Refusal.BAD_PARAMETER, f"{row.field}: {error}") from None


def _same(row: RequestField, raw: Json) -> Value:
    if type(raw) is not type(row.const) or raw != row.const:
        raise refuse(Refusal.BAD_PARAMETER, f"{row.field} is not {row.const!r}")
    return row.const


def _option(row: RequestField, raw: Json) -> str:
    for meaning, option in row.options.items():
        if type(raw) is type(option) and raw == option:
            return meaning
    raise refuse(Refusal.BAD_PARAMETER, f"{row.field} is not one of {list(row.options.values())}")


def _typed(row: RequestField, raw: Json) -> str | int | float:
    if isinstance(raw, str) and row.type == "text" and len(raw) <= MAX_TEXT:
        return raw
    if isinstance(raw, int) and not isinstance(raw, bool) and row.type in {"integer", "number"}:
        return raw
    if isinstance(raw, float) and row.type == "number":
        return raw
    raise refuse(Refusal.BAD_PARAMETER, f"{row.field} takes {row.type}")
