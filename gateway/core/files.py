"""Files that are replaced whole: after a crash either the old one or the new one is there."""

import os
from pathlib import Path


def replace(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Write a file in one step and wait for the disk. `mode` is that of a new file. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
