"""`sems-gateway interfaces`: what SEMS's interfaces are for, and how far each line can be relied on."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway.cli.config import load as load_config
from gateway.cli.output import EXIT_CONFIG, fail, in_json, out
from gateway.config.document import nearest
from gateway.core.points import POINTS
from gateway.run.settings import Config
from gateway.sems.catalogue import Catalogue, Interface, RequestField, ResponseField, Standing, Use, load
from gateway.terminal.console import write

FORMS: Final = ("plant", "device", "remote control", "data logger")
"""Those that GoodWe names (SEMS.md)."""
STYLE: Final = {Standing.ASSUMED: "yellow", Standing.CONFIG: "cyan"}
ROUND: Final = (Use.LIVE, Use.ALARMS, Use.DETAIL)
"""Uses that are called by rounds of polling."""


class Format(StrEnum):
    """How they may be printed."""

    TABLE = "table"
    JSON = "json"
    MARKDOWN = "markdown"


class Api(StrEnum):
    """Which catalogue."""

    OPEN_API = "open_api"
    DEVELOPER = "developer"
    REALTIME = "realtime"
    BATCH = "batch"


class Line(msgspec.Struct, frozen=True):
    """A line of the list of interfaces. The fields are its columns."""

    interface: str
    form: str
    method: str
    path: str
    use: str
    of: str
    """Types of device it is for; in brackets, those whose values come along."""
    called: str
    standing: str


class FieldLine(msgspec.Struct, frozen=True):
    """A line of one interface's fields. The fields are its columns."""

    way: str
    """`sent` or `answered`."""
    field: str
    meaning: str
    """The point or attribute it gives, or the argument or constant it is filled with."""
    unit: str
    scale: str
    notes: str
    standing: str


def forms(catalogue: Catalogue) -> list[str]:
    """Return the forms of a catalogue's interfaces."""
    return list(dict.fromkeys(interface.form for interface in catalogue.interfaces))


def chosen(catalogue: Catalogue, form: str | None) -> list[Interface]:
    """Return the interfaces of a form, or all, form by form; the one by which one enters is last."""
    order = [*FORMS, *(name for name in forms(catalogue) if name not in FORMS)]
    return sorted(
        (interface for interface in catalogue.interfaces if form in (None, interface.form)),
        key=lambda interface: order.index(interface.form),
    )


def lines(interfaces: Iterable[Interface]) -> list[Line]:
    """Return a line for each interface."""
    return [
        Line(
            interface=interface.name,
            form=interface.form,
            method=interface.method,
            path=interface.path + (f" → {interface.answers}" if interface.answers else ""),
            use=", ".join(interface.setpoints) or interface.use.replace("_", " "),
            of=", ".join(interface.of) + (f" ({', '.join(interface.covers)})" if interface.covers else ""),
            called=_called(interface),
            standing=interface.standing,
        )
        for interface in interfaces
    ]


def field_lines(interface: Interface) -> list[FieldLine]:
    """Return a line for each field of an interface, those sent first."""
    return [*map(_sent, interface.request), *map(_answered, interface.response)]


def counts(interfaces: Sequence[Interface]) -> str:
    """Return how many interfaces and fields there are of each standing, in words."""
    entering = sum(interface.use is Use.LOGIN for interface in interfaces)
    calls = len(interfaces) - entering
    number = f"{calls} interface{'' if calls == 1 else 's'}{' and the one to enter' if entering else ''}"
    fields = [row.standing for i in interfaces for row in i.request]
    fields += [row.standing for i in interfaces for row in i.response]
    return f"{number}: {_tally(i.standing for i in interfaces)}. {len(fields)} fields: {_tally(fields)}."


def render(format_: Format, catalogue: Catalogue, interfaces: Sequence[Interface]) -> str:
    """Return the list of interfaces as JSON or Markdown."""
    if format_ is Format.MARKDOWN:
        return _markdown(map(_columns, lines(interfaces)), Line) + f"\n{counts(interfaces)}\n"
    whole = {"api": catalogue.api, "title": catalogue.title, "base": catalogue.base, "codes": catalogue.codes,
             "interfaces": interfaces}  # fmt: skip
    return in_json(whole)


def render_fields(format_: Format, interface: Interface) -> str:
    """Return one interface with its fields as JSON or Markdown."""
    if format_ is Format.MARKDOWN:
        return _markdown(map(_columns, field_lines(interface)), FieldLine) + f"\n{counts([interface])}\n"
    return in_json(interface)


def show(console: Console, catalogue: Catalogue, interfaces: Sequence[Interface]) -> None:
    """Print the list of interfaces as a table."""
    below = f", below {catalogue.base}" if catalogue.base else ""
    console.print(_table(f"{catalogue.title}{below}", lines(interfaces), Line))
    console.print(counts(interfaces), _legend(), sep="\n")


def show_fields(console: Console, catalogue: Catalogue, interface: Interface) -> None:
    """Print one interface with its fields as a table."""
    title = f"{interface.name}: {interface.method} {catalogue.url_path(interface)}, {interface.standing}"
    console.print(_table(title, field_lines(interface), FieldLine))
    console.print(counts([interface]), _legend(), sep="\n")


def _legend() -> str:
    return (
        "[dim]seen: in public client code or by its users; assumed: our own choice, not GoodWe's word; config: yours[/]"
    )


def _called(interface: Interface) -> str:
    parts = []
    if interface.use in ROUND:
        parts.append("each round" if interface.rounds == 1 else f"every {interface.rounds} rounds")
    if interface.span:
        parts.append(f"by {interface.step}, a {interface.span} a call")
    if interface.batch > 1:
        parts.append(f"{interface.batch} at once")
    return ", ".join(parts)


def _sent(row: RequestField) -> FieldLine:
    notes = [f"as {row.type.replace('_', ' ')}"] if row.type != "text" else []
    notes += [f"for {row.only} only"] if row.only else []
    notes += [_options(row.options)] if row.options else []
    meaning = json.dumps(row.const) if row.const is not None else row.arg
    unit = POINTS[row.arg].unit if row.arg in POINTS else ""
    return FieldLine("sent", row.field, meaning, unit, "", "; ".join(notes), row.standing)


def _answered(row: ResponseField) -> FieldLine:
    notes = [f"as {row.type.replace('_', ' ')}"] if row.type not in {"text", "number"} else []
    notes += [f"not there: {', '.join(f'{number:g}' for number in row.absent)}"] if row.absent else []
    notes += [f"in {row.shape or 'a bare list'}"] if row.shape is not None else []
    notes += [_options(row.options)] if row.options else []
    unit = POINTS[row.point].unit if row.point else ""
    if unit and row.standing is Standing.SEEN and row.means is Standing.ASSUMED:
        notes.append("unit and sign assumed")
    scale = f"{row.scale:g}" if row.scale != 1 else ""
    return FieldLine("answered", row.field, row.point or row.attribute, unit, scale, "; ".join(notes), row.standing)


def _options(options: Mapping[str, object]) -> str:
    return ", ".join(f"{key} = {str(value).lower() if isinstance(value, bool) else value}"
                     for key, value in options.items())  # fmt: skip


def _tally(standings: Iterable[Standing]) -> str:
    found = Counter(standings)
    return ", ".join(f"{found[standing]} {standing}" for standing in Standing if found[standing])


def _columns(line: msgspec.Struct) -> list[str]:
    return [str(cell) for cell in msgspec.structs.astuple(line)]


def _table(title: str, rows: Sequence[Line | FieldLine], kind: type[msgspec.Struct]) -> Table:
    table = Table(*kind.__struct_fields__, title=escape(title), title_justify="left", box=None, pad_edge=False)
    for row in rows:
        *cells, standing = _columns(row)
        style = STYLE.get(Standing(standing), "")
        table.add_row(*(escape(cell) for cell in cells), f"[{style}]{standing}[/]" if style else standing)
    return table


def _markdown(rows: Iterable[Sequence[str]], kind: type[msgspec.Struct]) -> str:
    header = kind.__struct_fields__
    table = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in table)


def interfaces(
    config: Annotated[Path | None, typer.Argument(metavar="[CONFIG]", help="show the overrides in force there")] = None,
    form: Annotated[str | None, typer.Option(help="plant, device, remote control or data logger")] = None,
    name: Annotated[str | None, typer.Option(help="show the fields of this interface")] = None,
    api: Annotated[Api | None, typer.Option(help="which API; default: open_api, or those of CONFIG")] = None,
    format_: Annotated[Format, typer.Option("--format", "-f", help="how to print them")] = Format.TABLE,
) -> None:
    """`sems-gateway interfaces`."""
    catalogues = [load(api or Api.OPEN_API)] if config is None else _catalogues(load_config(config), api)
    if not catalogues:
        fail(f"{config} has no bridge that speaks to SEMS{f' over {api}' if api else ''}", EXIT_CONFIG)
    for catalogue in catalogues:
        if form is not None and form not in forms(catalogue):
            fail(f"there is no form {form!r}; {nearest(form, forms(catalogue))}", EXIT_CONFIG)
        listed = chosen(catalogue, form)
        named = next((interface for interface in listed if interface.name == name), None)
        if name is not None and named is None:
            fail(f"there is no interface {name!r}; {nearest(name, [i.name for i in listed])}", EXIT_CONFIG)
        if format_ is Format.TABLE and named is None:
            show(out, catalogue, listed)
        elif format_ is Format.TABLE and named is not None:
            show_fields(out, catalogue, named)
        elif named is None:
            write(render(format_, catalogue, listed))
        else:
            write(render_fields(format_, named))


def _catalogues(config: Config, api: str | None) -> list[Catalogue]:
    """Return those of the bridges that have one, with the overrides in them."""
    found = [getattr(bridge.settings, "catalogue", None) for bridge in config.bridges]
    return [one for one in found if isinstance(one, Catalogue) and api in (None, one.api)]
