"""What would become of a command, for a terminal or as JSON."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway.control import Explanation
from gateway.core.document import dotted
from gateway.core.policy.rules import Rule


class Format(StrEnum):
    """How it may be printed."""

    TABLE = "table"
    JSON = "json"


class Place(msgspec.Struct, frozen=True):
    """Which rule decides, and where it stands."""

    number: int
    """Counted from 1."""
    line: int
    """In the configuration; 0 where it does not stand there."""
    key: str
    """E.g. `control.allow[0]`."""
    rule: dict[str, Any]
    current: bool
    """The file has the same rule there; else it was changed since the gateway was started."""


def place(explanation: Explanation, allow: Sequence[Rule], lines: Sequence[int]) -> Place | None:
    """Return where the rule stands that decides; None where no rule does."""
    verdict = explanation.verdict
    if verdict.rule is None:
        return None
    index = verdict.rule
    same = index < len(allow) and allow[index].model_dump_json(exclude_none=True) == verdict.rule_text
    return Place(
        number=index + 1,
        line=lines[index] if index < len(lines) else 0,
        key=dotted(("control", "allow", index)),
        rule=msgspec.json.decode(verdict.rule_text),
        current=same,
    )


def render(explanation: Explanation, where: Place | None) -> str:
    """Return it as JSON."""
    verdict = explanation.verdict
    refusal = verdict.refusal
    whole = {
        "permitted": refusal is None,
        "reason": refusal.reason if refusal else None,
        "detail": refusal.detail if refusal else "",
        "value": verdict.value,
        "rule": where,
        "checks": [
            {"check": c.name, "ok": c.reason is None, "reason": c.reason, "detail": c.text} for c in verdict.checks
        ],
        "unmet": [{"rule": unmet.rule + 1, "key": unmet.key, "name": unmet.name} for unmet in verdict.unmet],
        "running": explanation.running,
    }
    return msgspec.json.format(msgspec.json.encode(whole), indent=2).decode() + "\n"


def show(out: Console, explanation: Explanation, where: Place | None, file: str) -> None:
    """Print a line a check, then what comes of them and which rule decides."""
    verdict = explanation.verdict
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for check in verdict.checks:
        word = "[green]ok[/]" if check.reason is None else f"[red]{check.reason}[/]"
        table.add_row(check.name, word, escape(check.text))
    out.print(table)
    if where is not None:
        at = f"{file}:{where.line}" if where.line else "the environment"
        old = "" if where.current else "; the file was changed since the gateway was started, so it says otherwise"
        fields = msgspec.json.encode(where.rule).decode()
        out.print(f"rule {where.number}, {where.key} at {at}{old}: {fields}", markup=False)
    for unmet in verdict.unmet:
        out.print(f"rule {unmet.rule + 1} names {unmet.name!r} among its {unmet.key}, which is not known", markup=False)
    refusal = verdict.refusal
    if refusal is None:
        out.print(f"[green]permitted[/], and sent as {escape(msgspec.json.encode(verdict.value).decode())}")
    else:
        out.print(f"[red]refused[/]: {refusal.reason}")
