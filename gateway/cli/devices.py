"""`sems-gateway devices`."""

import typer
from rich.markup import escape

from gateway.cli.config import DataDir, MaybeConfig, target_of
from gateway.cli.known import known
from gateway.cli.output import EXIT_FAILED, err, out
from gateway.terminal import show


def devices(config: MaybeConfig = None, data_dir: DataDir = None) -> None:
    """`sems-gateway devices`."""
    inventory = known(target_of(config, data_dir))
    out.print(show.device_table(inventory.states, width=out.width, written=inventory.written))
    for bridge in inventory.bridges:
        if not bridge.up:
            err.print(f"[red]{escape(bridge.name)} is down:[/] {escape(bridge.detail)}")
        elif bridge.detail:
            err.print(f"[yellow]{escape(bridge.name)}:[/] {escape(bridge.detail)}")
    if not inventory.states:
        raise typer.Exit(EXIT_FAILED)
