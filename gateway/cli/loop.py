"""The loop that a command runs on, and what it logs."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run_on_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run on uvloop where it installs."""
    try:
        import uvloop  # noqa: PLC0415 - optional
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(work)


def log_errors_only() -> None:
    """Have the log of a command that is for people show errors alone."""
    from gateway.run.logs import configure  # noqa: PLC0415 - not every command has a log
    from gateway.run.own_settings import LogSettings  # noqa: PLC0415

    configure(LogSettings(level="error"))
