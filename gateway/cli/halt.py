"""`sems-gateway halt` and `sems-gateway resume`."""

import getpass
from collections.abc import Coroutine
from typing import Annotated, Any

import typer

from gateway.cli import control
from gateway.cli.config import DataDir, MaybeConfig, fail_with, target_of
from gateway.cli.loop import log_errors_only, run_on_loop
from gateway.cli.output import EXIT_FAILED, fail, out
from gateway.cli.target import Target
from gateway.commands.policy.halt import in_words
from gateway.config.document import ConfigError
from gateway.run.data_dir import DataDirError


def halt(
    config: MaybeConfig = None,
    data_dir: DataDir = None,
    reason: Annotated[str, typer.Option(help="why, for those who find it halted")] = "",
) -> None:
    """`sems-gateway halt`."""
    target = target_of(config, data_dir)
    done = _control(control.halt(target, getpass.getuser(), reason))
    if done.halted is not None:
        out.print(f"control is {in_words(done.halted)}{_from_when(done, target)}", markup=False)


def resume(config: MaybeConfig = None, data_dir: DataDir = None) -> None:
    """`sems-gateway resume`."""
    target = target_of(config, data_dir)
    done = _control(control.resume(target, getpass.getuser()))
    if done.before is None:
        out.print(f"control was not halted{_from_when(done, target)}", markup=False)
    elif done.halted is None:
        text = f"control goes on: it was {in_words(done.before)}, and that is lifted"
        out.print(f"{text}{_from_when(done, target)}", markup=False)
    else:  # somebody halted it meanwhile
        out.print(f"control is {in_words(done.halted)}", markup=False)
        raise typer.Exit(EXIT_FAILED)


def _control(work: Coroutine[Any, Any, control.Changed]) -> control.Changed:
    log_errors_only()
    try:
        return run_on_loop(work)
    except (control.ControlError, DataDirError) as error:
        fail(str(error))
    except ConfigError as error:
        fail_with(error)


def _from_when(done: control.Changed, target: Target) -> str:
    """Return the rest of a sentence where no gateway runs."""
    return "" if done.running else f"; no gateway runs with data_dir {target.data_dir}, the next start finds it so"
