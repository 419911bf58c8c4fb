"""A YAML file of the user's that remembers its lines, and what is wrong with it in words that help."""

from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Self, get_args, get_origin

import msgspec
import yaml
from pydantic import BaseModel
from pydantic_core import ErrorDetails

from gateway.core.text import escaped

MAX_LISTED: Final = 20
"""Of more names than this, only the nearest are listed."""
NEAREST: Final = 5
MOST_VALUES: Final = 200_000
"""Of a file, with its aliases followed."""


class Problem(msgspec.Struct, frozen=True, order=True):
    """One thing that is wrong with a configuration."""

    line: int
    """Counted from 1; 0 where no line is to blame, e.g. a key that is missing altogether."""
    where: str
    """Path of keys, e.g. `bridges.mqtt.port`."""
    text: str
    """What is wrong, and what to write instead."""
    variable: str = ""
    """The variable of the environment that has set the value, where one has."""

    def said(self, file: Path) -> str:
        """Return it in one line, whatever a key or a value has in it."""
        place = self.variable or (f"{file}:{self.line}" if self.line else str(file))
        return escaped(": ".join(part for part in (place, self.where, self.text) if part))


class ConfigError(Exception):
    """A configuration that can't be used."""

    def __init__(self, file: Path, problems: Iterable[Problem]) -> None:
        self.file = file
        self.problems = sorted(problems)
        super().__init__("\n".join(self.lines()))

    def lines(self) -> list[str]:
        """Return each problem as `file:line: where: text`, or `VARIABLE: where: text`; one line each."""
        return [problem.said(self.file) for problem in self.problems]


def text_of(file: Path, instead: str) -> str:
    """Return what is in a file. Raises ConfigError, which says what to do `instead` where there is none."""
    try:
        return file.read_text("utf-8")
    except FileNotFoundError:
        raise ConfigError(file, [Problem(0, "", f"there is no such file; {instead}")]) from None
    except OSError as error:
        why = f"can't be read ({error.strerror}); name another file, or have it be readable to this user"
        raise ConfigError(file, [Problem(0, "", why)]) from None
    except UnicodeDecodeError:
        raise ConfigError(file, [Problem(0, "", "can't be read: it is not UTF-8; save it as that")]) from None


class Document:
    """A YAML file that remembers on which line each key stands."""

    def __init__(self, data: dict[str, Any], lines: dict[tuple[Any, ...], int], text: str = "") -> None:
        self.data = data
        self._lines = lines
        self._text = text.splitlines()

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read a file. Raises ConfigError where it is no YAML, or no mapping."""
        text = text_of(file, "copy config.example.yaml")
        lines: dict[tuple[Any, ...], int] = {}
        problems: list[Problem] = []
        try:
            # In Python alone, and twice, the example takes 33 ms; in C and once, 1 ms.
            loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
            node = loader.get_single_node()
            if node is not None:
                _note_lines(node, (), lines, problems)
            data = {} if node is None else loader.construct_document(node)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            said = getattr(error, "problem", None) or str(error)
            line = mark.line + 1 if mark else 0
            tab = mark is not None and "\t" in "".join(text.splitlines()[mark.line : line])
            raise ConfigError(
                file, [Problem(line, "", f"this is no YAML: {said}; {_yaml_hint(said, tab=tab)}")]
            ) from None
        except RecursionError:
            raise ConfigError(file, [Problem(0, "", "this YAML is nested too deeply")]) from None
        if problems:
            raise ConfigError(file, problems)
        if data is None:
            data = {}
        if not isinstance(data, dict):
            raise ConfigError(file, [Problem(1, "", "write `key: value` lines, see config.example.yaml")])
        return cls(data, lines, text)

    def line(self, path: tuple[Any, ...]) -> int:
        """Return the line of a key, or of the nearest one above it in the tree."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 0) if path else 0

    def has(self, where: str) -> bool:
        """Return whether a key stands in the file, written as in `Problem.where`."""
        return any(dotted(path) == where for path in self._lines)

    def source(self, path: tuple[Any, ...]) -> str:
        """Return the text of the line on which a key stands; "" for one that stands nowhere."""
        line = self._lines.get(path, 0)
        return self._text[line - 1] if 0 < line <= len(self._text) else ""

    def problem(self, prefix: tuple[Any, ...], model: type[BaseModel], error: ErrorDetails) -> Problem:
        """Put pydantic's word into ours."""
        path = (*prefix, *error["loc"])
        return Problem(self.line(path), dotted(path), _remedy(model, error))


def _note_lines(
    node: yaml.Node, path: tuple[Any, ...], lines: dict[tuple[Any, ...], int], problems: list[Problem]
) -> None:
    lines.setdefault(path, node.start_mark.line + 1)
    if len(lines) > MOST_VALUES:  # a few lines of aliases of aliases come to billions
        raise yaml.MarkedYAMLError(
            problem=f"with its aliases (*name) followed it has more than {MOST_VALUES:,} values",
            problem_mark=node.start_mark,
        )
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = (*path, key.value)
            if below in lines:
                first = lines[below]
                problems.append(
                    Problem(key.start_mark.line + 1, dotted(below), f"stands on line {first} already; keep one")
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
            known = list(getattr(_container(_at(model, loc[:-1])[1]), "model_fields", ()))
            return f"unknown key {str(loc[-1])!r}; {nearest(str(loc[-1]), known)}"
        case "missing":
            return f"{str(loc[-1])!r} is missing here; add it{_described(model, loc)}"
        case "value_error":
            return message
        case _:
            begin = message[:1].lower() if message[1:2].islower() else message[:1]
            return begin + message[1:] + _described(model, loc)


def _at(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[Any, Any]:
    """Return the pydantic field a path leads to or through, and the type found there; None for what is unknown."""
    field: Any = None
    inner: Any = model
    for key in loc:
        inner = _container(inner)
        if hasattr(inner, "model_fields"):
            if key not in inner.model_fields:
                return None, None
            field = inner.model_fields[key]
            inner = field.annotation
        elif inner is not None:
            inner = get_args(inner)[-1]
    return field, inner


def _container(annotation: Any) -> Any:
    """Return the model, mapping or list in an annotation that may be optional; None where there is none."""
    if hasattr(annotation, "model_fields"):
        return annotation
    origin = get_origin(annotation)
    if isinstance(origin, type) and issubclass(origin, (Mapping, list)):
        return annotation
    if isinstance(origin, type) and issubclass(origin, tuple):
        return list[get_args(annotation)[0]]  # type: ignore[misc]
    return next((found for part in get_args(annotation) if (found := _container(part)) is not None), None)


def _described(model: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    description = getattr(_at(model, loc)[0], "description", None)
    return f" ({description})" if description else ""


def nearest(name: str, known: Collection[str]) -> str:
    """Return the hint that goes with a name nobody knows."""
    near = get_close_matches(name, known, 1)
    if near:
        return f"did you mean {near[0]!r}?"
    if len(known) > MAX_LISTED:
        return f"the nearest: {', '.join(get_close_matches(name, known, NEAREST, 0))}"
    return f"known here: {', '.join(known)}"


def dotted(path: tuple[Any, ...]) -> str:
    """Return a path as people write it, e.g. `control.allow[0].devices`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def _yaml_hint(said: str, *, tab: bool) -> str:
    if tab and "cannot start any token" in said:
        return "indent with spaces, not tabs"
    if "mapping values are not allowed" in said:
        return "check the indentation, and put texts with a colon in quotes"
    if "aliases" in said:
        return "write out what you need of it"
    return "check the indentation and the quotes on this line"
