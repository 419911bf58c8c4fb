"""Logging: structlog to standard error, for people on a terminal and as JSON lines elsewhere."""

import io
import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final, TextIO, cast

import structlog

from gateway.settings import LogSettings


class _Stderr(io.TextIOBase):
    """Standard error as it is when a line is written: the demo's live table takes it over for a while."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


class _Threshold:
    """Drops what is not severe enough. A logger that a bridge holds obeys a change of level at once."""

    level = logging.INFO

    def __call__(self, _: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if logging.getLevelNamesMapping()[event["level"].upper()] < self.level:
            raise structlog.DropEvent
        return event


_threshold: Final = _Threshold()


def set_level(level: str) -> None:
    """Log from now on what is at least as severe: `debug`, `info`, `warning` or `error`."""
    _threshold.level = logging.getLevelNamesMapping()[level.upper()]


def configure(settings: LogSettings) -> None:
    """Set up logging for the process."""
    console = settings.format == "console" or (settings.format == "auto" and sys.stderr.isatty())
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()) if console else structlog.processors.JSONRenderer()
    )
    set_level(settings.level)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            _threshold,
            structlog.contextvars.merge_contextvars,
            structlog.processors.TimeStamper(fmt="iso", utc=not console, key="time"),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Stderr())),
        cache_logger_on_first_use=False,
    )
    # Libraries log each of their tries; the bridge says once what matters.
    for library in ("httpx", "httpcore", "pymodbus", "uvicorn", "asyncio"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
