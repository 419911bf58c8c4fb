"""The command line: `sems-gateway`. One file a command, loaded when its command is used; `root` has the table."""

from gateway.cli.root import app, main

__all__ = ["app", "main"]
