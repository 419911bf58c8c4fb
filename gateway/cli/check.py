"""`sems-gateway check`."""

from rich.markup import escape

from gateway.cli.config import ConfigFile, load
from gateway.cli.output import err, out
from gateway.http import descriptors
from gateway.run.listeners import connections_of


def check(config: ConfigFile) -> None:
    """`sems-gateway check`."""
    loaded = load(config)
    bridges = ", ".join(f"{bridge.name} ({bridge.type})" for bridge in loaded.bridges)
    control = "control enabled" if loaded.root.control.enabled else "read-only"
    out.print(f"{config} is in order: {bridges}; {control}", markup=False)
    if short := descriptors.shortage(connections_of(loaded)):
        err.print(f"[yellow]warning:[/] {escape(short)}")
    for warning in (*loaded.warnings(), *loaded.conflicts()):
        err.print(f"[yellow]warning:[/] {escape(warning)}")
