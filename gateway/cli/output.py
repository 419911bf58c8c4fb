"""What every command writes to, and how it ends."""

import sys
from typing import Final, NoReturn

import msgspec
import typer

from gateway.core.text import escaped
from gateway.terminal.console import Terminal

EXIT_FAILED: Final = 1
EXIT_CONFIG: Final = 2
EXIT_NOTHING: Final = 3
EXIT_INTERRUPTED: Final = 130
PIPE_WIDTH: Final = 240
"""Columns where standard output is no terminal: nothing is cut off on its way into a file."""

out = Terminal(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else PIPE_WIDTH)
err = Terminal(stderr=True, highlight=False, soft_wrap=True)


def fail(text: str, code: int = EXIT_FAILED) -> NoReturn:
    """End the command with a line that says why."""
    err.print(escaped(text), style="red", markup=False)
    raise typer.Exit(code)


def in_json(whole: object) -> str:
    """Return JSON for people and programs."""
    return msgspec.json.format(msgspec.json.encode(whole), indent=2).decode() + "\n"
