"""`/api/v1/openapi.json`: the HTTP API as OpenAPI 3.1, made from the routes, a row for each, and types of answers."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from starlette.routing import BaseRoute, Route

from gateway import __version__
from gateway.bridges.web import answers
from gateway.bridges.web.problems import KINDS, MEDIA_TYPE
from gateway.core.model import DeviceKind, Reason

PATH: Final = "/api/v1/openapi.json"
READ: Final = "read"
CONTROL: Final = "control"
"""Scopes: what a token may; `write: true` gives it control."""
TEXT: Final = "text/plain"
JSON: Final = "application/json"
WAIT_LIMIT: Final = 300.0
"""Seconds that an answer is held back at most."""
PAGE: Final = 1_000
PAGE_LIMIT: Final = 5_000
"""Devices in one answer."""
CURVES: Final = 100
"""Devices whose last hours are in one answer."""
OFFSET_LIMIT: Final = 1_000_000_000

_REF: Final = "#/components/schemas/{name}"
_EVERYWHERE: Final = ("doubled_header", "foreign_host", "foreign_origin", "method_not_allowed")
_WITH_TOKEN: Final = ("unauthorized", "guessing", "failed")
_TO_CONTROL: Final = ("read_only_token", "not_json")
_WITH_BODY: Final = ("too_large", "timed_out", Reason.BAD_REQUEST)


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """A row: what a method of a route is for."""

    id: str
    text: str
    scope: str = READ
    """READ, CONTROL, or "" where nobody is asked for a token."""
    answers: Mapping[int, Any]
    """Status → its type, or a media type where it is a text."""
    problems: Sequence[str] = ()
    """Kinds of problems besides those that its scope and its body bring."""
    body: Any = None
    """Type or schema of what is sent."""
    query: Sequence[Mapping[str, Any]] = ()
    located: bool = False
    """Whether an answer names a `Location`."""


def _query(name: str, text: str, **schema: Any) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": text, "schema": schema}


_WAIT: Final = _query(
    "wait", "seconds that the answer may be held back until the end", type="number", minimum=0, maximum=WAIT_LIMIT
)

_RECENT_SERIALS: Final = {
    "name": "serial",
    "in": "query",
    "required": True,
    "description": "of which devices; once for each",
    "schema": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": CURVES},
}

OPERATIONS: Final[Mapping[tuple[str, str], Operation]] = {
    ("GET", PATH): Operation(id="openapi", text="This document", answers={200: dict[str, Any]}),
    ("GET", "/api/v1/devices"): Operation(
        id="devices",
        text="The devices, a page at a time",
        answers={200: answers.Devices},
        problems=(Reason.BAD_REQUEST,),
        query=(
            _query("plant", "only those of this plant", type="string"),
            _query("kind", "only those of this kind", type="string", enum=[str(kind) for kind in DeviceKind]),
            _query("offset", "how many to pass over", type="integer", minimum=0, maximum=OFFSET_LIMIT, default=0),
            _query("limit", "how many at most", type="integer", minimum=1, maximum=PAGE_LIMIT, default=PAGE),
        ),
    ),
    ("GET", "/api/v1/devices/{serial}"): Operation(
        id="device",
        text="A device, its values, and what this token may set",
        answers={200: answers.DeviceDetail},
        problems=(Reason.UNKNOWN_DEVICE,),
    ),
    ("GET", "/api/v1/devices/{serial}/registers"): Operation(
        id="registers",
        text="A device's registers of one map, as Modbus clients read them now",
        answers={200: answers.Registers},
        problems=(Reason.UNKNOWN_DEVICE, Reason.BAD_REQUEST),
        query=(
            _query("bridge", "the Modbus bridge; else the first that serves the device", type="string"),
            _query("map", "one of `maps`; else the first", type="string"),
        ),
    ),
    ("POST", "/api/v1/devices/{serial}/set"): Operation(
        id="set",
        text="Set one or several setpoints",
        scope=CONTROL,
        answers={200: answers.Taken, 202: answers.Taken},
        problems=tuple(Reason),
        body=answers.SET,
        query=(_WAIT,),
        located=True,
    ),
    ("POST", "/api/v1/devices/{serial}/explain"): Operation(
        id="explain",
        text="What would become of a request to set something; nothing is done",
        scope=CONTROL,
        answers={200: answers.Explained},
        problems=tuple(Reason),
        body=answers.SET,
    ),
    ("GET", "/api/v1/events"): Operation(
        id="events",
        text="What changes, as it does: server-sent events",
        answers={200: "text/event-stream"},
        problems=("too_many_streams",),
    ),
    ("GET", "/api/v1/commands/{id}"): Operation(
        id="command",
        text="A command and all its steps",
        answers={200: answers.Command},
        problems=("unknown_command", Reason.BAD_REQUEST, Reason.NOT_STORED),
        query=(_WAIT,),
    ),
    ("DELETE", "/api/v1/commands/{id}"): Operation(
        id="cancel",
        text="End a command that has not left",
        scope=CONTROL,
        answers={200: answers.Command},
        problems=("unknown_command", "not_cancellable", Reason.NOT_PERMITTED, Reason.NOT_STORED),
    ),
    ("GET", "/api/v1/bridges"): Operation(id="bridges", text="How every bridge does", answers={200: answers.Bridges}),
    ("GET", "/api/v1/recent"): Operation(
        id="recent",
        text="The main power of devices over the last hours, as kept in memory since the start",
        answers={200: answers.Recent},
        problems=(Reason.BAD_REQUEST,),
        query=(_RECENT_SERIALS,),
    ),
    ("GET", "/api/v1/budgets"): Operation(
        id="budgets", text="What is left of the calls of each SEMS account", answers={200: answers.Budgets}
    ),
    ("GET", "/api/v1/halt"): Operation(id="halted", text="Whether control is halted", answers={200: answers.Halted}),
    ("POST", "/api/v1/halt"): Operation(
        id="halt",
        text="Halt all control",
        scope=CONTROL,
        answers={200: answers.Halted},
        problems=(Reason.NOT_PERMITTED, Reason.NOT_STORED),
        body=answers.Reasoned,
    ),
    ("POST", "/api/v1/resume"): Operation(
        id="resume",
        text="Let control go on",
        scope=CONTROL,
        answers={200: answers.Halted},
        problems=(Reason.NOT_PERMITTED, Reason.NOT_STORED),
        body=answers.Nothing,
    ),
    ("GET", "/metrics"): Operation(id="metrics", text="Metrics for Prometheus", answers={200: TEXT}),
    ("GET", "/healthz"): Operation(id="healthz", text="Whether the process lives", scope="", answers={200: TEXT}),
    ("GET", "/readyz"): Operation(
        id="readyz",
        text="Whether every bridge works and the journal can be written; 503 where not",
        scope="",
        answers={200: answers.Ready, 503: answers.Ready},
    ),
}
"""(Method, path) → its row."""


def operations(routes: Iterable[BaseRoute]) -> list[tuple[str, str]]:
    """Return (method, path) of all that is served but the page and its files. HEAD is GET without a body."""
    return [
        (method, route.path_format)
        for route in routes
        if isinstance(route, Route) and route.path_format != "/" and not route.path_format.startswith("/static/")
        for method in sorted((route.methods or {"GET"}) - {"HEAD"})
    ]


def document(routes: Iterable[BaseRoute], *, is_open: bool) -> dict[str, Any]:
    """Return the document of an application's routes. `is_open`: those of this machine read without a token.

    A route without a row is left out; a test says so.
    """
    rows = {key: OPERATIONS[key] for key in operations(routes) if key in OPERATIONS}
    types = [
        answer for row in rows.values() for answer in (*row.answers.values(), row.body) if isinstance(answer, type)
    ]
    _, components = msgspec.json.schema_components([*types, answers.Problem], ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for (method, path), row in rows.items():
        paths.setdefault(path, {})[method.lower()] = _operation(path, row, is_open)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "SEMS gateway",
            "version": __version__,
            "summary": "Devices of GoodWe's SEMS cloud: read them, set them",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "a token of bridges.<name>.tokens. All have the scope `read`; `write: true` gives "
                    "`control` too. Commands also need a rule of control.allow.",
                }
            },
        },
    }


def _operation(path: str, row: Operation, is_open: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"operationId": row.id, "summary": row.text, "security": _security(row, is_open)}
    parameters: list[Mapping[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in ("serial", "id")
        if f"{{{name}}}" in path
    ]
    if parameters or row.query:
        found["parameters"] = [*parameters, *row.query]
    if row.body is not None:
        found["requestBody"] = {"required": True, "content": {JSON: {"schema": _schema(row.body)}}}
    found["responses"] = {
        **{str(status): _answer(row, status, answer) for status, answer in row.answers.items()},
        **_problems(row),
    }
    return found


def _security(row: Operation, is_open: bool) -> list[dict[str, list[str]]]:
    if not row.scope:
        return []
    needed = {"bearer": [row.scope]}
    return [{}, needed] if is_open and row.scope == READ else [needed]


def _answer(row: Operation, status: int, answer: Any) -> dict[str, Any]:
    media, schema = (answer, {"type": "string"}) if isinstance(answer, str) else (JSON, _schema(answer))
    found: dict[str, Any] = {"description": row.text, "content": {media: {"schema": schema}}}
    if row.located:
        found["headers"] = {"Location": {"description": "the command, where it is one", "schema": {"type": "string"}}}
    if row.scope == CONTROL and status == 202:
        found["description"] = "taken; not all have ended"
    return found


def _problems(row: Operation) -> dict[str, Any]:
    kinds = [
        *_EVERYWHERE,
        *(_WITH_TOKEN if row.scope else ()),
        *(_TO_CONTROL if row.scope == CONTROL else ()),
        *(_WITH_BODY if row.body is not None else ()),
        *row.problems,
    ]
    by_status: dict[int, list[str]] = {}
    for kind in dict.fromkeys(map(str, kinds)):
        by_status.setdefault(KINDS[kind].status, []).append(kind)
    found = {}
    for status, names in sorted(by_status.items()):
        if status in row.answers:
            continue
        each: dict[str, Any] = {
            "description": "; ".join(f"`{name}`: {KINDS[name].title}" for name in names),
            "content": {MEDIA_TYPE: {"schema": {"$ref": _REF.format(name="Problem")}}},
        }
        if any(name == "guessing" or KINDS[name].retry_after for name in names):
            each["headers"] = {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}
        found[str(status)] = each
    return found


def _schema(kind: Any) -> Any:
    if isinstance(kind, dict):
        return kind
    (schema,), _ = msgspec.json.schema_components([kind], ref_template=_REF)
    return schema
