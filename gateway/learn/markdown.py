"""The report for people: Markdown, and a table for the terminal."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from rich.table import Table

from gateway.learn.report import Evidence, InterfaceReport, Line, Report, State

ORDER: Final = tuple(State)
MAX_SHOWN: Final = 4


def markdown(report: Report) -> str:
    """Return the whole report."""
    date = f"{report.date:%Y-%m-%d %H:%M} UTC" if report.date is not None else "an unknown time"
    out = [f"# What SEMS answers: {report.api}, {date}", ""]
    out += [_sentence(report), ""]
    if report.date_format:
        out += [
            f"Dates are written like `{report.date_format}`: say `date_format: {report.date_format}` in the bridge.",
            "",
        ]
    out += [f"- {note}" for note in report.notes] + ([""] if report.notes else [])
    out += ["| interface | what became of it | " + " | ".join(ORDER) + " | sure overrides |"]
    out += ["| --- | --- |" + " --: |" * (len(ORDER) + 1)]
    for one in report.interfaces:
        counts, sure = _counts(report, one)
        said = f"{one.called}{f': {_cell(one.detail)}' if one.detail else ''}"
        out.append(f"| {one.name} | {said} | " + " | ".join(str(counts[state]) for state in ORDER) + f" | {sure} |")
    for one in report.interfaces:
        lines = report.of(one.name)
        if lines or one.lists is not None:
            out += ["", f"## {one.name}", ""]
            if one.lists is not None:
                certainty = "sure" if one.lists_sure else "not sure"
                where, why = _cell(", ".join(one.lists)), "; ".join(each.text for each in one.evidence)
                out += [f"Entries lie at `{where}` ({certainty}): {why}.", ""]
            out += ["| line | gives | state | here | evidence |", "| --- | --- | --- | --- | --- |"]
            out += [_row(line) for line in lines]
    return "\n".join(out) + "\n"


def _sentence(report: Report) -> str:
    counts = Counter(line.state for line in report.lines)
    sure = sum(line.sure and line.override is not None for line in report.lines)
    said = ", ".join(f"{counts[state]} {state}" for state in ORDER if counts[state])
    return f"{len(report.lines)} lines: {said}. {sure} overrides are sure."


def _counts(report: Report, one: InterfaceReport) -> tuple[Counter[State], int]:
    lines = report.of(one.name)
    sure = sum(line.sure and line.override is not None for line in lines)
    return Counter(line.state for line in lines), sure + bool(one.lists is not None and one.lists_sure)


def _row(line: Line) -> str:
    here = ""
    if line.override is not None:
        here = ", ".join(f"{key}: {value}" for key, value in line.override.items()) + (
            "" if line.sure else " (not sure)"
        )
    evidence = [*_shown(line.evidence), *(f"but {text}" for text in line.against[:MAX_SHOWN])]
    for candidate in line.candidates:
        shown = "; ".join(_shown(candidate.evidence)) or f"names alike by {candidate.likeness:.0%}"
        evidence.append(f"perhaps {candidate.override.get('point', candidate.field)} ({shown})")
    name = "" if line.row is None else line.row.field
    where = line.field if line.row is None else here
    return f"| {_cell(name)} | {line.gives} | {line.state} | {_cell(where)} | {_cell('; '.join(evidence))} |"


def _shown(evidence: Sequence[Evidence]) -> Iterator[str]:
    kinds: dict[str, list[str]] = {}
    for one in evidence:
        kinds.setdefault(one.kind, []).append(one.text)
    for kind, texts in kinds.items():
        yield f"{kind}: {texts[0]}" + (f" (and {len(texts) - 1} more)" if len(texts) > 1 else "")


def _cell(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text).replace("|", "\\|").replace("`", "'")


def table(report: Report) -> Table:
    """Return what a terminal shows: a line for each interface."""
    made = Table(box=None, pad_edge=False)
    made.add_column("interface")
    made.add_column("")
    for state in ORDER:
        made.add_column(state, justify="right")
    made.add_column("sure overrides", justify="right")
    for one in report.interfaces:
        counts, sure = _counts(report, one)
        said = f"{one.called}{f': {one.detail}' if one.detail else ''}"
        cells = [str(counts[state] or "") for state in ORDER]
        shown = "".join(char if char.isprintable() else "?" for char in said).replace("[", "\\[")[:80]
        made.add_row(one.name, shown, *cells, str(sure or ""))
    return made
