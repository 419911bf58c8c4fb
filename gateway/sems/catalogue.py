"""The catalogue of SEMS interfaces: data in `catalogues/`, one file an API, and what reads it.

Calls are made, answers are understood, and the simulator answers by the rows of these files.
"""

from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Literal

import msgspec
import yaml

Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None


class Standing(StrEnum):
    """How far a line can be relied on."""

    INTRO = "intro"
    SEEN = "seen"
    ASSUMED = "assumed"


class SemsError(StrEnum):
    """What an envelope code means to a client."""

    TOKEN_EXPIRED = "token_expired"  # noqa: S105 - the name of an error
    LOGIN_REFUSED = "login_refused"
    RATE_LIMITED = "rate_limited"


class Code(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An envelope code that is not success."""

    code: str
    error: SemsError
    standing: Standing


class RequestField(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A field the client sends."""

    field: str
    standing: Standing
    type: Literal["text", "integer", "number"] = "number"
    arg: str = ""
    const: str | int | float | None = None
    options: Mapping[str, str | int] = {}

    def encode(self, value: object) -> str | int | float:
        """Return the gateway's value as SEMS takes it. Raises KeyError for an unknown option."""
        if self.options:
            return self.options[_key(value)]
        match self.type:
            case "text":
                return f"{value:g}" if isinstance(value, float) else str(value)
            case "integer":
                return round(float(str(value)))
            case "number":
                return float(str(value))


class ResponseField(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A field SEMS answers with."""

    field: str
    standing: Standing
    type: Literal["text", "number", "local_time"] = "number"
    point: str = ""
    attribute: str = ""
    scale: float = 1
    options: Mapping[str, str | bool] = {}
    absent: tuple[float, ...] = ()


class Interface(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One interface of an API."""

    name: str
    form: str
    method: Literal["GET", "POST"]
    path: str
    standing: Standing
    request: tuple[RequestField, ...] = ()
    response: tuple[ResponseField, ...] = ()
    list: str = ""
    """Name of the field of `data` that holds a list; empty where `data` is one object."""
    setpoints: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    """Device kinds a control is for; empty for all that SEMS lists as inverters."""

    def parameters(self, args: Mapping[str, object]) -> dict[str, str | int | float]:
        """Return the request's fields, filled from `args`. Raises KeyError for one that is missing."""
        return {row.field: row.const if row.const is not None else row.encode(args[row.arg]) for row in self.request}


class Catalogue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One API."""

    api: str
    title: str
    base: str
    success: tuple[str, ...]
    codes: tuple[Code, ...]
    calls_per_hour: int
    token_lifetime: float
    interfaces: tuple[Interface, ...]

    def interface(self, name: str) -> Interface:
        """Return an interface by its name. Raises KeyError."""
        for interface in self.interfaces:
            if interface.name == name:
                return interface
        raise KeyError(name)

    def control_of(self, setpoint: str) -> Interface | None:
        """Return the interface that sets a setpoint."""
        return next((i for i in self.interfaces if setpoint in i.setpoints), None)

    def error_of(self, code: str) -> SemsError | None:
        """Return what an envelope code means, where that is known."""
        return next((row.error for row in self.codes if row.code == code), None)


@cache
def load(api: str) -> Catalogue:
    """Return the catalogue of an API, by the name of its file."""
    text = files("gateway.sems").joinpath("catalogues", f"{api}.yaml").read_text("utf-8")
    return msgspec.convert(_text_keys(yaml.safe_load(text)), Catalogue)


def _text_keys(node: Json) -> Json:
    """YAML reads `-1: offline` and `true: x` with keys that are no text; here all keys are."""
    if isinstance(node, dict):
        return {_key(key): _text_keys(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_text_keys(item) for item in node]
    return node


def _key(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
