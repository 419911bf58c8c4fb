"""Files with secrets in them, and the configuration: who else on this machine can read or change them."""

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from pydantic import BaseModel

KEYS: Final = ("key", "keyfile", "certfile")
"""Settings that name a private key. Without a key file of its own, a certificate's file has the key in it."""
CONTAINER_SECRETS: Final = Path("/run/secrets")
"""Docker's place for secrets, 0444 by default. Nobody else is in the container."""


def warnings(file: Path, secrets: Iterable[Path], settings: Iterable[BaseModel]) -> Iterator[str]:
    """Yield a sentence, with its remedy, for each file that others can read: configuration, secrets and keys."""
    private = [path for one in settings for path in keys(one)]
    for path in dict.fromkeys(one.absolute() for one in (file, *secrets, *private)):
        try:
            mode = _too_much(path)
        except OSError:  # gone since it was read
            continue
        if mode:
            may = "change" if mode & (stat.S_IWGRP | stat.S_IWOTH) else "read"
            yield f"other users of this machine can {may} {path}; chmod {mode.taken} {path}"


class _Excess(int):
    """Bits of a mode that should not be there."""

    @property
    def taken(self) -> str:
        """What takes them away, as chmod has it."""
        group = "".join(letter for letter, bit in (("r", 0o040), ("w", 0o020), ("x", 0o010)) if self & bit)
        parts = (f"g-{group}" if group else "", "o-rwx" if self & stat.S_IRWXO else "")
        return ",".join(filter(None, parts))


def _too_much(path: Path) -> _Excess:
    """Return which rights group and others have to a file, and need not; 0 where they can't get at it.

    Its group may read a file that is somebody else's and that the gateway itself reads by that group: root:sems, 0640.
    A directory on the way that nobody else may pass keeps others out whatever the file says.
    """
    real = path.resolve(strict=True)
    found = real.stat()
    if real.is_relative_to(CONTAINER_SECRETS) and found.st_uid == 0 and not found.st_mode & 0o022:
        return _Excess(0)
    mode = found.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    if found.st_uid != os.geteuid() and found.st_gid in {os.getegid(), *os.getgroups()}:
        mode &= ~stat.S_IRGRP
    if not mode & 0o066 or not all(map(_passable, real.parents)):
        return _Excess(0)
    return _Excess(mode)


def _passable(directory: Path) -> bool:
    return bool(directory.stat().st_mode & 0o011)


def keys(value: object) -> Iterator[Path]:
    """Yield the private keys that settings name, however deep."""
    if isinstance(value, BaseModel):
        fields = dict(value)
        named = (fields[name] for name in KEYS if isinstance(fields.get(name), Path))
        if (key := next(named, None)) is not None:
            yield key
        for one in fields.values():
            yield from keys(one)
    elif isinstance(value, dict):
        for one in value.values():
            yield from keys(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from keys(one)
