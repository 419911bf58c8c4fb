"""The settings tree: a YAML file, overridden by `SEMS_GATEWAY_…` from the environment.

Every error says the file, the line, what is wrong there and what to write instead.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Final, Self

import msgspec
from pydantic import Field, ValidationError, field_validator

from gateway.api.bridge import Bridge, BridgeSettings
from gateway.api.registry import PluginError, Registry
from gateway.commands.policy.policy import ControlSettings
from gateway.config import private_files
from gateway.config.document import ConfigError, Document, Problem, dotted, nearest
from gateway.config.local_file import DIRECTORY
from gateway.config.secret import noted_files
from gateway.config.settings import Settings
from gateway.core.controller import Controller
from gateway.core.model import RESERVED, Origin
from gateway.core.text import escaped
from gateway.journal.retention import AuditSettings
from gateway.run import doubts, steered
from gateway.run.environment import ENV_PREFIX, from_environment
from gateway.run.own_settings import CLI_BRIDGE, GatewaySettings, LogSettings
from gateway.steering.fleet import settings as fleet
from gateway.steering.limits import settings as limit

__all__ = ["CLI_BRIDGE", "Config", "ConfigError", "LogSettings", "Problem", "Root"]

WILD: Final = frozenset("*?[")
"""What makes a pattern of a name."""
STEERERS: Final[Mapping[str, tuple[str, type[BridgeSettings], str]]] = {
    "fleets": (fleet.PREFIX, fleet.FleetSettings, "gateway.steering.fleet.fleet:Fleet"),
    "limits": (limit.PREFIX, limit.LimitSettings, "gateway.steering.limits.limit:GridLimit"),
}
"""Section of the configuration → what serial numbers of its devices begin with, settings, and where the class is."""


class Root(Settings):
    """The whole file, but for what only a bridge's own `Settings` can judge."""

    gateway: GatewaySettings = Field(default_factory=GatewaySettings)
    log: LogSettings = Field(default_factory=LogSettings)
    control: ControlSettings = Field(default_factory=ControlSettings)
    audit: AuditSettings = Field(default_factory=AuditSettings)
    fleets: dict[str, dict[str, Any]] = Field(
        default={}, description="name → settings of what steers many devices as one: see docs/fleet.md"
    )
    limits: dict[str, dict[str, Any]] = Field(
        default={}, description="name → settings of a limit that is set from outside: see docs/fleet.md"
    )
    bridges: dict[str, dict[str, Any]] = Field(
        repr=False, description="name → settings; `type` says which bridge it is"
    )

    @field_validator("bridges")
    @classmethod
    def _are_some(cls, bridges: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        if not bridges:
            raise ValueError("there is no bridge; name at least one, see config.example.yaml")
        return bridges


class BridgeConfig(msgspec.Struct, frozen=True):
    """A bridge that is to run."""

    name: str
    load: Callable[[], type[Bridge]]
    """Returns its class, for which most is loaded that it needs: a check of its settings does without. May block."""
    type: str
    settings: BridgeSettings


class Config(msgspec.Struct, frozen=True):
    """A configuration that is in order."""

    file: Path
    root: Root
    bridges: tuple[BridgeConfig, ...]
    rule_lines: tuple[int, ...] = ()
    """The line of each rule of `control.allow`; 0 for one that does not stand in the file."""

    secret_files: tuple[Path, ...] = ()
    """From which secrets were read."""
    doubts: tuple[Problem, ...] = ()
    """What is hardly meant."""

    def warnings(self) -> list[str]:
        """Return what is hardly meant, and which of its files others can read, each with what to do about it."""
        readable = private_files.warnings(self.file, self.secret_files, [bridge.settings for bridge in self.bridges])
        return [*(doubt.said(self.file) for doubt in self.doubts), *map(escaped, readable)]

    def conflicts(self) -> Iterator[str]:
        """Yield where bridges and what `data_dir` keeps of them do not fit, and what to do about it. Blocks."""
        for bridge in self.bridges:
            try:
                found = list(bridge.settings.conflicts(self.data_dir, bridge.name))
            except OSError as error:
                found = [str(error)]
            yield from (escaped(f"bridge {bridge.name}: {one}") for one in found)

    @property
    def data_dir(self) -> Path:
        """Where the gateway keeps its own files; absolute."""
        return (self.file.parent / self.root.gateway.data_dir).resolve()

    @classmethod
    def load(cls, file: Path, registry: Registry[type[Bridge]]) -> Self:
        """Read and validate a file. Raises ConfigError."""
        document = Document.read(file)
        set_by = doubts.variables(ENV_PREFIX)
        # A section of which all is commented out is no section.
        there = {
            key: value for key, value in document.data.items() if value is not None or key not in Root.model_fields
        }
        raw = _merged(there, _from_environment(file, set_by))
        problems = doubts.unknown_variables(set_by, Root.model_fields)
        problems += doubts.unreplaced(document, raw)
        root: Root | None = None
        steering: steered.Steering | None = None
        try:
            root = Root.model_validate(raw, context={DIRECTORY: file.parent})
        except ValidationError as error:
            problems += [document.problem((), Root, e) for e in error.errors(include_url=False)]
        with noted_files() as secret_files:
            bridges = list(_bridges(document, file, raw.get("bridges"), registry, problems))
            bridges += _steerers(document, file, raw, problems)
        if root is not None:
            problems += _unknown_names(document, root, bridges)
            problems += _no_controllers(document, root, bridges)
            steering = _steering(root, bridges)
            problems += steering.wrong(document, list(root.fleets))
            problems += doubts.double_claims(document, root.gateway.id, [(b.name, b.settings) for b in bridges])
        if problems or root is None or steering is None:
            raise ConfigError(file, [doubts.blamed(problem, document, set_by) for problem in problems])
        lines = (document.line(("control", "allow", number)) for number in range(len(root.control.allow)))
        found = [*_closed_control(document, root), *doubts.doubtful(document, [(b.name, b.settings) for b in bridges])]
        if root.fleets or root.limits:
            data_dir = (file.parent / root.gateway.data_dir).resolve()
            found += steering.doubts(document, steered.seen_in(data_dir))
        told = tuple(doubts.blamed(doubt, document, set_by) for doubt in found)
        return cls(file, root, tuple(bridges), tuple(lines), tuple(secret_files), told)

    def unknown_origin(self, origin: str) -> str:
        """Return what is wrong with `<bridge>[/<role>][:<detail>]` as one who could command; "" where nothing is."""
        return _unknown(Origin(origin).who, _known(self.root, self.bridges), with_role=True)


def _from_environment(file: Path, set_by: Mapping[doubts.Path, str]) -> Mapping[str, Any]:
    """Return what variables set. Raises ConfigError."""
    try:
        return from_environment(Root)
    except ValueError as error:
        names = [name for path, name in set_by.items() if len(path) == 1 and path[0] in Root.model_fields]
        text = "a whole section is written in JSON; or set one value of it, as in SEMS_GATEWAY_LOG__LEVEL"
        problems = [Problem(0, "", text, variable=name) for name in names] or [Problem(0, "", str(error))]
        raise ConfigError(file, problems) from None


def _closed_control(document: Document, root: Root) -> list[Problem]:
    if not root.control.enabled or root.control.allow:
        return []
    line = document.line(("control", "enabled"))
    return [Problem(line, "control.enabled", "no rule lets anything be written; add one under control.allow")]


def _bridges(
    document: "Document", file: Path, raw: object, registry: Registry[type[Bridge]], problems: list[Problem]
) -> Iterable[BridgeConfig]:
    if not isinstance(raw, Mapping):
        return
    for name, section in raw.items():
        if not isinstance(section, Mapping):
            continue
        path = ("bridges", str(name))
        if wrong := _ill_named(str(name)):
            problems.append(Problem(document.line(path), ".".join(path), wrong))
        type_ = section.get("type")
        if not isinstance(type_, str):
            others = [other for other in raw if other != name]
            named = "" if document.has(".".join(path)) else f"the file has no such bridge; {nearest(name, others)} Or "
            text = f"{named}add `type:`, one of {', '.join(registry.types)}"
            problems.append(Problem(document.line(path), ".".join(path), text))
            continue
        try:
            model = registry.settings(type_)
        except PluginError as error:
            problems.append(Problem(document.line((*path, "type")), ".".join((*path, "type")), str(error)))
            continue
        own = {key: value for key, value in section.items() if key != "type"}
        try:
            settings = model.model_validate(own, context={DIRECTORY: file.parent})
        except ValidationError as error:
            problems += [document.problem(path, model, e) for e in error.errors(include_url=False)]
        else:
            yield BridgeConfig(str(name), partial(registry.load, type_), type_, settings)


def _steerers(
    document: Document, file: Path, raw: Mapping[str, Any], problems: list[Problem]
) -> Iterable[BridgeConfig]:
    """Return what acts by itself: one for each entry of a section, run as bridges are."""
    for section, (prefix, model, where) in STEERERS.items():
        entries = raw.get(section)
        for name, settings in entries.items() if isinstance(entries, Mapping) else ():
            path = (section, str(name))
            if wrong := _ill_named(str(name)):
                problems.append(Problem(document.line(path), ".".join(path), wrong.replace("bridge name", "name")))
            try:
                own = model.model_validate(settings or {}, context={DIRECTORY: file.parent})
                yield BridgeConfig(f"{prefix}{name}", partial(resolve_name, where), prefix.rstrip(":"), own)
            except ValidationError as error:
                problems += [document.problem(path, model, e) for e in error.errors(include_url=False)]


def _steering(root: Root, bridges: Iterable[BridgeConfig]) -> steered.Steering:
    """Return the fleets and limits that are in order."""
    fleets = {b.name.removeprefix(fleet.PREFIX): s for b in bridges if isinstance(s := b.settings, fleet.FleetSettings)}
    limits = {b.name.removeprefix(limit.PREFIX): s for b in bridges if isinstance(s := b.settings, limit.LimitSettings)}
    return steered.Steering(fleets, limits, root.control)


def _ill_named(name: str) -> str:
    """Return what is wrong with the name of a bridge; "" for nothing."""
    if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
        return f"bridge name {name!r}: use letters, digits, - and _ only"
    if name.lower() in RESERVED:
        # Under it somebody else commands, or reports an alarm; and a file system may not tell it from theirs.
        return f"the bridge name {name!r} is taken by the gateway itself; choose another, e.g. {name + '-2'!r}"
    return ""


def _unknown_names(document: "Document", root: Root, bridges: Iterable[BridgeConfig]) -> list[Problem]:
    """Find bridges and roles in `control` that nobody has: a rule that can never hold is a mistake."""
    control = root.control
    named: list[tuple[tuple[str | int, ...], str]] = [
        (("control", "order", i), name) for i, name in enumerate(control.order)
    ]
    for r, rule in enumerate(control.allow):
        named += [(("control", "allow", r, "origins", i), name) for i, name in enumerate(rule.origins)]
    named += [(("control", "rates", name), name) for name in control.rates]
    named += [(("control", "resume", i), name) for i, name in enumerate(control.resume)]
    known = _known(root, bridges)
    return [
        Problem(document.line(path), dotted(path), text)
        for path, name in named
        if (text := _unknown(name, known, with_role=path[1] != "order"))
    ]


def _known(root: Root, bridges: Iterable[BridgeConfig]) -> dict[str, frozenset[str] | None]:
    """Return the roles of every bridge; None where they are not known.

    So it is where the far side names them, and where the bridge's own settings are wrong, of which the user is told.
    """
    roles = {bridge.name: bridge.settings.roles for bridge in bridges}
    steering = {prefix.rstrip(":"): frozenset(getattr(root, section)) for section, (prefix, *_) in STEERERS.items()}
    return {name: roles.get(name) for name in root.bridges} | {CLI_BRIDGE: frozenset()} | steering


def _unknown(name: str, known: Mapping[str, frozenset[str] | None], *, with_role: bool) -> str:
    """Return what is wrong with a name of a bridge, or of one and its role; "" where nothing is, or it is a pattern.

    `known` has each bridge's roles, None where these are not known.
    """
    bridge, slash, role = name.partition("/") if with_role else (name, "", "")
    if WILD & set(bridge):
        return ""
    if bridge not in known:
        return f"there is no bridge {bridge!r}; {nearest(bridge, known)}"
    roles = known[bridge]
    if not slash or roles is None or WILD & set(role) or role in roles:
        return ""
    if not roles:
        return f"nobody has a role at the bridge {bridge!r}; write {bridge!r} alone"
    return f"the bridge {bridge!r} knows no role {role!r}; {nearest(role, sorted(roles))}"


def _no_controllers(document: Document, root: Root, bridges: Iterable[BridgeConfig]) -> list[Problem]:
    """Find bridges in `control.order` that carry nothing out, as one that only reads."""
    ordered = set(root.control.order)
    reads_only = {b.name: b.type for b in bridges if b.name in ordered and not issubclass(b.load(), Controller)}
    return [
        Problem(
            document.line(("control", "order", i)),
            dotted(("control", "order", i)),
            f"bridge {name!r} ({reads_only[name]}) carries no commands out; take it out, or name one that does",
        )
        for i, name in enumerate(root.control.order)
        if name in reads_only
    ]


def _merged(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, Mapping) else value
    return merged
