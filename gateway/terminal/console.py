r"""What is written to a terminal: the last line of defence against text that would move its cursor.

Text from outside is made plain where it enters (core/text.py). Whatever forgets that, and what a user types, is shown
escaped here: `\u001b` for an escape, so that a person sees it and a terminal does not obey it.
"""

import sys
import threading
import traceback
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Final

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from gateway.core.text import MAX_LINE, escaped

MAX_TRACEBACK: Final = 20_000
"""Characters of what Python says of an error that nobody expected."""


class Terminal(Console):
    """Rich's console, whose texts have no control characters, and whose lines have an end."""

    def render_str(self, text: str, **options: Any) -> Text:
        """See `Console.render_str`: all text comes by here before it is laid out."""
        return super().render_str(_lines(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """See `Console.render`: all that is written comes by here, also what was laid out elsewhere."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield segment._replace(text=escaped(segment.text, None, keep="\n"))


def write(text: str) -> None:
    """Write JSON, CSV or Markdown to standard output. Escaped as JSON is, so JSON stays what it is."""
    sys.stdout.write(escaped(text, None, keep="\n"))


def guard() -> None:
    """Have Python's own words of an error that nobody expected escaped too: they may repeat anything."""
    sys.excepthook = _crashed
    threading.excepthook = lambda args: _crashed(args.exc_type, args.exc_value, args.exc_traceback)


def _crashed(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    text = "".join(traceback.format_exception(kind, error, trace))
    sys.stderr.write(escaped(text[-MAX_TRACEBACK:], None, keep="\n"))


def _lines(text: str) -> str:
    if text.isprintable() and len(text) <= MAX_LINE:
        return text
    return "\n".join(map(escaped, text.split("\n")))
