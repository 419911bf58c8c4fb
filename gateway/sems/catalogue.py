"""The catalogue of SEMS interfaces: data in `catalogues/`, one file an API, and what reads it.

Calls are made, answers are understood, and the simulator answers by the rows of these files.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final, Literal

import msgspec
import yaml

from gateway.core.model import DeviceKind
from gateway.core.points import NONE, SETPOINTS

Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None
Scalar = str | int | float


FOLDER: Traversable = files("gateway.sems").joinpath("catalogues")
"""One file an API. A file that says `platform:` is a generation of the Open API, and all that it takes to have one."""
_PLATFORM: Final = re.compile(r"^platform: ([a-z0-9_]+)$", re.MULTILINE)
"""Found without reading the whole as YAML, which takes a while."""
ORDERED: Final = "battery_ordered"
"""A call's argument: whether there is an order for the battery at all, or it is handed back."""


class Standing(StrEnum):
    """How far a line can be relied on."""

    INTRO = "intro"
    SEEN = "seen"
    ASSUMED = "assumed"
    CONFIG = "config"
    """Said by the user's own configuration."""


class Use(StrEnum):
    """What the gateway calls an interface for."""

    LOGIN = "login"
    PLANTS = "plants"
    """Lists the account's plants."""
    DEVICES = "devices"
    """Lists a plant's devices; may bring live values of them along."""
    DETAIL = "detail"
    """Says what a plant is, and where; may bring live values along."""
    LIVE = "live"
    """Reads what is measured now."""
    ALARMS = "alarms"
    """Lists the alarms of a device, or of a plant's devices."""
    SERIES = "series"
    """Reads what was measured before."""
    CONTROL = "control"
    RESULT = "result"
    """Says what became of a control task."""
    PARAMETERS = "parameters"
    """Reads setpoints back; where it takes a receipt, that of a parameters task."""
    PARAMETERS_TASK = "parameters_task"
    """Has setpoints read back."""
    DISPATCH = "dispatch"
    """Hands an energy management system over to whoever calls."""


READS: Final = frozenset({
    Use.PLANTS, Use.DEVICES, Use.DETAIL, Use.LIVE, Use.ALARMS, Use.SERIES, Use.RESULT, Use.PARAMETERS,
})  # fmt: skip
"""What only reads, so that a call may be made again of which nobody knows whether it arrived."""


class SemsError(StrEnum):
    """What an envelope code means to a client."""

    TOKEN_EXPIRED = "token_expired"  # noqa: S105 - the name of an error
    LOGIN_REFUSED = "login_refused"
    RATE_LIMITED = "rate_limited"
    NO_LICENCE = "no_licence"
    """The account may not use this API, or not any more."""
    UNAUTHORISED = "unauthorised"
    """Of one device: it is not in the whitelist, or its owner has not agreed."""
    DISOBEYED = "disobeyed"
    """SEMS did not get it done: the device was not reached, or did not do it."""
    WRONG_PARAMETER = "wrong_parameter"
    """A field of the call is missing or wrong."""
    NO_RIGHT = "no_right"
    """The account may not do that."""
    SYSTEM_ERROR = "system_error"
    """SEMS has an error of its own."""


class Code(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An envelope code that is not success."""

    code: str
    error: SemsError
    standing: Standing
    at: Literal["", "login", "call"] = ""
    """Where it means that: at the login, or at any other call; "" for both."""


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the parts of an answer are called."""

    code: str = "code"
    data: str = "data"


class Token(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a call shows that one has entered."""

    header: str
    prefix: str = ""
    """What stands before the token in the header."""
    lifetime: float = 7200
    """Seconds, where the login does not say."""


class RequestField(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A field the client sends."""

    field: str
    """Its name; a path where it lies deeper, e.g. `items.0.sn`: a number is a place in a list."""
    standing: Standing
    type: Literal["text", "integer", "number", "list", "local_time"] = "number"
    arg: str = ""
    const: Scalar | None = None
    options: Mapping[str, str | int] = {}
    format: str = "%Y-%m-%d %H:%M:%S"
    """How a `local_time` is written (strftime)."""
    only: str = ""
    """The setpoint that must be the one commanded, or the field is left out."""
    none: Scalar | None = None
    """What says that there is no limit, or no setting: the value `none`."""

    def encode(self, value: object) -> Json:
        """Return the gateway's value as SEMS takes it. Raises KeyError for an unknown option, or for a `none` it lacks.

        A `list` takes a sequence of texts, a `local_time` a datetime that is local to the plant already.
        """
        if self.options:
            return self.options[_key(value)]
        if value == NONE and self.arg in SETPOINTS and SETPOINTS[self.arg].nullable:
            if self.none is None:
                raise KeyError(f"{self.field} has no word for {NONE}")
            return self.none
        match self.type:
            case "text":
                return f"{value:g}" if isinstance(value, float) else str(value)
            case "integer":
                return round(float(str(value)))
            case "number":
                return float(str(value))
            case "list":
                return list(value)  # type: ignore[call-overload,no-any-return]
            case "local_time":
                return value.strftime(self.format)  # type: ignore[attr-defined,no-any-return]


class ResponseField(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A field SEMS answers with."""

    field: str
    """Its name in an entry; a path where it lies deeper, e.g. `parameters.pvPower`."""
    standing: Standing
    type: Literal["text", "number", "local_time", "unix_seconds", "unix_milliseconds"] = "number"
    point: str = ""
    attribute: str = ""
    scale: float = 1
    options: Mapping[str, str | bool] = {}
    absent: tuple[float, ...] = ()
    none: float | None = None
    """The number that says that there is no limit, or no setting."""
    shape: str | None = None
    """Which of the interface's `lists` the field occurs in; None for all."""
    means: Standing = Standing.ASSUMED
    """How far the unit and the sign of its number can be relied on: a name that was seen says neither."""


class Interface(msgspec.Struct, frozen=True, eq=False, forbid_unknown_fields=True):
    """One interface of an API."""

    name: str
    form: str
    method: Literal["GET", "POST", "KAFKA"]
    path: str
    """Below the catalogue's base; from the host on where it begins with a slash. For Kafka, the topic it is sent to."""
    use: Use
    standing: Standing
    request: tuple[RequestField, ...] = ()
    response: tuple[ResponseField, ...] = ()
    lists: tuple[str, ...] = ()
    """Where the entries are: a path into `data`, and another for each other shape seen. An empty path is
    `data` itself. On the way, each object of a list is walked, and lends its plain fields to the entries within.
    Without any, `data` is one entry."""
    of: tuple[str, ...] = ()
    """Types of device it is about; see `Catalogue.types`."""
    covers: tuple[str, ...] = ()
    """Types of other devices whose live values come along in its answer."""
    setpoints: tuple[str, ...] = ()
    rounds: int = 1
    """It is called every that many rounds of polling."""
    batch: int = 1
    """How many serials one call takes; of one that sets, how many items."""
    span: Literal["", "day", "month", "year"] = ""
    """How much time one call of a series covers."""
    step: Literal["", "minutes", "day", "month"] = ""
    """How far the entries of a series are apart."""
    auth: Literal["", "basic"] = ""
    body: Literal["json", "form"] = "json"
    bare: bool = False
    """The answer has no envelope."""
    answers: str = ""
    """For Kafka, the topic that results come by."""

    def parameters(self, args: Mapping[str, object], setpoint: str = "") -> dict[str, Json]:
        """Return the request's fields, filled from `args`, for the setpoint commanded if there is one.

        Raises KeyError for an argument that is missing.
        """
        fields: dict[str, Json] = {}
        for row in self.request:
            if not row.only or row.only == setpoint:
                _put(fields, _path(row.field), row.const if row.const is not None else row.encode(args[row.arg]))
        return fields

    def together(self, each: Sequence[Mapping[str, object]], setpoint: str = "") -> dict[str, Json]:
        """Return the fields of one call for several: their lists are joined, the rest is the first one's.

        Raises KeyError for an argument that is missing.
        """
        fields, *others = [self.parameters(args, setpoint) for args in each]
        for other in others:
            for name, value in other.items():
                listed = fields[name]
                if isinstance(listed, list) and isinstance(value, list):
                    listed.extend(value)
        return fields

    @property
    def args(self) -> frozenset[str]:
        """Names of the arguments a call takes."""
        return frozenset(row.arg for row in self.request if row.arg)

    @property
    def points(self) -> frozenset[str]:
        """Points that its answers bring."""
        return frozenset(row.point for row in self.response if row.point)


class Catalogue(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One API. One that is no HTTP has no base, token and calls an hour."""

    api: str
    title: str
    platform: str = ""
    """What `platform:` of a configuration calls it; empty for what is no generation of the Open API."""
    enters: tuple[str, str] = ("account", "password")
    """The settings by which one enters: a name, and a secret."""
    host: str = ""
    """Where it stands; empty where that is the region's."""
    base: str = ""
    success: tuple[str, ...]
    codes: tuple[Code, ...]
    envelope: Envelope = Envelope()
    token: Token = Token("")
    calls_per_hour: int = 0
    interfaces: tuple[Interface, ...]
    types: Mapping[str, DeviceKind] = {}
    """Type of device → its kind, for types that are no kind themselves."""
    request_id: str = ""
    """Header for a unique id of each call; empty where none is wanted."""

    def interface(self, name: str) -> Interface:
        """Return an interface by its name. Raises KeyError."""
        for interface in self.interfaces:
            if interface.name == name:
                return interface
        raise KeyError(name)

    def using(self, use: Use, type_: str | None = None) -> Iterator[Interface]:
        """Yield the interfaces for a use, in order; with a type of device, those that are for it."""
        for interface in self.interfaces:
            if interface.use is use and (type_ is None or type_ in interface.of):
                yield interface

    def control_of(self, setpoint: str, type_: str | None = None) -> Interface | None:
        """Return the interface that sets a setpoint; with a type, of such a device."""
        return next((i for i in self.using(Use.CONTROL, type_) if setpoint in i.setpoints), None)

    def kind_of(self, type_: str) -> DeviceKind | None:
        """Return the kind of a type of device; None for one that is not known."""
        kind = self.types.get(type_)
        return kind if kind is not None else next((kind for kind in DeviceKind if kind == type_), None)

    def error_of(self, code: str, *, login: bool = False) -> SemsError | None:
        """Return what an envelope code means, at the login or at another call, where that is known."""
        other = "call" if login else "login"
        return next((row.error for row in self.codes if row.code == code and row.at != other), None)

    def url_path(self, interface: Interface) -> str:
        """Return an interface's path from the host on."""
        return interface.path if interface.path.startswith("/") else self.base + interface.path


@cache
def platforms() -> Mapping[str, str]:
    """Return each generation of the Open API: what `platform:` calls it → the name of its catalogue."""
    found = {}
    for file in sorted(FOLDER.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".yaml") and (said := _PLATFORM.search(file.read_text("utf-8"))):
            found[said[1]] = file.name.removesuffix(".yaml")
    return found


@cache
def load(api: str) -> Catalogue:
    """Return the catalogue of an API, by the name of its file."""
    text = FOLDER.joinpath(f"{api}.yaml").read_text("utf-8")
    # In Python alone a catalogue takes a fifth of a second at each start.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return msgspec.convert(text_keys(yaml.load(text, loader)), Catalogue)  # noqa: S506 - it is a safe one


@cache
def _path(field: str) -> tuple[tuple[str, type | None], ...]:
    """Return the steps of a path, each with what is to be there; None where the value is."""
    steps = field.split(".")
    made = [list if below.isdigit() else dict for below in steps[1:]]
    return tuple(zip(steps, [*made, None], strict=True))


def _put(fields: dict[str, Json], path: Sequence[tuple[str, type | None]], value: Json) -> None:
    """Put a value where a path says, making objects and lists on the way."""
    place: Json = fields
    for step, made in path:
        if isinstance(place, list):
            position = int(step)
            place.extend({} for _ in range(position + 1 - len(place)))
            if not place[position]:
                place[position] = value if made is None else made()
            place = place[position]
        elif isinstance(place, dict):
            if step not in place:
                place[step] = value if made is None else made()
            place = place[step]


def text_keys(node: Json) -> Json:
    """YAML reads `-1: offline` and `true: x` with keys that are no text; here all keys are."""
    if isinstance(node, dict):
        return {_key(key): text_keys(value) for key, value in node.items()}
    if isinstance(node, list):
        return [text_keys(item) for item in node]
    return node


def _key(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
