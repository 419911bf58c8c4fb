"""Which configuration, or which gateway, a command is about."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from gateway.cli.output import EXIT_CONFIG, err, fail
from gateway.cli.target import NoConfigError, Target, read
from gateway.config.document import ConfigError
from gateway.run.data_dir import DataDirError

if TYPE_CHECKING:
    from gateway.run.settings import Config

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="the YAML file, see config.example.yaml")]
MaybeConfig = Annotated[
    Path | None, typer.Argument(metavar="[CONFIG]", help="the YAML file; a running gateway needs its data_dir alone")
]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", metavar="DIR", help="gateway.data_dir itself, instead of CONFIG")
]


def load(file: Path) -> "Config":
    """Return a configuration that is in order, or end the command."""
    try:
        return read(file)
    except ConfigError as error:
        fail_with(error)


def target_of(config: Path | None, data_dir: Path | None) -> Target:
    """Return what is meant by CONFIG or --data-dir, or end the command."""
    try:
        return Target.of(config, data_dir)
    except ConfigError as error:
        fail_with(error)
    except DataDirError as error:
        fail(str(error), EXIT_CONFIG)


def loaded_quietly(target: Target) -> "Config | None":
    """Return the configuration where there is one that is in order."""
    try:
        return target.config()
    except (ConfigError, NoConfigError):
        return None


def split(words: list[str], count: int, data_dir: Path | None, usage: str) -> tuple[Path | None, list[str]]:
    """Return CONFIG and the `count` words after it; --data-dir stands for CONFIG."""
    if len(words) != count + 1 and (len(words) != count or data_dir is None):
        fail(f"{usage}; --data-dir DIR may stand for CONFIG", EXIT_CONFIG)
    return (Path(words[0]), words[1:]) if len(words) > count else (None, words)


def fail_with(error: ConfigError) -> NoReturn:
    """End the command with what is wrong with a configuration, a line each."""
    for line in error.lines():
        err.print(line, style="red", markup=False)
    raise typer.Exit(EXIT_CONFIG)
