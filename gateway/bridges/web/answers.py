"""What the HTTP API takes and answers, as types: the OpenAPI document is made from them.

Answers are built in `gateway.core.shapes` and beside their handlers; `tests/bridges/web/test_openapi.py` compares them.
"""

from datetime import datetime
from typing import Annotated, Any, Final

import msgspec

from gateway.api.served import Reading
from gateway.bridges.web.problems import KINDS
from gateway.commands.requests import ID_LIMIT, REVERT_LIMIT, TEXT_LIMIT, TTL_LIMIT
from gateway.core.model import CommandState, DeviceKind, Quality, Reason, Value
from gateway.core.points import NONE, POINTS, SETPOINTS, Point, Type
from gateway.core.shapes import MAX_FINDINGS


class _Answer(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """An object that has these members and no other."""


_JSON_TYPES: Final = {
    Type.FLOAT: "number",
    Type.INTEGER: "integer",
    Type.BOOLEAN: "boolean",
    Type.ENUM: "string",
    Type.TEXT: "string",
}


def _value_of(point: Point) -> dict[str, Any]:
    """Return the schema of a point's value as it is answered."""
    unit = f", in {point.unit}" if point.unit else ""
    schema: dict[str, Any] = {"type": [_JSON_TYPES[point.type], "null"], "description": point.description + unit}
    if point.nullable:
        # "no limit" and "no setting of mine" are the word `none`.
        schema["type"].append("string")
    return schema


def _wanted(point: Point) -> dict[str, Any]:
    """Return the schema of a setpoint's value in the form that every reader agrees on. Others are taken too."""
    schema: dict[str, Any] = {"type": _JSON_TYPES[point.type]}
    if point.options:
        schema["enum"] = list(point.options)
    if point.low is not None:
        schema["minimum"] = point.low
    if point.high is not None:
        schema["maximum"] = point.high
    if point.nullable:
        schema = {"anyOf": [schema, {"const": NONE}]}
    unit = f", in {point.unit}" if point.unit else ""
    return schema | {"description": point.description + unit}


Values = Annotated[
    dict[str, Value],
    msgspec.Meta(
        description="point → value; null: not known",
        extra_json_schema={"properties": {point.id: _value_of(point) for point in POINTS.values()}},
    ),
]


class Device(_Answer):
    """What a device is, and how good its data are."""

    serial: str
    name: str
    kind: DeviceKind
    model: str
    plant: str
    quality: Quality
    time: Annotated[datetime | None, msgspec.Meta(description="when its newest data were measured")]


class Devices(_Answer):
    """A page of the devices."""

    total: Annotated[int, msgspec.Meta(description="devices that fit, on all pages")]
    offset: int
    devices: list[Device]


class Setpoint(_Answer):
    """What a setpoint takes from this token."""

    type: Type
    unit: str
    none: Annotated[bool, msgspec.Meta(description="true: it takes `none`, too")] = False
    least: Annotated[float, msgspec.Meta(description="lowest magnitude of a power factor")] = 0.0
    options: list[str] = []
    min: float | None = None
    max: float | None = None
    step: float | None = None


class DeviceDetail(Device):
    """All that is known of a device, and what this token may set."""

    rated_power: Annotated[float | None, msgspec.Meta(description="W")]
    source: Annotated[str | None, msgspec.Meta(description="the bridge that its data are of")]
    values: Values
    setpoints: dict[str, Setpoint]


class RegisterMap(_Answer):
    """A register map under which the device is served."""

    bridge: str
    map: str
    port: int
    unit: int
    word_order: str
    registers: Annotated[int, msgspec.Meta(description="values that it has")]


class Register(_Answer):
    """A value of a map, as a client reads it."""

    address: Annotated[int, msgspec.Meta(description="0-based, as on the wire")]
    holding: Annotated[int, msgspec.Meta(description="the same in the 4xxxx notation")]
    count: Annotated[int, msgspec.Meta(description="registers that it takes")]
    type: str
    point: str
    unit: str
    access: str
    description: str
    raw: Annotated[list[int] | None, msgspec.Meta(description="the registers; null: a read is refused")]
    value: Annotated[Value, msgspec.Meta(description="in `unit`; null: not there, or a read is refused")]
    state: Annotated[Reading, msgspec.Meta(description="whether the value is of now")]


class Registers(_Answer):
    """What is served of a device by one map; `maps` has all that there are, and is empty where nothing serves it."""

    serial: str
    quality: Quality
    time: Annotated[datetime | None, msgspec.Meta(description="when its newest data were measured")]
    maps: list[RegisterMap]
    bridge: str | None
    map: str | None
    registers: list[Register]


class Curve(_Answer):
    """The main power of a device."""

    point: str
    values: Annotated[list[float | None], msgspec.Meta(description="oldest first; null: there were no good data")]


class Recent(_Answer):
    """The last hours of devices; one that is not known, or has no power, is left out."""

    step: Annotated[float, msgspec.Meta(description="seconds from one value to the next")]
    end: Annotated[datetime | None, msgspec.Meta(description="when the last value was noted; null: none was yet")]
    curves: dict[str, Curve]


class Budget(_Answer):
    """What is left of the calls of one SEMS account."""

    bridges: Annotated[list[str], msgspec.Meta(description="those that share the account")]
    per_hour: Annotated[int, msgspec.Meta(description="calls that the account may make in any hour")]
    used: Annotated[int, msgspec.Meta(description="calls of the last hour")]
    left: Annotated[int, msgspec.Meta(description="calls that may be made now")]
    planned: Annotated[int, msgspec.Meta(description="calls an hour that polling plans")]
    held: Annotated[float, msgspec.Meta(description="seconds for which SEMS lets nobody call")]


class Budgets(_Answer):
    """Of every account."""

    budgets: list[Budget]


class Step(_Answer):
    """Where a command stands."""

    id: str
    serial: str
    setpoint: str
    value: Value
    state: CommandState
    reason: Annotated[Reason | None, msgspec.Meta(description="why it was rejected")]
    detail: str
    origin: str
    time: datetime
    verified: Annotated[bool, msgspec.Meta(description="of a success: whether the value was read back")] = False
    correction: Annotated[bool, msgspec.Meta(description="true of what became known after the end")] = False
    parent: Annotated[str, msgspec.Meta(description="of a fleet's command to a member: the fleet's own")] = ""


class Taken(_Answer):
    """Where each command of a request stands."""

    commands: list[Step]


class PastStep(_Answer):
    """A step in the life of a command."""

    state: CommandState
    reason: Reason | None
    detail: str
    time: datetime
    verified: bool = False
    correction: bool = False


class Command(_Answer):
    """A command, and how it came to where it stands."""

    id: str
    serial: str
    setpoint: str
    value: Value
    origin: str
    created: datetime
    expires: datetime
    revert_after: Annotated[float | None, msgspec.Meta(description="seconds")]
    revert_value: Value
    state: CommandState
    final: bool
    verified: bool | None
    steps: list[PastStep]
    parent: Annotated[str, msgspec.Meta(description="of a fleet's command to a member: the fleet's own")] = ""


class Finding(_Answer):
    """What a bridge doubts or has found out."""

    code: str
    subject: str
    text: str
    remedy: str
    since: datetime


class Bridge(_Answer):
    """How a bridge does."""

    type: str
    up: bool
    detail: str
    since: datetime
    findings: Annotated[list[Finding], msgspec.Meta(max_length=MAX_FINDINGS)] = []
    findings_total: int = 0


class Bridges(_Answer):
    """Every bridge by its name."""

    bridges: dict[str, Bridge]


class Halted(_Answer):
    """Whether control is halted; of a halt, who, why and since when."""

    halted: bool
    by: str = ""
    reason: str = ""
    since: datetime | None = None


class ReadyFinding(_Answer):
    """What a bridge doubts or has found out, and somebody should see to."""

    bridge: str
    code: str
    subject: str
    text: str


class Ready(_Answer):
    """Whether every bridge works and the journal can be written."""

    ready: bool
    down: Annotated[list[str], msgspec.Meta(description="bridges that do not work")]
    halted: bool
    journal: Annotated[str, msgspec.Meta(description="why the journal can't be written")] = ""
    findings: list[ReadyFinding] = []


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong (RFC 9457)."""

    type: str
    title: str
    status: int
    reason: Annotated[str, msgspec.Meta(extra_json_schema={"enum": [str(kind) for kind in KINDS]})]
    detail: str
    do: Annotated[str, msgspec.Meta(description="what can be done about it")]
    id: Annotated[str | None, msgspec.Meta(description="the id of the request, where it has one")] = None
    setpoint: Annotated[str | None, msgspec.Meta(description="the setpoint that it is about")] = None
    commands: Annotated[list[Step], msgspec.Meta(description="where each command of the request stands")] = []


class Reasoned(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why control is halted."""

    reason: str = ""


class Explained(msgspec.Struct, frozen=True):
    """What would become of a request to set something; nothing was done."""

    permitted: bool
    reason: str | None
    detail: str
    commands: list[dict[str, Any]]
    """Each with `setpoint`, the number of the `rule` that lets it in, and every check."""


class Nothing(msgspec.Struct, frozen=True):
    """Any object; what is in it is not looked at."""


_OPTIONS: Final[dict[str, Any]] = {
    "id": {
        "type": ["string", "null"],
        "minLength": 1,
        "maxLength": ID_LIMIT,
        # All that is not printable can't be said in a pattern that every reader understands.
        "pattern": r"^[^\x00-\x1f\x7f]+$",
        "description": "printable characters; the same id and wish twice is one command",
    },
    "ttl": {
        "type": ["number", "null"],
        "exclusiveMinimum": 0,
        "maximum": TTL_LIMIT,
        "description": "seconds until it expires unsent",
    },
    "revert_after": {
        "type": ["number", "null"],
        "exclusiveMinimum": 0,
        "maximum": REVERT_LIMIT,
        "description": "seconds until the setpoint falls back",
    },
    "time": {"type": ["string", "null"], "format": "date-time", "description": "when it was said, with its zone"},
}
"""What a request to set something may say besides values. See `gateway.commands.requests`."""

SET: Final[dict[str, Any]] = {
    "description": "several setpoints, taken or refused together, or one with `setpoint` and `value`",
    "anyOf": [
        {
            "title": "SetSeveral",
            "type": "object",
            "additionalProperties": False,
            "properties": {**{name: _wanted(point) for name, point in SETPOINTS.items()}, **_OPTIONS},
            "anyOf": [{"required": [name]} for name in SETPOINTS],
        },
        {
            "title": "SetOne",
            "type": "object",
            "additionalProperties": False,
            "required": ["setpoint", "value"],
            "if": {"required": ["revert_value"], "properties": {"revert_value": {"not": {"type": "null"}}}},
            "then": {"required": ["revert_after"], "properties": {"revert_after": {"type": "number"}}},
            "properties": {
                "setpoint": {"enum": list(SETPOINTS)},
                "value": {"type": ["number", "boolean", "string", "null"], "maxLength": TEXT_LIMIT},
                **_OPTIONS,
                "revert_value": {
                    "type": ["number", "boolean", "string", "null"],
                    "maxLength": TEXT_LIMIT,
                    "description": "what it falls back to; needs `revert_after`",
                },
            },
        },
    ],
}
