"""`sems-gateway history`: a device's past into a file, from the running gateway or else straight from SEMS."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from gateway.bridges.local import HungUpError, LocalClient, NotRunningError
from gateway.bridges.local.history import answer
from gateway.bridges.local.protocol import (
    Failed,
    History,
    HistoryEnd,
    HistoryPage,
    HistoryPlanned,
    HistoryWait,
    Refused,
    Reply,
)
from gateway.cli.config import DataDir, fail_with, split, target_of
from gateway.cli.history_file import FileInTheWayError, Format, HistoryFile
from gateway.cli.loop import log_errors_only, run_on_loop
from gateway.cli.output import EXIT_CONFIG, EXIT_INTERRUPTED, EXIT_NOTHING, err, fail, out
from gateway.cli.target import NoConfigError, Target
from gateway.config.document import ConfigError
from gateway.core.clock import SystemClock
from gateway.core.model import RateLimitWait, Resolution, iso
from gateway.run.app import Gateway
from gateway.run.data_dir import DataDirError
from gateway.run.own_settings import CLI_BRIDGE


class HistoryRefusedError(Exception):
    """There is no such history. The message says what there is."""


class HistoryFailedError(Exception):
    """It broke off; what has come so far is kept."""


async def export(target: Target, request: History, file: HistoryFile, console: Console) -> None:
    """Write the history into the file, which is open, and finish it.

    Raises HistoryRefusedError, HistoryFailedError, FileInTheWayError, or DataDirError; ConfigError or NoConfigError
    where no gateway runs.
    """
    with _Bar(console, file) as bar:
        async with aclosing(_replies(target, request, console)) as replies:
            async for reply in replies:
                match reply:
                    case HistoryPlanned(history_plan):
                        file.begin(history_plan.points)
                        bar.plan(history_plan.pages)
                    case HistoryPage(page):
                        file.write(page)
                        bar.step()
                    case HistoryWait(pause):
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


async def _replies(target: Target, request: History, console: Console) -> AsyncGenerator[Reply, None]:
    """Ask the running gateway, or else be one as far as it takes."""
    try:
        async for reply in LocalClient(target.data_dir).ask(request):
            yield reply
        return
    except NotRunningError:
        config = target.config()
        console.print("No gateway runs with this configuration; asking SEMS.")
    except (HungUpError, ValueError) as error:  # ValueError: nothing that we understand
        raise HistoryFailedError("the gateway went away") from error
    log_errors_only()
    gateway = Gateway(config)
    async with gateway.telling():
        async for reply in answer(gateway.runners[CLI_BRIDGE], request):
            yield reply


class _Bar(Progress):
    """What a person sees of it."""

    def __init__(self, console: Console, file: HistoryFile) -> None:
        self._file = file
        super().__init__(
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

    def plan(self, pages: int) -> None:
        done = self._file.progress.pages
        self._began, self._done_before = self._clock.now(), done
        name = escape(self._file.progress.request["serial"])
        self._task = self.add_task(name, total=done + pages, completed=done, rate="", waiting="")

    def step(self) -> None:
        if self._task is not None:
            minutes = (self._clock.now() - self._began).total_seconds() / 60
            done = self._file.progress.pages - self._done_before
            rate = f"{done / minutes:.0f}/min" if minutes > 0 else ""
            self.update(self._task, completed=self._file.progress.pages, rate=rate, waiting="")

    def wait(self, pause: RateLimitWait) -> None:
        if self._task is None:
            return
        seconds = (pause.until - self._clock.now()).total_seconds()
        span = f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(seconds, 0):.0f} s"
        said = f"waiting {span}: {pause.reason}"
        self.update(self._task, waiting=escape(said))
        if not self.console.is_terminal:
            self.console.print(said, markup=False)


def history(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[CONFIG] SN", help="SN: the device's serial number, or the plant's id", show_default=False
        ),
    ],
    start: Annotated[str, typer.Option("--from", help="local date of the plant, or RFC 3339 time")],
    end: Annotated[str, typer.Option("--to", help="the same; a date is included, a time is not")],
    path: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="where to write it")],
    data_dir: DataDir = None,
    format_: Annotated[Format | None, typer.Option("--format", "-f", help="default: by FILE's name, else csv")] = None,
    step: Annotated[Resolution, typer.Option(help="how far the samples are apart")] = Resolution.MINUTES,
    force: Annotated[bool, typer.Option("--force", help="overwrite FILE, or what is there of it")] = False,
) -> None:
    """`sems-gateway history`."""
    config, (serial,) = split(words, 1, data_dir, "history CONFIG SN")
    target = target_of(config, data_dir)
    wanted = {"serial": serial, "from": start, "to": end, "step": step.value}
    file = HistoryFile(path, format_ or Format.of(path), wanted)
    try:
        file.open(force=force)
        request = History(serial, start, end, step, since=file.progress.until)
        run_on_loop(export(target, request, file, err))
        out.print(f"{path}: {file.progress.samples} samples", markup=False)
        for begins, ends in file.progress.empty:
            err.print(f"SEMS has nothing for {serial} from {iso(begins)} to before {iso(ends)}", markup=False)
        if not file.progress.samples:
            raise typer.Exit(EXIT_NOTHING)
    except (HistoryRefusedError, FileInTheWayError) as error:
        fail(str(error), EXIT_CONFIG)
    except (HistoryFailedError, DataDirError, NoConfigError) as error:
        fail(f"{error}{_kept(file)}")
    except ConfigError as error:
        fail_with(error)
    except KeyboardInterrupt:
        fail(f"stopped{_kept(file)}", EXIT_INTERRUPTED)
    finally:
        file.close()


def _kept(file: HistoryFile) -> str:
    pages = file.progress.pages
    return f"; {pages} pages are in {file.part}, and the same command goes on from there" if pages else ""
