"""`sems-gateway backup` and `sems-gateway restore`."""

from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.config import ConfigFile, load
from gateway.cli.output import fail, out
from gateway.core.clock import SystemClock
from gateway.run import backup as backups
from gateway.run.backup import BackupError

BackupFile = Annotated[Path, typer.Argument(metavar="FILE", help="the backup")]


def backup(
    config: ConfigFile,
    file: BackupFile,
    with_secrets: Annotated[
        bool,
        typer.Option("--with-secrets", help="also passwords, tokens, private keys and secret files; keep it safe then"),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="overwrite FILE")] = False,
) -> None:
    """`sems-gateway backup`."""
    loaded = load(config)
    try:
        made = backups.make(loaded, file, SystemClock().now(), secrets=with_secrets, force=force)
    except BackupError as error:
        fail(str(error))
    size = sum(member.size for member in made.files.values())
    out.print(f"{file}: {len(made.files)} files, {size / 1e6:.1f} MB before compression", markup=False)
    if with_secrets:
        out.print("it has passwords and keys in it: keep it where nobody else can read it")
    for left in made.left_out:
        out.print(f"left out: {left}", markup=False)


def restore(
    file: BackupFile,
    config: Annotated[
        Path | None,
        typer.Argument(metavar="[CONFIG]", help="where to put the configuration; default: here, by its old name"),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", metavar="DIR", help="instead of the gateway.data_dir it was in")
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="overwrite the configuration; what data_dir has is moved into a folder in it"),
    ] = False,
) -> None:
    """`sems-gateway restore`."""
    try:
        done = backups.restore(file, config, SystemClock().now(), data_dir=data_dir, force=force)
    except BackupError as error:
        fail(str(error))
    out.print(f"restored: {done.file}, and {done.data_dir}", markup=False)
    if done.aside is not None:
        out.print(f"what was there before is in {done.aside}", markup=False)
    if done.said_data_dir != done.data_dir:
        out.print(f"{done.file} says data_dir {done.said_data_dir}: have it say {done.data_dir}", markup=False)
    for left in done.manifest.left_out:
        out.print(f"not in the backup: {left}", markup=False)
    if done.commands:
        out.print(f"{done.commands} commands were open in it: they end as unknown, and are not sent")
    for timer in done.timers:
        out.print(f"a dead-man's timer ran in it, and does no more: set it yourself, {timer}", markup=False)
    out.print(f"control is halted until `sems-gateway resume {done.file}`: look first at what is set", markup=False)
