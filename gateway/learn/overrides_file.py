"""The overrides as a YAML file: what is sure stands active, the rest as comments, each with its evidence."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from gateway.learn.report import Evidence, Line, Report
from gateway.sems.catalogue import Json

MAX_SHOWN: Final = 3
"""Pieces of evidence shown of each kind-less line; the report has all."""
WIDTH: Final = 118


def render(report: Report) -> str:
    """Return the file. It is what `overrides` takes, whatever is active in it."""
    date = f"{report.date:%Y-%m-%d}" if report.date is not None else "an unknown day"
    out = [
        f"# Written by `sems-gateway learn` from what SEMS answered on {date} ({report.api}).",
        "# A line that is active is sure, by two kinds of evidence or more. One that is a comment is not: take the",
        "# first # out if you know better. In a bridge: `overrides: THIS-FILE`. See docs/sems.md.",
    ]
    if report.date_format:
        out.append(f"# Dates are written like {report.date_format}: `date_format: {report.date_format}` in the bridge.")
    for key, value in report.top.items():
        out += [f"# {report.top_evidence.get(key, '')}", f"{key}: {_flow(value)}"]
    blocks = [block for one in report.interfaces if (block := list(_interface(report, one.name)))]
    active = any(not line.startswith("#") for block in blocks for line in block)
    out.append("interfaces:" if active else "# interfaces:")
    for block in blocks:
        out += block
    if not active:
        out.append("interfaces: {}")
    return "\n".join(out) + "\n"


def _interface(report: Report, name: str) -> Iterator[str]:
    """Yield the lines of an interface."""
    one = next(each for each in report.interfaces if each.name == name)
    fields = [line for line in report.of(name) if line.override is not None or line.candidates]
    if one.lists is None and not fields:
        return
    sure = [line for line in fields if line.sure and line.override is not None]
    active = bool(sure) or (one.lists is not None and one.lists_sure)
    yield f"{'' if active else '# '}  {_key(name)}:"
    if one.lists is not None:
        yield from _comment("    ", one.evidence)
        yield f"{'' if one.lists_sure else '# '}    lists: {_flow(list(one.lists))}"
    if fields:
        yield f"{'' if sure else '# '}    fields:"
    for line in fields:
        yield from _field(line)


def _field(line: Line) -> Iterator[str]:
    if line.override is not None:
        yield from _comment("      ", line.evidence, line.against)
        yield f"{'' if line.sure else '# '}      {_key(line.key)}: {_flow(line.override)}"
        return
    gives = f" ({line.gives})" if line.gives else ""
    said = "is not there" if line.row is not None else "is a field that the catalogue does not know"
    yield f"      # {_plain(line.key)}{gives} {said}; it may be:"
    for candidate in line.candidates:
        yield from _comment("      ", candidate.evidence, like=candidate.likeness)
        yield f"#       {_key(line.key)}: {_flow(candidate.override)}"


def _comment(indent: str, evidence: Sequence[Evidence], against: Sequence[str] = (), like: float = 0) -> Iterator[str]:
    """Yield the evidence as comments, a kind at a time."""
    shown: dict[str, list[str]] = {}
    for one in evidence:
        shown.setdefault(one.kind, []).append(one.text)
    parts = [texts[0] + (f" (and {len(texts) - 1} more)" if len(texts) > 1 else "") for texts in shown.values()]
    if like and like < 1:
        parts.insert(0, f"names are alike by {like:.0%}")
    for part in parts:
        yield f"{indent}# {_plain(part)}"
    for text in against[:MAX_SHOWN]:
        yield f"{indent}# but: {_plain(text)}"


def _key(text: str) -> str:
    return _flow(text) if not text.replace("_", "").replace(".", "").isalnum() or text[:1].isdigit() else _word(text)


def _word(text: str) -> str:
    """Return a word that YAML takes for text, in quotes where it would not."""
    return text if text.isascii() and text.lower() not in _RESERVED else _flow(text)


_RESERVED: Final = frozenset(["y", "n", "yes", "no", "on", "off", "true", "false", "null", "none", "~"])


def _flow(value: Json | Mapping[str, Json]) -> str:
    """Return a value on one line: JSON is YAML, but for the characters that YAML does not print."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(str(key))}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    if isinstance(value, str) and value.isascii() and value.replace("_", "").replace(".", "").isalpha():
        return _word(value)
    if isinstance(value, str):
        return '"' + "".join(_escaped(char) for char in value) + '"'
    return msgspec.json.encode(value).decode()


def _escaped(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    return char if char.isprintable() and char.isascii() else f"\\U{ord(char):08x}"


def _plain(text: str) -> str:
    """Return a text for a comment: one line, nothing that a terminal or YAML would take for more."""
    return "".join(char if char.isprintable() else "?" for char in text)[:WIDTH]
