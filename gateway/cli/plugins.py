"""`sems-gateway plugins`: what is installed, whence, and whether it can be used."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.markup import escape
from rich.table import Table

from gateway.api import registry
from gateway.api.registry import Plugin, PluginError, Registry
from gateway.api.version import API_VERSION
from gateway.bridges.modbus.maps import found as maps
from gateway.bridges.modbus.maps.chosen import FILE
from gateway.bridges.mqtt import formats
from gateway.cli.config import fail_with
from gateway.cli.output import EXIT_FAILED, in_json, out
from gateway.config.document import ConfigError, Document
from gateway.core.text import escaped
from gateway.terminal.console import write

COLUMNS: Final = ("type", "kind", "package", "entry point", "API", "state")


def registries() -> list[Registry[Any]]:
    """Return what finds plug-ins, one for each kind."""
    return [registry.installed(), maps.installed(), formats.installed()]


def list_all() -> list[Plugin]:
    """Return everything that is installed."""
    return [plugin for one in registries() for plugin in one.listed()]


def list_used(file: Path) -> list[Plugin]:
    """Return what a configuration names, also what is not installed. Raises ConfigError where it can't be read."""
    named = sorted(set(_named(Document.read(file).data)))
    plugins = []
    for one in registries():
        there = one.listed()
        for kind, name in named:
            if kind != one.kind.name:
                continue
            plugins += [plugin for plugin in there if plugin.name == name] or [_missing(one, name)]
    return plugins


def _named(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield kind and name of what a configuration names; what is wrong with its shape `check` says."""
    bridges = data.get("bridges")
    for section in bridges.values() if isinstance(bridges, Mapping) else ():
        if not isinstance(section, Mapping):
            continue
        for kind, key in (("bridge", "type"), ("payload", "payload")):
            if isinstance(name := section.get(key), str):
                yield kind, name
        choices = section.get("maps")
        for choice in choices if isinstance(choices, list) else ():
            name = choice.get("map") if isinstance(choice, Mapping) else choice
            if isinstance(name, str) and not name.lower().endswith(FILE):
                yield "map", name


def _missing(one: Registry[Any], name: str) -> Plugin:
    try:
        one.load(name)
    except PluginError as error:
        return Plugin(name, one.kind.name, "", "", "", "", str(error))
    raise AssertionError(name)


def json_of(plugins: Iterable[Plugin]) -> str:
    """Return `{"api_version": …, "plugins": […]}`."""
    return in_json({"api_version": API_VERSION, "plugins": list(plugins)})


def table_of(plugins: Iterable[Plugin]) -> Table:
    """Return a line for each; what a stranger's package says of itself is made harmless."""
    table = Table(*COLUMNS, title=f"API {API_VERSION}", box=None, title_justify="left", pad_edge=False)
    for each in plugins:
        package = f"{each.package} {each.version}".strip()
        cells = (each.name, each.kind, package, each.entry_point, each.api_version, each.error or "ok")
        table.add_row(*(escape(escaped(cell)) for cell in cells))
    return table


def plugins(
    config: Annotated[Path | None, typer.Argument(metavar="[CONFIG]", help="list only what it names")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="for a program")] = False,
) -> None:
    """`sems-gateway plugins`."""
    try:
        listed = list_all() if config is None else list_used(config)
    except ConfigError as error:
        fail_with(error)
    if as_json:
        write(json_of(listed))
    else:
        out.print(table_of(listed))
    if any(plugin.error for plugin in listed):
        raise typer.Exit(EXIT_FAILED)
