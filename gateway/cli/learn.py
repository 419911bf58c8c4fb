"""`sems-gateway learn`: asks an account all that can be read, and says what of the catalogue is so."""

import asyncio
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from gateway import __version__
from gateway.bridges.open_api import OpenApiSettings
from gateway.bridges.realtime import RealtimeSettings
from gateway.bridges.realtime.settings import ACCOUNT_API
from gateway.cli.config import MaybeConfig
from gateway.cli.config import load as load_config
from gateway.cli.loop import log_errors_only, run_on_loop
from gateway.cli.output import EXIT_CONFIG, EXIT_INTERRUPTED, err, fail, out
from gateway.config.document import nearest
from gateway.core import files
from gateway.core.clock import SystemClock
from gateway.learn import Report, infer
from gateway.learn.asker import Asker, LearnError
from gateway.learn.collect import Collector
from gateway.learn.markdown import markdown, table
from gateway.learn.overrides_file import render
from gateway.learn.pseudonyms import Pseudonyms
from gateway.learn.replay import replay as replayed
from gateway.run.settings import Config
from gateway.sems import recording
from gateway.sems.budget import Budget
from gateway.sems.catalogue import Catalogue, load
from gateway.sems.overrides import CatalogueOverrides, overridden
from gateway.sems.recording import Answer, RecordingError, Writer
from gateway.sems.session import Session

Settings = OpenApiSettings | RealtimeSettings
TICK: Final = 1.0


async def learn_accounts(
    config: Config, bridge: str | None, into: Path, wait: float, record: Path | None, out: Console, err: Console
) -> None:
    """Ask the account of each HTTP bridge, or of the one that is named, and write down what was found.

    Safe beside a running gateway: token and calls are shared by way of `data_dir`. Raises LearnError, RecordingError.
    """
    bridges = {one.name: one.settings for one in config.bridges if isinstance(one.settings, Settings)}
    if not bridges:
        raise LearnError("there is no bridge of type open_api or realtime; add one, see config.example.yaml")
    if bridge is not None and bridge not in bridges:
        raise LearnError(f"there is no bridge {bridge!r} that asks SEMS; {nearest(bridge, list(bridges))}")
    chosen = {bridge: bridges[bridge]} if bridge is not None else bridges
    if record is not None and len(chosen) > 1:
        raise LearnError(f"a recording is of one account; say --bridge with --record: {', '.join(chosen)}")
    for path in [*(path for name in chosen for path in _written(into, name)), *([] if record is None else [record])]:
        _can_be_written(path)
    files.make_directory(config.data_dir)
    for name, settings in chosen.items():
        answers = await _ask(name, settings, config.data_dir, wait, err)
        api = settings.catalogue.api
        if record is not None:
            credentials = settings.credentials
            known = (credentials.account, credentials.password, credentials.password_md5)
            write_recording(record, settings.catalogue, answers, known)
            out.print(f"{record}: {len(answers)} answers, without what tells whose they are", markup=False)
        own = settings.overrides != CatalogueOverrides()
        write_report(base_of(api, settings.catalogue), answers, into, name, out, own=own)


def _written(into: Path, name: str) -> tuple[Path, Path]:
    """Return where overrides and report of a bridge go."""
    return into / f"learned-{name}.yaml", into / f"learned-{name}.md"


def _can_be_written(path: Path) -> None:
    """Raise LearnError where a file can't be written: before calls are made that would be for nothing."""
    there = path.exists()
    try:
        with path.open("ab"):
            pass
        if not there:
            path.unlink()
    except OSError as error:
        raise LearnError(
            f"{path} can't be written: {error.strerror}; say another place with --into and --record. Nothing was asked"
        ) from None


def from_recording(file: Path, into: Path, out: Console) -> None:
    """Run parsing and inference over a recording. Raises RecordingError."""
    recorded = recording.read(file)
    catalogue = load(recorded.api)
    report = write_report(catalogue, recorded.answers, into, file.stem, out, own=False)
    _show_readings(catalogue, report, recorded.answers, out)


def base_of(api: str, configured: Catalogue) -> Catalogue:
    """Return the shipped catalogue, with the request fields that are in force: overrides are lines of that one."""
    sent = {interface.name: interface.request for interface in configured.interfaces}
    base = load(api)
    return msgspec.structs.replace(
        base,
        success=configured.success,
        interfaces=tuple(
            msgspec.structs.replace(interface, request=sent.get(interface.name, interface.request))
            for interface in base.interfaces
        ),
    )


def write_recording(file: Path, catalogue: Catalogue, answers: Sequence[Answer], known: Sequence[str] = ()) -> None:
    """Write answers without what tells whose they are. Raises RecordingError."""
    changed = Pseudonyms(catalogue, secrets.token_bytes(32), known).answers(answers)
    made = max((answer.time for answer in answers), default=SystemClock().now())
    with Writer(file, catalogue.api, made, __version__) as writer:
        for answer in changed:
            writer.write(answer)


def write_report(
    catalogue: Catalogue, answers: Sequence[Answer], into: Path, name: str, out: Console, *, own: bool
) -> Report:
    """Infer, write report and overrides, and show both in short."""
    report = infer(catalogue, answers)
    overridden(catalogue, CatalogueOverrides.model_validate(report.overrides))  # or it would be no file to use
    if own:
        report = msgspec.structs.replace(
            report, notes=("The configuration has overrides already: add these lines to them, don't replace them.",)
        )
    overrides, described = _written(into, name)
    for path, text in ((overrides, render(report)), (described, markdown(report))):
        try:
            path.write_text(text, "utf-8")
        except OSError as error:
            raise LearnError(f"{path} can't be written: {error.strerror}; say another directory with --into") from None
    out.print(f"[bold]{escape(name)}[/] ({report.api})")
    out.print(table(report))
    sure = sum(line.sure and line.override is not None for line in report.lines)
    shown = sum(not line.sure and (line.override is not None or bool(line.candidates)) for line in report.lines)
    out.print(f"{overrides}: {sure} lines are sure, {shown} more are comments", markup=False)
    if report.date_format:
        out.print(f"dates are written like {report.date_format}: set `date_format` of the bridge", markup=False)
    out.print(f"{described}: all of it, with the evidence", markup=False)
    return report


def _show_readings(catalogue: Catalogue, report: Report, answers: Sequence[Answer], out: Console) -> None:
    """Show what the gateway reads by the catalogue, and by what was learned."""
    before = replayed(catalogue, answers)
    after = replayed(overridden(catalogue, CatalogueOverrides.model_validate(report.overrides)), answers)
    made = Table(box=None, pad_edge=False)
    for title in ("interface", "answers", "values by the catalogue", "values with the overrides"):
        made.add_column(title, justify="left" if title == "interface" else "right")
    for name, one in after.items():
        made.add_row(escape(name), str(one.answers), str(before[name].values), str(one.values))
    out.print(made)


async def _ask(name: str, settings: Settings, data_dir: Path, wait: float, err: Console) -> list[Answer]:
    """Return the answers of one account."""
    clock = SystemClock()
    api = ACCOUNT_API if isinstance(settings, RealtimeSettings) else settings.catalogue.api
    credentials = settings.credentials
    budget = Budget.shared(credentials.file(data_dir, api, "budget"), settings.calls, clock)
    store = credentials.file(data_dir, api, "session")
    session = Session(settings.catalogue, settings.host, credentials, store, clock, budget, name)
    serials = settings.whitelist.numbers if isinstance(settings, RealtimeSettings) else ()
    with _Bar(err, name) as bar:
        await session.start()
        try:
            asker = Asker(session, clock, bar.wait)
            collector = Collector(settings.catalogue, asker, clock.now().date(), serials, bar.show)
            return await collector.run((lambda: bar.count_down(wait)) if wait > 0 else None)
        finally:
            await session.stop()


class _Bar(Progress):
    """What a person sees of the calls."""

    def __init__(self, console: Console, name: str) -> None:
        now = TextColumn("calls  {task.fields[now]}")
        super().__init__(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), now, console=console)
        self._task = self.add_task(escape(name), total=None, now="")

    def show(self, done: int, total: int, interface: str) -> None:
        """Show how far it is."""
        self.update(self._task, completed=done, total=max(total, done, 1), now=escape(interface))

    def wait(self, seconds: float, why: str) -> None:
        """Show that calls have to wait."""
        self.update(self._task, now=escape(f"waiting {seconds:.0f} s: {why}"[:160]))

    async def count_down(self, seconds: float) -> None:
        """Let the time pass that totals need to grow."""
        clock = SystemClock()
        end = clock.monotonic() + seconds
        while (left := end - clock.monotonic()) > 0:
            self.update(self._task, now=f"again in {left:.0f} s, for what grows")
            await asyncio.sleep(min(TICK, left))


def learn(
    config: MaybeConfig = None,
    bridge: Annotated[str | None, typer.Option(help="ask the account of this bridge only")] = None,
    into: Annotated[
        Path, typer.Option(metavar="DIR", help="where the report and the overrides go", file_okay=False, exists=True)
    ] = Path(),
    wait: Annotated[
        float, typer.Option(min=0, max=3600, help="seconds until all is asked again, for what grows; 0: not again")
    ] = 300,
    record: Annotated[
        Path | None, typer.Option(metavar="FILE", help="keep the answers, without what tells whose they are")
    ] = None,
    replay: Annotated[
        Path | None, typer.Option(metavar="FILE", help="go by such a recording instead; asks nobody")
    ] = None,
) -> None:
    """`sems-gateway learn`."""
    if (config is None) == (replay is None):
        fail("learn CONFIG asks SEMS; learn --replay FILE asks nobody", EXIT_CONFIG)
    try:
        if replay is not None:
            from_recording(replay, into, out)
        elif config is not None:
            loaded = load_config(config)
            log_errors_only()
            run_on_loop(learn_accounts(loaded, bridge, into, wait, record, out, err))
    except (LearnError, RecordingError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("stopped; nothing was written", EXIT_INTERRUPTED)
