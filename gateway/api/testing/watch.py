"""What the kit looks at: what a piece of code opens, what it leaves behind, and for how long it holds up the loop."""

import asyncio
import logging
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec
from structlog.testing import capture_logs

OPENING: Final = (
    "open", "os.mkdir", "os.rename", "os.remove", "os.scandir", "os.listdir", "sqlite3.connect", "socket.", "ssl.",
    "subprocess.Popen", "os.posix_spawn", "os.fork",
)  # fmt: skip
"""Audit events of what reaches out of the process, or begins something."""


class _Opened(threading.local):
    """What this thread has opened, while that is of interest."""

    events: list[str] | None = None


_opened = _Opened()
_hooked: list[bool] = []


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if _opened.events is not None and event.startswith(OPENING):
        _opened.events.append(f"{event} {args[0]!r}" if args and isinstance(args[0], (str, bytes, Path)) else event)


@contextmanager
def opened() -> Iterator[list[str]]:
    """Give out a list of what this thread opens meanwhile: files, sockets, processes, threads."""
    if not _hooked:
        # It can't be taken away again; without a list it does nothing.
        sys.addaudithook(_audit)
        _hooked.append(True)
    events: list[str] = []
    start = threading.Thread.start

    def begin(thread: threading.Thread) -> None:
        if _opened.events is not None:
            _opened.events.append(f"thread {thread.name}")
        start(thread)

    # Not every Python tells the hook of a thread.
    setattr(threading.Thread, "start", begin)  # noqa: B010 - it is not ours to type
    _opened.events = events
    try:
        yield events
    finally:
        _opened.events = None
        setattr(threading.Thread, "start", start)  # noqa: B010


class Held(msgspec.Struct, frozen=True):
    """What the process holds."""

    descriptors: int
    threads: int

    @classmethod
    def now(cls) -> Self:
        """Return what it holds now. A pool's threads come as they are needed, and stay: they are not counted."""
        own = [thread for thread in threading.enumerate() if not thread.name.startswith(("asyncio_", "ThreadPool"))]
        return cls(sum(1 for _ in Path("/proc/self/fd").iterdir()), len(own))

    def more_than(self, other: "Held") -> bool:
        """Return whether it holds more than it did."""
        return self.descriptors > other.descriptors or self.threads > other.threads


class Logged(logging.Handler):
    """All that is logged meanwhile, by structlog and by the standard library."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.entries: list[Any] = []
        self._texts: list[str] = []
        self._capture = capture_logs()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self._texts.append(record.getMessage())

    @property
    def text(self) -> str:
        """Everything, for a search."""
        return "\n".join([*self._texts, *(repr(dict(entry)) for entry in self.entries)])

    def has(self, event: str) -> list[str]:
        """Return the entries of an event."""
        return [repr(dict(entry)) for entry in self.entries if event in str(entry.get("event"))]

    def __enter__(self) -> Self:
        self.entries = self._capture.__enter__()
        root = logging.getLogger()
        self._level = root.level
        root.addHandler(self)
        root.setLevel(logging.DEBUG)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        root = logging.getLogger()
        root.removeHandler(self)
        root.setLevel(self._level)
        self._capture.__exit__(kind, error, trace)


class LoopWatch:
    """Which callbacks hold up asyncio's loop for too long.

    Counted is what the loop's thread computes in one callback, and what it sleeps in there, e.g. in a call that blocks.
    What it waits for a processor that others have is neither (Linux tells it apart), so a busy machine changes nothing.
    """

    def __init__(self, most: float) -> None:
        self._most = most
        self.late: Counter[str] = Counter()
        """Callback → how often it took longer than `most` seconds."""
        self.worst: dict[str, float] = {}
        self._waits: int | None = None
        self._ended = False

    def __enter__(self) -> Self:
        try:
            self._waits = os.open(f"/proc/self/task/{threading.get_native_id()}/schedstat", os.O_RDONLY)
        except OSError:
            self._waits = None
        self._original = asyncio.Handle._run  # noqa: SLF001 - as asyncio's own debug mode does
        thread, original = threading.get_ident(), self._original

        def run(handle: asyncio.Handle) -> None:
            if threading.get_ident() != thread:
                original(handle)
                return
            waited, began = self._waited(), time.perf_counter()
            original(handle)
            took = time.perf_counter() - began
            if self._ended:
                return  # in this very callback, and the descriptor may be somebody else's by now
            if took > self._most and (held := took - (self._waited() - waited)) > self._most:
                name = _name_of(handle)
                self.late[name] += 1
                self.worst[name] = max(held, self.worst.get(name, 0.0))

        setattr(asyncio.Handle, "_run", run)  # noqa: B010 - it is not ours to type
        return self

    def __exit__(self, *_: object) -> None:
        setattr(asyncio.Handle, "_run", self._original)  # noqa: B010
        self._ended = True
        if self._waits is not None:
            os.close(self._waits)

    def _waited(self) -> float:
        """Return how many seconds this thread was ready to run and had no processor."""
        if self._waits is None:
            return 0.0
        return int(os.pread(self._waits, 100, 0).split()[1]) / 1e9


def _name_of(handle: asyncio.Handle) -> str:
    callback = getattr(handle, "_callback", None)
    task = getattr(callback, "__self__", None)
    if isinstance(task, asyncio.Task):
        return f"task {task.get_name()!r} ({getattr(task.get_coro(), '__qualname__', '?')})"
    return getattr(callback, "__qualname__", repr(callback))
