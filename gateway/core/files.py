"""Our own files: for nobody else to read, and replaced whole: after a crash the old one or the new one is there.

What a disk promised it may have lost after a power cut. So a file whose loss would be felt is there twice: beside it is
what it held before, and that serves where the file itself is damaged or gone.

What another user of the machine can open, he can hold: a lock on it, and we would wait. So every file is made by this
user alone (0600, in a directory 0700), never through a link that somebody else put there, and no lock is waited for
without a limit.
"""

import errno
import fcntl
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import local
from typing import Final, Generic, NamedTuple, TypeVar

import msgspec

from gateway.core.bad_json import BAD_JSON

T = TypeVar("T")

OTHERS: Final = 0o077
"""What group and others may do."""
LOCK_WITHIN: Final = 2.0
"""Seconds that a lock is waited for."""
_LOOK_AGAIN: Final = 0.02
"""Seconds between two tries to get a lock."""
_BROKEN: Final = frozenset({errno.EIO, errno.EISDIR, errno.EUCLEAN})
"""A sector that can't be read, a directory where a file was, a file system that is damaged there."""
_TRIES: Final = 3
"""How often what is in the way of a new file is removed, before that is an error."""


class LockedError(OSError):
    """Another process holds a file. The message names it."""


def in_the_way(path: Path) -> str:
    """Return in words why no file can be written there, as far as that is to be seen before; "" for nothing."""
    try:
        if path.is_dir():
            return f"{path} is a directory; name a file in it"
        if not path.parent.is_dir():
            return f"there is no directory {path.parent}; make it first, or name another place"
    except OSError as error:
        return why_not(path, error)
    return ""


def why_not(path: Path, error: OSError) -> str:
    """Return in words why a file that a person has named can't be read or written, and what to do."""
    match error.errno:
        case errno.ENOENT:
            return f"there is no file {path}; see whether it is spelt so, and where you are"
        case errno.EISDIR:
            return f"{path} is a directory; name a file in it"
        case errno.EACCES | errno.EPERM:
            return f"{path} is not open to this user; have it be, become the user whose it is, or name another place"
        case errno.ENOSPC | errno.EDQUOT:
            return f"there is no room for {path}; make some, or name another place"
    return f"{path} can't be used ({error.strerror or error}); name another place"


def make_directory(path: Path) -> None:
    """Make a directory that is ours alone, where there is none. Raises OSError."""
    path.mkdir(0o700, parents=True, exist_ok=True)


def create(path: Path) -> None:
    """Make an empty file that is ours alone, where there is none. Raises OSError.

    SQLite gives its files beside a database the mode of the database, so that is made first.
    """
    with suppress(FileExistsError):
        os.close(_owned(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), path))


def open_own(path: Path, flags: int) -> int:
    """Open a file of ours, or make it; return its descriptor. Raises OSError, also where it is a link."""
    return _owned(os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), path)


def _owned(descriptor: int, path: Path) -> int:
    """Give a file that root has made to whom its directory belongs: who commands as root keeps no gateway out of it."""
    if os.geteuid() == 0 and os.fstat(descriptor).st_uid == 0:
        owner = path.parent.stat()
        if owner.st_uid != 0:
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
    return descriptor


def read(path: Path, type_: type[T], version: int | None) -> T:
    """Return what a JSON file of ours holds, and where it is damaged or gone, what it held before.

    `version` is the format that its field of this name must say; None for a type that has no such field. Raises
    OSError, FileNotFoundError where there is none, or of BAD_JSON.
    """
    return whole(path, lambda data: decoded(data, type_, version)).value


def decoded(data: bytes, type_: type[T], version: int | None) -> T:
    """Return what a JSON file of ours holds. Raises of BAD_JSON."""
    found = msgspec.json.decode(data, type=type_)
    if (said := getattr(found, "version", None)) != version:
        raise msgspec.ValidationError(f"format {said}, this gateway knows {version}")
    return found


class Whole(NamedTuple, Generic[T]):
    """What a file holds, or held before."""

    value: T
    trouble: str
    """Why the file itself does not serve; "" where it does."""


def whole(path: Path, decode: Callable[[bytes], T]) -> Whole[T]:
    """Return what a file holds by `decode`, which raises of BAD_JSON; where it does not, what it held before.

    What the disk can't read is damaged as well. Raises the trouble of the file itself where both are damaged or gone.
    """
    try:
        return Whole(decode(path.read_bytes()), "")
    except (OSError, *BAD_JSON) as error:
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError) and not is_damage(error):
            raise
        try:
            before = decode(old(path).read_bytes())
        except (OSError, *BAD_JSON):
            raise error from None
        return Whole(before, "it is gone" if isinstance(error, FileNotFoundError) else str(error))


def is_damage(error: OSError) -> bool:
    """Return whether an error says that a file is broken, and not that it is missing or that we may not read it."""
    return error.errno in _BROKEN


def old(path: Path) -> Path:
    """Return where it stands what a file held before."""
    return path.with_name(path.name + ".old")


def put_aside(path: Path) -> Path:
    """Give a damaged file another name, so that it never becomes what was there before; return it."""
    aside = path.with_name(path.name + ".damaged")
    with suppress(OSError):
        path.replace(aside)
    return aside


def keep(path: Path, data: bytes) -> None:
    """Do as `replace`, and let stand beside it what the file held before. Raises OSError."""
    make_directory(path.parent)
    with _writing(path.parent):
        with suppress(FileNotFoundError):
            new = path.with_name(path.name + ".old.new")
            new.unlink(missing_ok=True)
            try:
                os.link(path, new, follow_symlinks=False)
            except FileNotFoundError:
                raise
            except OSError:  # a file system without links: for a moment the old one alone is there, and it serves
                path.replace(old(path))
            else:
                new.replace(old(path))
        replace(path, data)


_HELD: Final = local()
"""Which directory this thread writes in."""


@contextmanager
def _writing(directory: Path) -> Iterator[None]:
    """Have one thread, of one process, at a time write in a directory: they would take each other's new files away."""
    if getattr(_HELD, "directory", None) == directory:
        yield  # this thread has it already
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks: then it is as it was with one process
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        _HELD.directory = directory
        yield
    finally:
        _HELD.directory = None
        os.close(descriptor)


def replace(path: Path, data: bytes) -> None:
    """Write a file in one step and wait for the disk. Raises OSError."""
    make_directory(path.parent)
    new = path.with_name(path.name + ".new")
    with _writing(path.parent):
        with os.fdopen(_made_anew(new), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Wait until the disk has which files a directory has. Raises OSError."""
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def copy(source: Path, target: Path) -> None:
    """Do as `replace` with what another file has, however much that is. Raises OSError."""
    make_directory(target.parent)
    new = target.with_name(target.name + ".new")
    with os.fdopen(_made_anew(new), "wb") as file, source.open("rb") as had:
        shutil.copyfileobj(had, file, 1 << 20)
        file.flush()
        os.fsync(file.fileno())
    new.replace(target)
    sync_directory(target.parent)


def mend(path: Path) -> None:
    """Put a damaged file aside, and what it held before in its place. What a disk refuses is not done."""
    put_aside(path)
    with suppress(OSError):
        replace(path, old(path).read_bytes())


@contextmanager
def locked(path: Path, within: float = LOCK_WITHIN) -> Iterator[int]:
    """Hold a lock on a file, which is made where there is none; gives its descriptor.

    Blocks for `within` seconds at most. Raises LockedError where another process holds it for longer, and OSError.
    """
    descriptor = open_own(path, os.O_RDWR)
    try:
        tries = round(within / _LOOK_AGAIN)
        while not _try_lock(descriptor):
            tries -= 1
            if tries < 0:
                raise LockedError(f"{path} is locked by another process; `fuser {path}` says which")
            time.sleep(_LOOK_AGAIN)
        yield descriptor
    finally:
        os.close(descriptor)


def tighten(directory: Path) -> list[Path]:
    """Take from group and others what they may do with a directory of ours and all in it; return what was changed.

    Links are not followed. What can't be changed, as it belongs to somebody else, stays as it is.
    """
    changed = []
    for folder, names, files in os.walk(directory):
        here = Path(folder)
        del names  # each is a folder of its own, later
        changed += [path for path in (here, *(here / name for name in files)) if _tightened(path)]
    return changed


def _tightened(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # a link, a socket, or not ours
        return False
    try:
        mode = os.fstat(descriptor).st_mode
        if not mode & OTHERS or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            return False
        os.fchmod(descriptor, stat.S_IMODE(mode) & ~OTHERS)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _made_anew(path: Path) -> int:
    """Make a file that was not there; return its descriptor. What is in the way, e.g. after a crash, is removed."""
    for _ in range(_TRIES):
        with suppress(FileExistsError):
            return _owned(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), path)
        path.unlink(missing_ok=True)
    raise FileExistsError(f"{path} is made again whenever it is removed; see who else writes into {path.parent}")


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
