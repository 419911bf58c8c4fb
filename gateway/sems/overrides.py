"""What a user's own GoodWe document says otherwise: lines of a catalogue, replaced in the configuration.

In a bridge's `Settings`, `overrides: Overrides = Field(default=NO_OVERRIDES, description=OVERRIDES_HELP)`, and in a
validator of that field, or of the model, `return checked(overrides, api)`: `check` then names the line of each mistake.
The bridge calls `overridden(load(api), settings.overrides)` in place of `load(api)`.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from pydantic import BeforeValidator, Field, PrivateAttr, ValidationError, ValidationInfo
from pydantic_core import InitErrorDetails, PydanticCustomError

from gateway.config.document import ConfigError, Document, dotted, nearest
from gateway.config.local_file import beside
from gateway.config.settings import Settings
from gateway.core.points import POINTS, BadValueError, Type
from gateway.sems.catalogue import (
    Catalogue,
    Code,
    Interface,
    RequestField,
    ResponseField,
    Scalar,
    SemsError,
    Standing,
    Use,
    load,
    text_keys,
)

Loc = tuple[str | int, ...]
RowT = TypeVar("RowT", RequestField, ResponseField)

OVERRIDES_HELP: Final = (
    "lines of the interface catalogue that your GoodWe document has otherwise, or a YAML file of them"
)
NEEDED: Final = (Use.LOGIN, Use.PLANTS)
"""Nothing works without these."""
CONFIG: Final = Standing.CONFIG
_TIMES: Final = ("local_time", "unix_seconds", "unix_milliseconds")


class _Part(Settings):
    """A part of the overrides. What is not set stays as the catalogue has it."""

    def changes(self, *but: str) -> dict[str, Any]:
        """Return what is set."""
        return {name: getattr(self, name) for name in self.model_fields_set if name not in but}


class RequestOverride(_Part):
    """A field that is sent."""

    field: str = Field(default="", min_length=1, description="its name at SEMS; a path where it lies deeper")
    type: Literal["text", "integer", "number", "list", "local_time"] = Field(
        default="text", description="as SEMS wants"
    )
    arg: str = Field(default="", min_length=1, description="what the gateway fills in")
    const: Scalar | None = Field(default=None, description="what is always sent instead")
    options: dict[str, str | int | None] = Field(default={}, description="the gateway's value -> SEMS's")
    format: str = Field(default="", min_length=1, description="of a local_time, e.g. %Y-%m-%d")
    none: Scalar | None = Field(default=None, description="what says `none`: no limit, no setting")


class FieldOverride(_Part):
    """A field that is answered."""

    field: str = Field(default="", min_length=1, description="its name at SEMS; a path where it lies deeper")
    type: Literal["text", "number", "local_time", "unix_seconds", "unix_milliseconds"] = Field(
        default="number", description="as SEMS sends it"
    )
    point: str = Field(
        default="", description="the point it gives; `sems-gateway interfaces` shows where they are used"
    )
    attribute: str = Field(default="", description="the attribute it gives")
    scale: float = Field(default=1, description="SEMS's number times this is in the point's unit")
    options: dict[str, str | bool | None] = Field(default={}, description="SEMS's value -> the gateway's; null removes")
    absent: list[float] = Field(default=[], description='numbers that mean "not there"')
    none: float | None = Field(default=None, description="the number that means `none`: no limit, no setting")


class InterfaceOverride(_Part):
    """An interface."""

    method: Literal["GET", "POST"] = Field(default="POST", description="HTTP method")
    path: str = Field(
        default="", pattern=r"^[^\s?#]+$", description="below `base`; from the host on with a slash first"
    )
    answers: str = Field(default="", pattern=r"^[A-Za-z0-9._{}-]+$", description="Kafka: the topic of its results")
    lists: list[str] = Field(default=[], description='where in `data` the entries are, e.g. [list, ""]')
    rounds: int = Field(default=1, ge=1, description="it is called every that many rounds of polling")
    batch: int = Field(default=1, ge=1, description="how many serial numbers one call takes")
    span: Literal["day", "month", "year"] = Field(default="day", description="how much time a call of a series covers")
    step: Literal["minutes", "day", "month"] = Field(default="minutes", description="how far its entries are apart")
    of: list[str] = Field(default=[], description="types of device it is for")
    covers: list[str] = Field(default=[], description="types of other devices whose values it brings along")
    request: dict[str, RequestOverride | None] = Field(
        default={}, description="argument or field -> change; null removes"
    )
    fields: dict[str, FieldOverride | None] = Field(default={}, description="field -> change; null removes")


class TokenOverride(_Part):
    """How a call shows that one has entered."""

    header: str = Field(default="", pattern=r"^[A-Za-z0-9-]+$", description="name of the header")
    prefix: str = Field(default="", description="what stands before the token in it")
    lifetime: float = Field(default=7200, gt=0, description="seconds, where the login does not say")


class EnvelopeOverride(_Part):
    """What the parts of an answer are called."""

    code: str = Field(default="code", min_length=1, description="the field with the code")
    data: str = Field(default="data", min_length=1, description="the field with what was asked for")


def _code(raw: Any) -> Any:
    return str(raw) if isinstance(raw, int) else raw


class CatalogueOverrides(_Part):
    """`overrides:`."""

    base: str = Field(default="/", pattern=r"^/([^\s?#]*/)?$", description="path that all others are below, /…/")
    success: list[Annotated[str, BeforeValidator(_code, json_schema_input_type=str | int)]] = Field(
        default=[], min_length=1, description="envelope codes that mean success"
    )
    codes: dict[str, SemsError | None] = Field(default={}, description="other envelope codes -> what they mean")
    envelope: EnvelopeOverride = Field(default=EnvelopeOverride(), description="what the parts of an answer are called")
    token: TokenOverride = Field(default=TokenOverride(), description="the header a call carries its token in")
    request_id: str = Field(default="", pattern=r"^[A-Za-z0-9-]*$", description="header for a unique id of each call")
    interfaces: dict[str, InterfaceOverride | None] = Field(
        default={}, description="name -> change; null: never called"
    )

    _document: Document | None = PrivateAttr(default=None)
    _file: Path | None = PrivateAttr(default=None)

    def error(self, problems: Iterable[tuple[Loc, str]]) -> ValidationError:
        """Return the error that names the place of each problem: the line of the YAML file, wherever that is."""
        if self._document is not None:
            lined = [(self._document.line(loc), dotted(loc), text) for loc, text in problems]
            return _invalid([((), f"{self._file}:{line}: {where}: {text}") for line, where, text in sorted(lined)])
        return _invalid(problems)


def _invalid(problems: Iterable[tuple[Loc, str]]) -> ValidationError:
    return ValidationError.from_exception_data(
        "overrides",
        [
            InitErrorDetails(type=PydanticCustomError("value_error", "{text}", {"text": text}), loc=loc, input=None)
            for loc, text in problems
        ],
    )


def _read(raw: Any, info: ValidationInfo) -> Any:
    """Read the file, where one is named."""
    if isinstance(raw, Mapping):
        return text_keys(dict(raw))
    if not isinstance(raw, str):
        return raw
    path = beside(Path(raw), info)
    if not path.is_file():
        raise ValueError(f"there is no file {path}; write one, or the overrides themselves here")
    try:
        document = Document.read(path)
        overrides = CatalogueOverrides.model_validate(text_keys(document.data))
    except ConfigError as error:
        raise _invalid(((), line) for line in error.lines()) from None
    except ValidationError as error:
        problems = sorted(document.problem((), CatalogueOverrides, e) for e in error.errors(include_url=False))
        raise _invalid(((), line) for line in ConfigError(path, problems).lines()) from None
    overrides._document, overrides._file = document, path  # noqa: SLF001 - pydantic has no other way in
    return overrides


Overrides = Annotated[CatalogueOverrides, BeforeValidator(_read, json_schema_input_type=str | CatalogueOverrides)]
"""Takes a mapping, or the name of a YAML file of it, relative to the configuration."""
NO_OVERRIDES: Final = CatalogueOverrides()


def overridden(catalogue: Catalogue, overrides: CatalogueOverrides) -> Catalogue:
    """Return the catalogue with the user's lines in it, of standing `config`.

    Raises pydantic's ValidationError, which names the place of each override that fits nothing.
    """
    merge = _Merge(catalogue)
    merged = merge.catalogue(overrides)
    if merge.problems:
        raise overrides.error(merge.problems)
    return merged


def checked(overrides: CatalogueOverrides, api: str) -> CatalogueOverrides:
    """Return the overrides when they fit an API. Raises as `overridden` does."""
    overridden(load(api), overrides)
    return overrides


class _Merge:
    """Overrides into a catalogue. Goes on after a problem, so that all are found at once."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self.problems: list[tuple[Loc, str]] = []

    def catalogue(self, overrides: CatalogueOverrides) -> Catalogue:
        """Return what it comes to, but for what has problems."""
        changes = overrides.changes("codes", "token", "envelope", "interfaces", "success")
        success = tuple(overrides.success) or self._catalogue.success
        return msgspec.structs.replace(
            self._catalogue,
            **changes,
            success=success,
            codes=self._codes(overrides.codes, success),
            envelope=msgspec.structs.replace(self._catalogue.envelope, **overrides.envelope.changes()),
            token=msgspec.structs.replace(self._catalogue.token, **overrides.token.changes()),
            interfaces=self._interfaces(overrides.interfaces),
        )

    def _codes(self, overrides: Mapping[str, SemsError | None], success: tuple[str, ...]) -> tuple[Code, ...]:
        codes: dict[str, tuple[Code, ...]] = {}
        for row in self._catalogue.codes:
            codes[row.code] = (*codes.get(row.code, ()), row)
        for code, error in overrides.items():
            loc = ("codes", code)
            if error is not None:
                if code in success:
                    self._wrong(loc, f"{code} means success; change `success` first")
                codes[code] = (Code(code, error, CONFIG),)
            elif codes.pop(code, None) is None:
                self._unknown(loc, "code", codes)
        return tuple(row for rows in codes.values() for row in rows)

    def _interfaces(self, overrides: Mapping[str, InterfaceOverride | None]) -> tuple[Interface, ...]:
        interfaces = {interface.name: interface for interface in self._catalogue.interfaces}
        for name, change in overrides.items():
            loc = ("interfaces", name)
            if name not in interfaces:
                self._unknown(loc, "interface", interfaces)
            elif change is not None:
                interfaces[name] = self._interface(loc, interfaces[name], change)
            elif interfaces[name].use in NEEDED:
                self._wrong(loc, f"nothing works without {name}; change it instead")
            else:
                del interfaces[name]
        return tuple(interfaces.values())

    def _interface(self, loc: Loc, interface: Interface, change: InterfaceOverride) -> Interface:
        changes = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in change.changes("request", "fields").items()
        }
        known = [*dict.fromkeys(type_ for i in self._catalogue.interfaces for type_ in i.of)]
        for key in ("of", "covers"):
            for position, type_ in enumerate(changes.get(key, ())):
                if type_ not in known:
                    self._unknown((*loc, key, position), "type of device", known, type_)
        return msgspec.structs.replace(
            interface,
            **changes,
            request=self._request((*loc, "request"), interface, change.request),
            response=self._response((*loc, "fields"), interface, change),
            standing=CONFIG if changes else interface.standing,
        )

    def _request(
        self, loc: Loc, interface: Interface, overrides: Mapping[str, RequestOverride | None]
    ) -> tuple[RequestField, ...]:
        fields = {row.field for row in interface.request}

        def meant(row: RequestField, key: str) -> bool:
            return row.field == key if key in fields else row.arg == key

        def change(at: Loc, row: RequestField, override: RequestOverride) -> RequestField:
            changes = override.changes("options")
            if "arg" in changes:
                self._known((*at, "arg"), "argument", self._args(interface), changes["arg"])
                changes["const"] = None
            elif changes.get("const") is not None:
                changes |= {"arg": "", "options": {}}
            row = msgspec.structs.replace(row, **changes, standing=CONFIG)
            if override.options:
                row = msgspec.structs.replace(row, options=_merged(row.options, override.options))
                for ours in override.options:
                    self._check_value((*at, "options", ours), row.arg, ours)
            return row

        def new(key: str, override: RequestOverride) -> RequestField | None:
            wanted = override.arg or override.const is not None
            return RequestField(field=key, standing=CONFIG, type="text") if wanted else None

        names = [*fields, *interface.args]
        return self._rows(loc, interface.request, overrides, names, "`arg` or `const`", meant, change, new)

    def _response(self, loc: Loc, interface: Interface, override: InterfaceOverride) -> tuple[ResponseField, ...]:
        def meant(row: ResponseField, key: str) -> bool:
            return row.field == key

        def change(at: Loc, row: ResponseField, override: FieldOverride) -> ResponseField:
            return self._field(at, row, override)

        def new(key: str, override: FieldOverride) -> ResponseField | None:
            if not override.point and not override.attribute:
                return None
            point = POINTS.get(override.point)
            number = point is None or point.type in (Type.FLOAT, Type.INTEGER)
            return ResponseField(field=key, standing=CONFIG, type="number" if number else "text")

        names = [row.field for row in interface.response]
        rows = self._rows(loc, interface.response, override.fields, names, "`point`", meant, change, new)
        if "lists" in override.model_fields_set:
            # A shape that is no more tells nothing of its fields.
            rows = tuple(
                row if row.shape in override.lists else msgspec.structs.replace(row, shape=None) for row in rows
            )
        return rows

    def _field(self, loc: Loc, row: ResponseField, override: FieldOverride) -> ResponseField:
        changes = override.changes("options", "absent")
        if "absent" in override.model_fields_set:
            changes["absent"] = tuple(override.absent)
        if override.options:
            changes["options"] = _merged(row.options, override.options)
        if override.point and override.attribute:
            self._wrong(loc, "say either `point` or `attribute`, not both")
        elif override.point:
            self._known((*loc, "point"), "point", POINTS, override.point)
            changes["attribute"] = ""
        elif override.attribute:
            self._known((*loc, "attribute"), "attribute", self._attributes(), override.attribute)
            changes["point"] = ""
        if not math.isfinite(override.scale) or override.scale == 0:
            self._wrong((*loc, "scale"), "a scale is a number other than 0")
        row = msgspec.structs.replace(row, **changes, standing=CONFIG, means=CONFIG)
        if row.type in _TIMES and row.point:
            self._wrong((*loc, "type"), f"a point is no time; say `attribute: time`, not `point: {row.point}`")
        point = POINTS.get(row.point)
        if point is not None and point.type is Type.ENUM and not row.options:
            self._wrong(loc, f"add `options`: which of SEMS's values is which of {', '.join(point.options)}")
        for theirs, ours in override.options.items():
            if ours is not None:
                self._check_value((*loc, "options", theirs), row.point or row.attribute, ours)
        return row

    def _rows(
        self,
        loc: Loc,
        rows: tuple[RowT, ...],
        overrides: Mapping[str, Any],
        names: Collection[str],
        needed: str,
        meant: Callable[[RowT, str], bool],
        change: Callable[[Loc, RowT, Any], RowT],
        new: Callable[[str, Any], RowT | None],
    ) -> tuple[RowT, ...]:
        """Return the rows with the overrides in them. Those that are new come first, for the first value counts."""
        changed = list(rows)
        added: list[RowT] = []
        for key, override in overrides.items():
            at = (*loc, key)
            if any(meant(row, key) for row in rows):
                if override is None:
                    changed = [row for row in changed if not meant(row, key)]
                else:
                    changed = [change(at, row, override) if meant(row, key) else row for row in changed]
            elif override is not None and (row := new(key, override)) is not None:
                added.append(change(at, row, override))
            else:
                self._unknown(at, "field", names, otherwise=f"; to add a field say its {needed}")
        return tuple(added + changed)

    def _args(self, interface: Interface) -> list[str]:
        """Return the arguments that calls for the same use are given."""
        return sorted({arg for i in self._catalogue.using(interface.use) for arg in i.args})

    def _attributes(self) -> list[str]:
        mentioned = {row.attribute for i in self._catalogue.interfaces for row in i.response if row.attribute}
        return sorted(mentioned | {"date_format", "time_span"})

    def _check_value(self, loc: Loc, name: str, value: str | bool) -> None:
        """Refuse a word that the point, or the attribute, does not have."""
        if name in POINTS:
            try:
                POINTS[name].parse(value)
            except BadValueError as error:
                self._wrong(loc, str(error))
            return
        words = [
            word
            for interface in self._catalogue.interfaces
            for row in interface.response
            if row.attribute == name
            for word in row.options.values()
        ]
        if words and value not in words:
            self._unknown(loc, name, [*dict.fromkeys(map(str, words))], str(value))

    def _known(self, loc: Loc, what: str, known: Collection[str], name: str) -> None:
        if name not in known:
            self._unknown(loc, what, known, name)

    def _unknown(
        self, loc: Loc, what: str, known: Collection[str], name: str | None = None, otherwise: str = ""
    ) -> None:
        name = str(loc[-1]) if name is None else name
        deeper = [one for one in known if one.endswith(f".{name}")]
        hint = f"did you mean {deeper[0]!r}?" if deeper else nearest(name, known)
        self._wrong(loc, f"there is no {what} {name!r}; {hint}{otherwise}")

    def _wrong(self, loc: Loc, text: str) -> None:
        self.problems.append((loc, text))


def _merged(options: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in {**options, **changes}.items() if value is not None}
