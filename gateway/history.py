"""`sems-gateway history`: a device's past into a file, from the running gateway or else straight from SEMS."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from gateway.app import Gateway
from gateway.bridges.local import LocalClient, NotRunningError
from gateway.bridges.local.history import tell
from gateway.bridges.local.protocol import (
    Failed,
    History,
    HistoryEnd,
    HistoryOutline,
    HistoryPage,
    HistoryPause,
    Refused,
    Reply,
)
from gateway.core.clock import SystemClock
from gateway.core.model import Pause
from gateway.history_file import HistoryFile
from gateway.logs import configure
from gateway.settings import CLI_BRIDGE, Config, LogSettings


class HistoryRefusedError(Exception):
    """There is no such history. The message says what there is."""


class HistoryFailedError(Exception):
    """It broke off; what has come so far is kept."""


async def export(config: Config, request: History, file: HistoryFile, console: Console) -> None:
    """Write the history into the file, which is open, and finish it.

    Raises HistoryRefusedError, HistoryFailedError, FileInTheWayError, or DataDirError.
    """
    with _Bar(console, file) as bar:
        async with aclosing(_replies(config, request, console)) as replies:
            async for reply in replies:
                match reply:
                    case HistoryOutline(outline):
                        file.begin(outline.points)
                        bar.begin(outline.pages)
                    case HistoryPage(page):
                        file.write(page)
                        bar.step()
                    case HistoryPause(pause):
                        bar.wait(pause)
                    case HistoryEnd():
                        file.finish()
                        return
                    case Refused(detail):
                        raise HistoryRefusedError(detail)
                    case Failed(detail):
                        raise HistoryFailedError(detail)
                    case _:
                        pass
    raise HistoryFailedError("the gateway went away")


async def _replies(config: Config, request: History, console: Console) -> AsyncGenerator[Reply, None]:
    """Ask the running gateway, or else be one as far as it takes."""
    try:
        async for reply in LocalClient(config.data_dir).ask(request):
            yield reply
        return
    except NotRunningError:
        console.print("No gateway runs with this configuration; asking SEMS.")
    except (OSError, ValueError) as error:  # cut off, perhaps in the middle of a line
        raise HistoryFailedError("the gateway went away") from error
    configure(LogSettings(level="error"))
    gateway = Gateway(config)
    async with gateway.telling():
        async for reply in tell(gateway.runners[CLI_BRIDGE], request):
            yield reply


class _Bar:
    """What a person sees of it."""

    def __init__(self, console: Console, file: HistoryFile) -> None:
        self._console = console
        self._file = file
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("pages  {task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[waiting]}"),
            console=console,
        )
        self._task: TaskID | None = None
        self._clock = SystemClock()
        self._began = self._clock.now()
        self._done_before = 0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, pages: int) -> None:
        done = self._file.progress.pages
        self._began, self._done_before = self._clock.now(), done
        name = escape(self._file.progress.request["serial"])
        self._task = self._progress.add_task(name, total=done + pages, completed=done, rate="", waiting="")

    def step(self) -> None:
        if self._task is not None:
            minutes = (self._clock.now() - self._began).total_seconds() / 60
            done = self._file.progress.pages - self._done_before
            rate = f"{done / minutes:.0f}/min" if minutes > 0 else ""
            self._progress.update(self._task, completed=self._file.progress.pages, rate=rate, waiting="")

    def wait(self, pause: Pause) -> None:
        if self._task is None:
            return
        seconds = (pause.until - self._clock.now()).total_seconds()
        span = f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(seconds, 0):.0f} s"
        said = f"waiting {span}: {pause.reason}"
        self._progress.update(self._task, waiting=escape(said))
        if not self._console.is_terminal:
            self._console.print(said, markup=False)
