"""Which gateway a command is about: its data_dir, and the configuration where more than that is needed."""

from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec

from gateway.run import data_dir
from gateway.run.data_dir import OPTION, DataDirError

if TYPE_CHECKING:
    from gateway.run.settings import Config


class NoConfigError(Exception):
    """Without a running gateway the configuration is needed, and there is none."""


def read(file: Path) -> "Config":
    """Return a configuration that is in order. Raises ConfigError."""
    # What only asks the gateway that runs needs none of this.
    from gateway.api.registry import installed  # noqa: PLC0415
    from gateway.run.settings import Config  # noqa: PLC0415

    return Config.load(file, installed())


class Target(msgspec.Struct, frozen=True):
    """A gateway that may run, or not."""

    data_dir: Path
    file: Path | None = None

    @classmethod
    def of(cls, file: Path | None, directory: Path | None) -> Self:
        """Return what is meant by CONFIG or --data-dir. Raises ConfigError or DataDirError."""
        if directory is not None:
            # Made up, it would be halted instead of the one that was meant.
            if not directory.is_dir():
                raise DataDirError(f"there is no directory {directory}; name the gateway.data_dir of the gateway")
            return cls(directory.resolve(), file)
        if file is None:
            raise DataDirError(f"name the configuration, or say {OPTION}")
        return cls(data_dir.find(file), file)

    def config(self) -> "Config":
        """Return the configuration. Raises ConfigError or NoConfigError."""
        if self.file is None:
            raise NoConfigError(
                f"no gateway runs with data_dir {self.data_dir}; start it with `sems-gateway run`, or name its "
                "configuration instead of --data-dir"
            )
        return read(self.file)
