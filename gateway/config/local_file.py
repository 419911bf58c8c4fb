"""Files that a configuration names: every relative path starts at the directory of the configuration."""

from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, ValidationInfo

DIRECTORY: Final = "directory"
"""Of the context that settings are validated in: where the configuration lies."""


def beside(path: Path, info: ValidationInfo) -> Path:
    """Return a path as the configuration means it. Where nobody says where that lies, it stays as it is."""
    directory = (info.context or {}).get(DIRECTORY)
    return directory / path if isinstance(directory, Path) else path


def _there(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"there is no file {path}; a relative path starts at the configuration's directory")
    return path


LocalFile = Annotated[Path, AfterValidator(beside)]
"""A file's path, which need not be there."""
ExistingFile = Annotated[Path, AfterValidator(beside), AfterValidator(_there)]
"""A file's path."""
