"""Logging: structlog to standard error, for people on a terminal and as JSON lines elsewhere."""

import io
import logging
import sys
from typing import Any, TextIO, cast

import structlog

from gateway.settings import LogSettings


class _Stderr(io.TextIOBase):
    """Standard error as it is when a line is written: the demo's live table takes it over for a while."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def configure(settings: LogSettings) -> None:
    """Set up logging for the process."""
    console = settings.format == "console" or (settings.format == "auto" and sys.stderr.isatty())
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()) if console else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=not console, key="time"),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Stderr())),
        cache_logger_on_first_use=False,
    )
    # Libraries log each of their tries; the bridge says once what matters.
    for library in ("httpx", "httpcore", "pymodbus", "uvicorn", "asyncio"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
