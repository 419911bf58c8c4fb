"""Logging: structlog to standard error, as lines for people, or as JSON for programs."""

import io
import logging
import os
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, Final, TextIO, cast

import structlog

from gateway.core.text import MAX_LINE, escaped
from gateway.run.log_writer import writer
from gateway.run.own_settings import LogSettings


class _Stderr(io.TextIOBase):
    """Standard error as it is when a line is written: the demo's live table takes it over for a while."""

    def write(self, text: str) -> int:
        writer.write(text)
        return len(text)

    def flush(self) -> None:
        """Do nothing: each line is flushed."""


class _Threshold:
    """Drops what is not severe enough. A logger that a bridge holds obeys a change of level at once."""

    level = logging.INFO

    def __call__(self, _: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if logging.getLevelNamesMapping()[event["level"].upper()] < self.level:
            raise structlog.DropEvent
        return event


MAX_TRACEBACK: Final = 20_000
"""Characters of a traceback, of its end."""
MAX_ITEMS: Final = 100
"""Of a list."""


def _clean(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape what would move a terminal's cursor, whoever forgot it, and bound what is written."""
    trace = event.pop("exception", None)
    cleaned = {escaped(key): _cleaned(value) for key, value in event.items()}
    if isinstance(trace, str):
        cleaned["exception"] = escaped(trace[-MAX_TRACEBACK:], None, keep="\n")
    return cleaned


def _cleaned(value: object) -> object:
    if isinstance(value, str):
        return escaped(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_cleaned(item) for item, _ in zip(value, range(MAX_ITEMS), strict=False)]
    if isinstance(value, dict):
        return {
            escaped(str(key)): _cleaned(item) for (key, item), _ in zip(value.items(), range(MAX_ITEMS), strict=False)
        }
    if value is None or isinstance(value, (bool, int, float)):
        return value
    shown = repr(value)
    return value if shown.isprintable() and len(shown) <= MAX_LINE else escaped(shown)


class _Formatter(logging.Formatter):
    """What libraries log by Python's own means, e.g. a warning."""

    def format(self, record: logging.LogRecord) -> str:
        return escaped(super().format(record), keep="\n")


_threshold: Final = _Threshold()


def set_level(level: str) -> None:
    """Log from now on what is at least as severe: `debug`, `info`, `warning` or `error`."""
    _threshold.level = logging.getLevelNamesMapping()[level.upper()]


def _in_container() -> bool:
    """Return whether this is Docker, Podman or their like, whose logs programs read."""
    return "container" in os.environ or Path("/.dockerenv").exists() or Path("/run/.containerenv").exists()


def _in_journal() -> bool:
    """Return whether standard error is the journal of systemd, which notes the time itself: systemd.exec(5)."""
    try:
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def configure(settings: LogSettings) -> None:
    """Set up logging for the process."""
    for_people = sys.stderr.isatty() or not _in_container()
    console = settings.format == "console" or (settings.format == "auto" and for_people)
    in_journal = console and _in_journal()
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), timestamp_key="time")
        if console
        else structlog.processors.JSONRenderer()
    )
    # A person wants the time first, and that of the wall; a program wants UTC.
    time_format = "%Y-%m-%d %H:%M:%S" if console else "iso"
    set_level(settings.level)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            _threshold,
            structlog.contextvars.merge_contextvars,
            *([] if in_journal else [structlog.processors.TimeStamper(fmt=time_format, utc=not console, key="time")]),
            structlog.processors.format_exc_info,
            _clean,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Stderr())),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(cast("TextIO", _Stderr()))
    handler.setFormatter(_Formatter())
    logging.basicConfig(handlers=[handler])
    # Libraries log each of their tries; the bridge says once what matters.
    for library in ("httpx", "httpcore", "pymodbus", "uvicorn", "asyncio"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
