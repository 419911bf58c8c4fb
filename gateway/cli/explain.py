"""`sems-gateway explain`: what would become of a command, for a terminal or as JSON."""

import getpass
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway.bridges.local.protocol import Explain
from gateway.cli import control
from gateway.cli.config import DataDir, fail_with, loaded_quietly, split, target_of
from gateway.cli.control import Explanation
from gateway.cli.loop import log_errors_only, run_on_loop
from gateway.cli.output import EXIT_CONFIG, EXIT_FAILED, err, fail, in_json, out
from gateway.cli.target import NoConfigError
from gateway.commands.policy.rules import Rule
from gateway.config.document import ConfigError, dotted
from gateway.core import shapes
from gateway.run.own_settings import CLI_BRIDGE
from gateway.terminal.console import write


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


def place(explanation: Explanation, allow: Sequence[Rule] | None, lines: Sequence[int]) -> Place | None:
    """Return where the rule stands that decides; None where no rule does.

    `allow` is the configuration's, None where that can't be read: then what the gateway runs with is taken for it.
    """
    verdict = explanation.verdict
    if verdict.rule is None:
        return None
    index = verdict.rule
    same = allow is None or (
        index < len(allow) and allow[index].model_dump_json(exclude_none=True) == verdict.rule_text
    )
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
    whole = shapes.verdict(verdict) | {
        "rule": where,
        "unmet": [{"rule": unmet.rule + 1, "key": unmet.key, "name": unmet.name} for unmet in verdict.unmet],
        "running": explanation.running,
    }
    return in_json(whole)


def show(out: Console, explanation: Explanation, where: Place | None, file: str) -> None:
    """Print a line a check, then what comes of them and which rule decides."""
    verdict = explanation.verdict
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for check in verdict.checks:
        word = "[green]ok[/]" if check.reason is None else f"[red]{check.reason}[/]"
        table.add_row(check.name, word, escape(check.text))
    out.print(table)
    if where is not None:
        at = f"{file}:{where.line}" if where.line else f"{file} or the environment"
        old = "" if where.current else "; the file was changed since the gateway was started, so it says otherwise"
        fields = msgspec.json.encode(where.rule).decode()
        out.print(f"rule {where.number}, {where.key} at {at}{old}: {fields}", markup=False)
    for unmet in verdict.unmet:
        out.print(f"rule {unmet.rule + 1} names {unmet.name!r} among its {unmet.key}, which is not known", markup=False)
    if verdict.foretold is not None:
        shares = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for head, justify in (("member", "left"), ("W", "right"), ("how", "left")):
            shares.add_column(head, justify=justify)  # type: ignore[arg-type]
        for each in verdict.foretold.members:
            shares.add_row(escape(each.serial), f"{each.power:.0f}", escape(each.detail))
        out.print(shares)
        out.print(verdict.foretold.text, markup=False)
    refusal = verdict.refusal
    if refusal is None:
        out.print(f"[green]permitted[/], and sent as {escape(msgspec.json.encode(verdict.value).decode())}")
    else:
        out.print(f"[red]refused[/]: {refusal.reason}")


def explain(
    words: Annotated[
        list[str],
        typer.Argument(metavar="[CONFIG] SN SETPOINT VALUE", help="SN: the device's serial number", show_default=False),
    ],
    data_dir: DataDir = None,
    as_: Annotated[
        str | None, typer.Option("--as", metavar="ORIGIN", help="bridge or bridge/role; default: cli, this terminal")
    ] = None,
    revert_after: Annotated[float | None, typer.Option(help="dead-man's timer, seconds")] = None,
    revert_value: Annotated[str | None, typer.Option(help="what to go back to then")] = None,
    format_: Annotated[Format, typer.Option("--format", "-f", help="how to print it")] = Format.TABLE,
) -> None:
    """`sems-gateway explain`."""
    config, (serial, setpoint, value) = split(words, 3, data_dir, "explain CONFIG SN SETPOINT VALUE")
    target = target_of(config, data_dir)
    who = as_ or f"{CLI_BRIDGE}:{getpass.getuser()}"
    # A running gateway knows its rules; the file is for where they stand in it, and for a name that is misspelt.
    loaded = loaded_quietly(target)
    if loaded is not None and (wrong := loaded.unknown_origin(who)):
        fail(f"--as {who}: {wrong}", EXIT_CONFIG)
    log_errors_only()
    try:
        found = run_on_loop(control.explain(target, Explain(serial, setpoint, value, who, revert_after, revert_value)))
    except (control.ControlError, NoConfigError) as error:
        fail(str(error))
    except ConfigError as error:
        fail_with(error)
    if not found.running:
        err.print("No gateway runs with this configuration; asked SEMS, and nothing counts as commanded of late.")
    where = place(found, None, ()) if loaded is None else place(found, loaded.root.control.allow, loaded.rule_lines)
    if format_ is Format.JSON:
        write(render(found, where))
    else:
        show(out, found, where, str(target.file or target.data_dir))
    if found.verdict.refusal is not None:
        raise typer.Exit(EXIT_FAILED)
