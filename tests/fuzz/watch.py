"""Sees what the gateway's own nets catch: an exception that nobody foresaw is a find, also where it did no harm."""

import asyncio
import sys
import traceback

import structlog

from gateway.sems.errors import NotUnderstoodError

_caught = []


def begin():
    """Watch from now on, in this process: all logs go here and nowhere else."""
    structlog.configure(processors=[_look, _drop], wrapper_class=structlog.stdlib.BoundLogger)
    first = NotUnderstoodError.__init__

    def noting(self, *args, **kwargs):
        first(self, *args, **kwargs)
        _note(sys.exc_info()[1])

    if not hasattr(NotUnderstoodError, "is_watched"):
        NotUnderstoodError.__init__ = noting
        NotUnderstoodError.is_watched = True


def on_loop():
    """Watch the running loop too."""
    asyncio.get_running_loop().set_exception_handler(lambda _, context: _note(context.get("exception")))


def caught():
    """Return what was caught since the last look, as tracebacks; "" where nothing was."""
    found = "\n".join(_caught[:3])
    _caught.clear()
    return found


def _note(error):
    if error is not None and not isinstance(error, asyncio.CancelledError):
        _caught.append("".join(traceback.format_exception(error))[-3000:])


def _look(_, __, event):
    found = event.get("exc_info")
    if found:
        _note(found if isinstance(found, BaseException) else sys.exc_info()[1])
    return event


def _drop(*_):
    raise structlog.DropEvent
