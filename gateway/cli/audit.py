"""`sems-gateway audit`."""

import csv
import textwrap
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console
from rich.markup import escape

from gateway.cli.config import DataDir, MaybeConfig, target_of
from gateway.cli.output import EXIT_CONFIG, EXIT_FAILED, err, fail, out
from gateway.core.clock import SystemClock
from gateway.core.model import CommandState
from gateway.core.text import escaped
from gateway.journal.audit import AuditAction, AuditRow
from gateway.journal.chain import AuditReader
from gateway.journal.file import JOURNAL, JournalError
from gateway.terminal.console import write
from gateway.terminal.show import STATE_STYLE

COLUMNS: Final = (
    "time", "serial", "setpoint", "value", "state", "verified", "correction",
    "reason", "origin", "from", "detail", "id", "parent", "seq",
)  # fmt: skip
ACTION_STYLE: Final = {AuditAction.HALTED: "yellow", AuditAction.DRIFTED: "yellow", AuditAction.RECOVERED: "red"}
_STYLES: Final[Mapping[str, str]] = {
    **{state.value: style for state, style in STATE_STYLE.items()},
    **{action.value: style for action, style in ACTION_STYLE.items()},
}
BREAKS_SHOWN: Final = 10
DAY: Final = timedelta(days=1)
_ALL: Final = "`--verify` proves all of it, `--since` shows more."
_STATE_WIDTH: Final = len("succeeded (unverified)")
_INDENT: Final = 9
_BELOW: Final = "  "
"""Before what a fleet has its members do."""
_AGO: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_FORMULA: Final = tuple("=+-@\t\r")


class _Output:
    """Where a CSV file goes."""

    def write(self, text: str) -> None:
        write(text)


class Format(StrEnum):
    """How to print it."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


class Wanted(msgspec.Struct, frozen=True):
    """Which rows to print."""

    since: datetime | None = None
    until: datetime | None = None
    device: str = "*"
    """A serial number or a pattern."""
    origin: str = "*"
    """A bridge, `bridge/role`, or a pattern of the whole origin."""
    command: str = ""
    """The id of a command: its rows, and those of its commands to members."""

    def has(self, row: AuditRow) -> bool:
        """Return whether to print a row. One whose time can't be read is printed: it is not what was written."""
        try:
            moment = row.moment
        except ValueError:
            return True
        if (self.since and moment < self.since) or (self.until and moment >= self.until):
            return False
        if self.command and self.command not in (row.id, row.parent):
            return False
        name = row.origin.partition(":")[0]
        origins = row.origin, name, name.partition("/")[0]
        return fnmatchcase(row.serial, self.device) and any(fnmatchcase(one, self.origin) for one in origins)


def moment(text: str, now: datetime) -> datetime:
    """Return the time that a person means: RFC 3339, a date, both in UTC unless they say otherwise, or `24h` ago.

    Raises ValueError that says what to write.
    """
    number, unit = text[:-1], text[-1:]
    try:
        if unit in _AGO and number.isascii() and number.isdigit():
            return now - timedelta(**{_AGO[unit]: int(number)})
        time = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        ways = "a date like 2026-06-21, a time like 2026-06-21T12:00Z, or 90s, 30m, 24h, 7d ago"
        raise ValueError(f"{text!r} is no time; write {ways}") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def show(console: Console, rows: Iterable[AuditRow], format_: Format) -> None:
    """Print rows: as a table on the console, the other formats to standard output."""
    if format_ is Format.CSV:
        writer = csv.writer(_Output(), lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            writer.writerow([_cell(cell) for cell in _fields(row).values()])
    elif format_ is Format.JSON:
        between = "[\n"
        for row in rows:
            write(between + msgspec.json.encode(_fields(row)).decode())
            between = ",\n"
        write("[]\n" if between == "[\n" else "\n]\n")
    else:
        for line in _table(rows, console.width):
            console.print(line)


def verdict(reader: AuditReader) -> str:
    """Return in one line whether the chain holds, how many rows it has, and its head to note elsewhere."""
    rows = f"{reader.rows:,} rows" + (f" after the first {reader.cut.seq:,}, which were cut" if reader.cut.seq else "")
    if not reader.breaks and reader.start:
        return f"What was looked at is whole: {rows}, those since row {reader.start:,}; head {reader.head}. {_ALL}"
    if not reader.breaks:
        return f"The audit is whole: {rows}; head {reader.head}"
    places = "1 place" if len(reader.breaks) == 1 else f"{len(reader.breaks):,} places"
    return f"The audit is broken in {places}: {rows}; head {reader.head}"


def breaks(reader: AuditReader) -> list[str]:
    """Return what does not fit, a line each."""
    shown = [str(one) for one in reader.breaks[:BREAKS_SHOWN]]
    more = len(reader.breaks) - len(shown)
    return [*shown, f"and {more:,} more"] if more else shown


def _fields(row: AuditRow) -> dict[str, object]:
    origin, _, address = row.origin.partition(":")
    try:
        value: object = row.plain_value
    except (msgspec.MsgspecError, UnicodeError):
        value = row.value
    fields = (
        row.time, row.serial, row.setpoint, value, row.state, bool(row.verified), bool(row.correction),
        row.reason, origin, address, row.detail, row.id, row.parent, row.seq,
    )  # fmt: skip
    return {
        name: _clean(field) if isinstance(field, str) else field for name, field in zip(COLUMNS, fields, strict=True)
    }


def _cell(field: object) -> object:
    """Return a field for a CSV file: no spreadsheet takes it for a formula, whoever wrote it."""
    if isinstance(field, bool):
        return "true" if field else "false"
    if not isinstance(field, str):
        return field
    return escaped(f"'{field}" if field.startswith(_FORMULA) else field, None)


def _clean(text: str) -> str:
    """Return text that is Unicode, whatever the file holds."""
    return text.encode("utf-8", "replace").decode()


def _table(rows: Iterable[AuditRow], width: int) -> Iterator[str]:
    """Two lines and more a row: what happened, and below it who asked, why, and the command's id.

    What a fleet has its members do is indented: it lies between the steps of the fleet's own command.
    """
    day = ""
    for row in rows:
        fields = {name: escaped(str(field)) for name, field in _fields(row).items()}
        date, _, time = fields["time"].partition("T")
        if date != day:
            day = date
            yield f"[bold]{escape(date)}[/] (UTC)"
        what = f"{fields['setpoint']} = {fields['value'].removesuffix('.0')}" if row.setpoint else ""
        about = "  ".join(filter(None, (fields["serial"], what)))
        below = _BELOW if row.parent else ""
        yield f"{escape(time[:8])} {below}{_state(row)}" + (f"{_blanks(row)}{escape(about)}" if about else "")
        who = " ".join(filter(None, (fields["origin"], fields["from"])))
        id_ = "" if row.state == AuditAction.CUT else fields["id"]
        why = " · ".join(filter(None, (who, fields["reason"], fields["detail"], id_)))
        indent = " " * _INDENT + below
        for line in textwrap.wrap(why, max(20, width - len(indent))):
            yield f"{indent}[dim]{escape(line)}[/]"


def _state(row: AuditRow) -> str:
    style = _STYLES.get(row.state, "red" if row.state in list(CommandState) else "cyan")
    return f"[{style}]{escape(_word(row))}[/]"


def _blanks(row: AuditRow) -> str:
    """Return what stands between a state and the next column."""
    return " " * max(2, _STATE_WIDTH + 2 - len(_word(row)))


def _word(row: AuditRow) -> str:
    if row.correction:
        return f"corrected: {escaped(row.state)}"
    unverified = row.state == CommandState.SUCCEEDED and not row.verified
    return f"{escaped(row.state)}{' (unverified)' if unverified else ''}"


def audit(
    config: MaybeConfig = None,
    data_dir: DataDir = None,
    since: Annotated[str, typer.Option(help="date or RFC 3339 time, UTC; or 90s, 30m, 24h, 7d ago; default: 24h")] = "",
    until: Annotated[str, typer.Option(help="the same; up to before it")] = "",
    device: Annotated[str, typer.Option(help="serial number or pattern")] = "*",
    origin: Annotated[str, typer.Option(help="bridge, bridge/role, or a pattern of both with the address")] = "*",
    command: Annotated[str, typer.Option(metavar="ID", help="only this command, and a fleet's to members")] = "",
    format_: Annotated[Format, typer.Option("--format", "-f", help="how to print it")] = Format.TABLE,
    verify: Annotated[bool, typer.Option("--verify", help="read all of it; print only whether it is whole")] = False,
    noted: Annotated[str, typer.Option(metavar="HEAD", help="a head printed earlier, which must be in it")] = "",
) -> None:
    """`sems-gateway audit`."""
    target = target_of(config, data_dir)
    try:
        start, end = (moment(text, SystemClock().now()) if text else None for text in (since, until))
    except ValueError as error:
        fail(str(error), EXIT_CONFIG)
    if not verify and not noted and start is None and not command:
        start = (end or SystemClock().now()) - DAY
    wanted = Wanted(start, end, device, origin, command)
    try:
        with AuditReader(target.data_dir / JOURNAL) as reader:
            rows = (
                row for row in reader.walk(noted, None if verify or noted else start) if not verify and wanted.has(row)
            )
            if verify:
                deque(rows, 0)
            else:
                show(out, rows, format_)
    except JournalError as error:
        fail(str(error))
    (out if verify else err).print(verdict(reader), markup=False)
    for line in breaks(reader):
        err.print(line, style="red", markup=False)
    if reader.breaks:
        raise typer.Exit(EXIT_FAILED)
