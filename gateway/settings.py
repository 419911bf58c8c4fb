"""The settings tree: a YAML file, overridden by `SEMS_GATEWAY_…` from the environment.

Every error says the file, the line, what is wrong there and what to write instead.
"""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal, Self

import msgspec
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from gateway.core.bridge import Bridge, BridgeSettings
from gateway.core.policy import ControlSettings
from gateway.core.registry import Registry, UnknownBridgeError

ENV_PREFIX: Final = "SEMS_GATEWAY_"
CLI_BRIDGE: Final = "cli"
"""The bridge that every gateway has: the command line's door, a socket in `data_dir`."""


class Problem(msgspec.Struct, frozen=True, order=True):
    """One thing that is wrong with a configuration."""

    line: int
    """Counted from 1; 0 where no line is to blame, e.g. a key that is missing altogether."""
    where: str
    """Path of keys, e.g. `bridges.mqtt.port`."""
    text: str
    """What is wrong, and what to write instead."""


class ConfigError(Exception):
    """A configuration that can't be used."""

    def __init__(self, file: Path, problems: Iterable[Problem]) -> None:
        self.file = file
        self.problems = sorted(problems)
        super().__init__("\n".join(self.lines()))

    def lines(self) -> list[str]:
        """Return each problem as `file:line: where: text`."""
        return [
            ": ".join(part for part in (f"{self.file}:{p.line}" if p.line else str(self.file), p.where, p.text) if part)
            for p in self.problems
        ]


class GatewaySettings(BaseModel):
    """`gateway:`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(
        default="sems-gateway", pattern=r"^[A-Za-z0-9_-]{1,64}$", description="names this gateway to brokers"
    )
    data_dir: Path = Field(default=Path("data"), description="journal, tokens, unit numbers; relative to this file")


class LogSettings(BaseModel):
    """`log:`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="least severe to log")
    format: Literal["auto", "console", "json"] = Field(
        default="auto", description="auto: console on a terminal, JSON lines elsewhere"
    )


class Root(BaseSettings):
    """The whole file, but for what only a bridge's own `Settings` can judge."""

    model_config = SettingsConfigDict(extra="forbid", env_prefix=ENV_PREFIX, env_nested_delimiter="__", frozen=True)

    gateway: GatewaySettings = Field(default_factory=GatewaySettings)
    log: LogSettings = Field(default_factory=LogSettings)
    control: ControlSettings = Field(default_factory=ControlSettings)
    bridges: dict[str, dict[str, Any]] = Field(
        repr=False, description="name → settings; `type` says which bridge it is"
    )

    @field_validator("bridges")
    @classmethod
    def _named_well(cls, bridges: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name in bridges:
            if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
                raise ValueError(f"bridge name {name!r}: use letters, digits, - and _ only")
            if name == CLI_BRIDGE:
                raise ValueError(f"the bridge name {CLI_BRIDGE!r} is taken by the gateway itself; choose another")
        if not bridges:
            raise ValueError("there is no bridge; name at least one, see config.example.yaml")
        return bridges


class BridgeConfig(msgspec.Struct, frozen=True):
    """A bridge that is to run."""

    name: str
    bridge: type[Bridge]
    type: str
    settings: BridgeSettings


class Config(msgspec.Struct, frozen=True):
    """A configuration that is in order."""

    file: Path
    root: Root
    bridges: tuple[BridgeConfig, ...]

    @property
    def data_dir(self) -> Path:
        """Where the gateway keeps its own files; absolute."""
        return (self.file.parent / self.root.gateway.data_dir).resolve()

    @classmethod
    def load(cls, file: Path, registry: Registry) -> Self:
        """Read and validate a file. Raises ConfigError."""
        document = _Document.read(file)
        raw = _merged(document.data, EnvSettingsSource(Root)())
        problems: list[Problem] = []
        root: Root | None = None
        try:
            root = Root.model_validate(raw)
        except ValidationError as error:
            problems += [document.problem((), Root, e) for e in error.errors(include_url=False)]
        bridges = list(_bridges(document, file, raw.get("bridges"), registry, problems))
        if root is not None:
            problems += _unknown_names(document, root)
        if problems or root is None:
            raise ConfigError(file, problems)
        return cls(file, root, tuple(bridges))


def _bridges(
    document: "_Document", file: Path, raw: object, registry: Registry, problems: list[Problem]
) -> Iterable[BridgeConfig]:
    if not isinstance(raw, Mapping):
        return
    for name, section in raw.items():
        if not isinstance(section, Mapping):
            continue
        path = ("bridges", str(name))
        type_ = section.get("type")
        if not isinstance(type_, str):
            problems.append(
                Problem(document.line(path), ".".join(path), f"add `type:`, one of {', '.join(registry.types)}")
            )
            continue
        try:
            bridge = registry.load(type_)
        except UnknownBridgeError as error:
            problems.append(Problem(document.line((*path, "type")), ".".join((*path, "type")), str(error)))
            continue
        own = {key: value for key, value in section.items() if key != "type"}
        try:
            yield BridgeConfig(
                str(name), bridge, type_, bridge.Settings.model_validate(own, context={"directory": file.parent})
            )
        except ValidationError as error:
            problems += [document.problem(path, bridge.Settings, e) for e in error.errors(include_url=False)]


def _unknown_names(document: "_Document", root: Root) -> list[Problem]:
    """Find bridge names in `control` that no bridge has: a rule that can never hold is a mistake."""
    known = [*root.bridges, CLI_BRIDGE]
    named: list[tuple[tuple[str | int, ...], str]] = [
        (("control", "order", i), name) for i, name in enumerate(root.control.order)
    ]
    for r, rule in enumerate(root.control.allow):
        named += [(("control", "allow", r, "origins", i), name) for i, name in enumerate(rule.origins)]
    return [
        Problem(document.line(path), _dotted(path), f"there is no bridge {name!r}; {_nearest(name, known)}")
        for path, name in named
        if not set("*?[") & set(name) and name not in known
    ]


class _Document:
    """A YAML file that remembers on which line each key stands."""

    def __init__(self, data: dict[str, Any], lines: dict[tuple[Any, ...], int]) -> None:
        self.data = data
        self._lines = lines

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read a file. Raises ConfigError where it is no YAML, or no mapping."""
        try:
            text = file.read_text("utf-8")
        except FileNotFoundError:
            raise ConfigError(file, [Problem(0, "", "there is no such file; copy config.example.yaml")]) from None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(file, [Problem(0, "", f"can't be read: {error}")]) from None
        try:
            node = yaml.compose(text, yaml.SafeLoader)
            data = yaml.safe_load(text)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            said = getattr(error, "problem", None) or str(error)
            line = mark.line + 1 if mark else 0
            raise ConfigError(file, [Problem(line, "", f"this is no YAML: {said}; {_yaml_hint(said)}")]) from None
        except RecursionError:
            raise ConfigError(file, [Problem(0, "", "this YAML is nested too deeply")]) from None
        lines: dict[tuple[Any, ...], int] = {}
        problems: list[Problem] = []
        if node is not None:
            _note_lines(node, (), lines, problems)
        if problems:
            raise ConfigError(file, problems)
        if data is None:
            data = {}
        if not isinstance(data, dict):
            raise ConfigError(file, [Problem(1, "", "write `key: value` lines, see config.example.yaml")])
        return cls(data, lines)

    def line(self, path: tuple[Any, ...]) -> int:
        """Return the line of a key, or of the nearest one above it in the tree."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 0) if path else 0

    def problem(self, prefix: tuple[Any, ...], model: type[BaseModel], error: ErrorDetails) -> Problem:
        """Put pydantic's word into ours."""
        path = (*prefix, *error["loc"])
        return Problem(self.line(path), _dotted(path), _remedy(model, error))


def _note_lines(
    node: yaml.Node, path: tuple[Any, ...], lines: dict[tuple[Any, ...], int], problems: list[Problem]
) -> None:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = (*path, key.value)
            if below in lines:
                first = lines[below]
                problems.append(
                    Problem(key.start_mark.line + 1, _dotted(below), f"stands on line {first} already; keep one")
                )
            lines[below] = key.start_mark.line + 1
            _note_lines(value, below, lines, problems)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _note_lines(item, (*path, index), lines, problems)


def _remedy(model: type[BaseModel], error: ErrorDetails) -> str:
    """Say what is wrong and what to write instead. The value itself is not shown: it may be a secret."""
    loc = error["loc"]
    message = error["msg"].removeprefix("Value error, ")
    match error["type"]:
        case "extra_forbidden":
            return f"unknown key {str(loc[-1])!r}; {_nearest(str(loc[-1]), _keys_at(model, loc[:-1]))}"
        case "missing":
            return f"{str(loc[-1])!r} is missing here; add it{_described(model, loc)}"
        case "value_error":
            return message
        case _:
            return message[0].lower() + message[1:] + _described(model, loc)


def _field_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> Any:
    """Return the pydantic field a path leads to, or None."""
    field: Any = None
    inner: Any = model
    for key in loc:
        if isinstance(key, int):
            continue
        fields = getattr(inner, "model_fields", {})
        if key not in fields:
            return None
        field = fields[key]
        inner = next(
            (a for a in (field.annotation, *getattr(field.annotation, "__args__", ())) if hasattr(a, "model_fields")),
            None,
        )
    return field


def _keys_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    if not loc:
        return list(model.model_fields)
    field = _field_at(model, loc)
    annotation = getattr(field, "annotation", None)
    inner = next((a for a in (annotation, *getattr(annotation, "__args__", ())) if hasattr(a, "model_fields")), None)
    return list(inner.model_fields) if inner is not None else []


def _described(model: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    description = getattr(_field_at(model, loc), "description", None)
    return f" ({description})" if description else ""


def _nearest(name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, 1)
    return f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"


def _dotted(path: tuple[Any, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def _merged(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, Mapping) else value
    return merged


def _yaml_hint(said: str) -> str:
    if "\\t" in said or "tab" in said:
        return "indent with spaces, not tabs"
    if "mapping values are not allowed" in said:
        return "check the indentation, and put texts with a colon in quotes"
    return "check the indentation and the quotes on this line"
