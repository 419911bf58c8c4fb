"""A backup: one file with the configuration, what it names, and data_dir, from which a gateway goes on elsewhere.

A gzipped tar: `manifest.json` first, then `config/…` and `data/…`. What runs meanwhile is copied as of one moment:
SQLite's files by its own backup, all others are replaced whole whenever they change.

An older copy of a gateway must not act again. So after `restore` the open commands of the journal end as unknown, its
dead-man's timers are taken out and told, and control stays halted until a person resumes.
"""

import gzip
import hashlib
import io
import os
import re
import sqlite3
import tarfile
import time
import zlib
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import IO, Any, Final

import msgspec
import yaml
from pydantic import BaseModel, SecretStr

from gateway import __version__
from gateway.commands.policy import halt
from gateway.config import private_files
from gateway.config.document import dotted
from gateway.core import files
from gateway.core.bad_json import BAD_JSON
from gateway.core.model import GATEWAY, Halt, iso
from gateway.journal import restored
from gateway.journal.file import JOURNAL, JournalError
from gateway.journal.file import VERSION as JOURNAL_FORMAT
from gateway.run import data_dir as directories
from gateway.run import doubts
from gateway.run.environment import ENV_PREFIX
from gateway.run.settings import Config, ConfigError

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
MAX_MANIFEST: Final = 10_000_000
"""Bytes that are read of a manifest, whatever it says it has."""
PLACEHOLDER: Final = "change-me"
"""What stands in the configuration for a secret that was left out: `check` refuses it."""
_CHUNK: Final = 1 << 20
_OF_A_MOMENT: Final = re.compile(
    r"^lock$|\.lock$|\.sock$|-(wal|shm)$|\.(new|part|broken|rescued|repaired|salvaged|backup)$|\.damaged"
)
"""Files of data_dir that mean nothing elsewhere, or that are damaged."""
_TOKENS: Final = re.compile(r"-session\.json(\.old)?$")
"""Files of data_dir with a token of SEMS in them: without them the next start logs in."""
_DATABASE: Final = ".sqlite"
_SCHEMA: Final = re.compile(r"^# yaml-language-server: \$schema=(\S+)", re.MULTILINE)
"""What an editor checks the configuration against: `init` writes that file beside it."""

Keys = tuple[str | int, ...]
"""Where a value stands in the configuration."""


class BackupError(Exception):
    """It can't be made or restored. The message says what to do."""


class Member(msgspec.Struct, frozen=True):
    """A file of a backup."""

    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """What is in a backup."""

    format: int
    version: str
    """Of the gateway that made it."""
    journal: int
    """The format of its journal."""
    made: datetime
    config: str
    """The name of the configuration."""
    files: dict[str, Member]
    """Name in the archive → what it is."""
    left_out: list[str]
    """What has to be put back by hand, in words."""


class Restored(msgspec.Struct, frozen=True):
    """What `restore` has done."""

    manifest: Manifest
    file: Path
    """Where the configuration is."""
    data_dir: Path
    said_data_dir: Path
    """What the configuration says, which is another one where `restore` was told so."""
    timers: list[str]
    """Setpoints whose dead-man's timers ran in the backup, and do no more."""
    commands: int
    """Commands that were open in it, and end as unknown."""
    aside: Path | None
    """Where it is what data_dir had before."""


def make(
    config: Config, target: Path, made: datetime, *, secrets: bool, force: bool, version: str = __version__
) -> Manifest:
    """Write a backup into a file that only its owner can read; return what is in it. Blocks.

    `version` is that of the gateway whose files these are. Without `secrets`, passwords, tokens, private keys and
    secret files stay out. Raises BackupError.
    """
    if trouble := files.in_the_way(target):
        raise BackupError(trouble)
    if target.exists() and not force:
        raise BackupError(f"{target} is there already; name another file, or overwrite it with --force")
    new = target.with_name(target.name + ".new")
    try:
        with TemporaryDirectory(dir=target.parent, prefix=".sems-backup-") as staging:
            sources, left_out = _sources(config, Path(staging), secrets=secrets)
            members = {name: _member(path) for name, path in sources.items()}
            manifest = Manifest(FORMAT, version, JOURNAL_FORMAT, made, config.file.name, members, left_out)
            new.unlink(missing_ok=True)
            files.create(new)
            with tarfile.open(new, "w:gz", compresslevel=6) as archive:
                _add(archive, MANIFEST, io.BytesIO(msgspec.json.format(msgspec.json.encode(manifest), indent=1)), made)
                for name, path in sources.items():
                    with path.open("rb") as file:
                        _add(archive, name, file, made)
        descriptor = os.open(new, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        new.replace(target)
    except (OSError, sqlite3.Error) as error:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        why = f"{target} can't be written: {error}"
        if isinstance(error, OSError) and error.filename in (str(target), str(new), None):
            why = files.why_not(target, error)
        raise BackupError(why) from error
    return manifest


def restore(archive: Path, file: Path | None, now: datetime, *, data_dir: Path | None, force: bool) -> Restored:
    """Put a backup in the place of a configuration and of the data_dir that it names. Blocks. Raises BackupError.

    Without `file` the configuration goes into the current directory, by the name that it had.

    Nothing is written before all of the backup is known to be whole. What data_dir had goes aside with `force`.
    """
    directory = file.absolute().parent if file is not None else Path.cwd()
    try:
        archive.open("rb").close()
    except OSError as error:
        raise BackupError(files.why_not(archive, error)) from error
    try:
        files.make_directory(directory)
        with TemporaryDirectory(dir=directory, prefix=".sems-restore-") as staging:
            manifest = _unpacked(archive, Path(staging))
            target = directory / (file.name if file is not None else manifest.config)
            return _put_in_place(manifest, Path(staging), target, now, data_dir, force=force)
    except (OSError, sqlite3.Error, JournalError, ConfigError) as error:
        raise BackupError(f"it can't be restored: {error}") from error


# what goes in


def _sources(config: Config, staging: Path, *, secrets: bool) -> tuple[dict[str, Path], list[str]]:
    """Return name in the archive → file, as of now, and what is left out, in words."""
    found: dict[str, Path] = {}
    left_out: list[str] = []
    text, hidden = _without_secrets(config, secrets=secrets)
    copy = staging / "config"
    copy.write_bytes(text)
    found[f"config/{config.file.name}"] = copy
    left_out += hidden
    variables = _variables(config.file) | set(doubts.variables(ENV_PREFIX).values())
    left_out += [f"the environment variable {name}" for name in sorted(variables)]
    private = {path.resolve() for path in (*config.secret_files, *private_files.keys(_settings(config)))}
    directory = config.file.parent.resolve()
    for path in _named_files(config):
        if not path.is_relative_to(directory):
            left_out.append(f"{path}, which is not in the directory of the configuration")
        elif path in private and not secrets:
            left_out.append(f"{path.relative_to(directory)}, which has a secret in it")
        else:
            found[f"config/{path.relative_to(directory).as_posix()}"] = path
    for path in sorted(config.data_dir.iterdir()) if config.data_dir.is_dir() else ():
        if path.is_symlink() or not path.is_file() or _OF_A_MOMENT.search(path.name):
            continue
        if _TOKENS.search(path.name) and not secrets:
            continue
        staged = staging / f"data-{path.name}"
        if path.suffix == _DATABASE:
            _copy_database(path, staged)
        else:
            try:
                staged.write_bytes(path.read_bytes())
            except FileNotFoundError:  # taken away meanwhile
                continue
        found[f"data/{path.name}"] = staged
    if not secrets:
        left_out.append("tokens of SEMS, which the next start gets by logging in")
    return found, left_out


def _copy_database(source: Path, target: Path) -> None:
    """Copy a database as of one moment; who writes it is not held up."""
    files.create(target)
    uri = f"{source.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True)) as database, closing(sqlite3.connect(target)) as copy:
        database.backup(copy)


def _without_secrets(config: Config, *, secrets: bool) -> tuple[bytes, list[str]]:
    """Return the configuration's text, and what was replaced in it: key and line of each secret."""
    text = config.file.read_text("utf-8")
    if secrets:
        return text.encode(), []
    there = list(_scalars(yaml.compose(text, yaml.SafeLoader)))
    keys = {path for path, _ in there}
    known: set[Keys] = set()
    for path, one in (found for at, settings in _rooted(config) for found in _leaves_at(settings, at)):
        if isinstance(one, SecretStr):
            known.add(path)
            if path not in keys and path not in doubts.variables(ENV_PREFIX) and not _has_source(path, keys):
                # A bridge may write its settings in a shorter way than it holds them. Then only the text tells.
                known |= {path for path, node in there if node.value == one.get_secret_value()}
    # What is merged in stands at several keys; it is told by the first.
    hidden = {node.start_mark.index: (path, node) for path, node in reversed(there) if path in known}
    for index, (_, node) in sorted(hidden.items(), reverse=True):
        text = text[:index] + PLACEHOLDER + text[node.end_mark.index :]
    left_out = [
        f"{dotted(path)} ({config.file.name}:{node.start_mark.line + 1})" for _, (path, node) in sorted(hidden.items())
    ]
    return text.encode(), left_out


def _has_source(path: Keys, keys: set[Keys]) -> bool:
    """Return whether a secret is read from a file or a variable."""
    return any((*path, source) in keys for source in ("file", "env"))


def _scalars(node: yaml.Node | None, path: Keys = ()) -> Iterator[tuple[Keys, yaml.ScalarNode]]:
    """Yield all values of a document, not its keys, each with where it stands. What is merged in stands here too."""
    if isinstance(node, yaml.ScalarNode):
        yield path, node
    elif isinstance(node, yaml.SequenceNode):
        for number, one in enumerate(node.value):
            yield from _scalars(one, (*path, number))
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.tag != "tag:yaml.org,2002:merge":
                yield from _scalars(value, (*path, str(key.value)))
                continue
            for one in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                yield from _scalars(one, path)


def _leaves(value: Any) -> Iterator[Any]:
    """Yield everything that settings hold, however deep."""
    return (leaf for _, leaf in _leaves_at(value))


def _leaves_at(value: Any, path: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    """Yield everything that settings hold, however deep, each with where it stands."""
    if isinstance(value, BaseModel):
        value = dict(value)
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _leaves_at(one, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for number, one in enumerate(value):
            yield from _leaves_at(one, (*path, number))
    else:
        yield path, value


def _rooted(config: Config) -> list[tuple[Keys, BaseModel]]:
    """Return where settings stand, and what they are."""
    return [((), config.root), *((("bridges", bridge.name), bridge.settings) for bridge in config.bridges)]


def _settings(config: Config) -> list[BaseModel]:
    return [settings for _, settings in _rooted(config)]


def _variables(file: Path) -> set[str]:
    """Return the variables of the environment that a configuration reads."""
    found = set()

    def look(value: Any) -> None:
        if isinstance(value, dict):
            if set(value) == {"env"} and isinstance(value["env"], str):
                found.add(value["env"])
            for one in value.values():
                look(one)
        elif isinstance(value, list):
            for one in value:
                look(one)

    look(yaml.safe_load(file.read_text("utf-8")))
    return found


def _named_files(config: Config) -> list[Path]:
    """Return the files that a configuration names, as they lie on the disk."""
    named = [*config.secret_files, *(one for one in _leaves(_settings(config)) if isinstance(one, Path))]
    named += [config.file.parent / name for name in _SCHEMA.findall(config.file.read_text("utf-8"))]
    return sorted({path.resolve() for path in named if path.is_file()})


def _member(path: Path) -> Member:
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return Member(size, digest.hexdigest())


def _add(archive: tarfile.TarFile, name: str, file: Any, made: datetime) -> None:
    info = tarfile.TarInfo(name)
    info.size = file.seek(0, os.SEEK_END)
    info.mode, info.mtime = 0o600, int(made.timestamp())
    file.seek(0)
    archive.addfile(info, file)


# what comes out


def _unpacked(archive: Path, staging: Path) -> Manifest:
    """Unpack a backup and see that it is whole. Raises BackupError."""
    damaged = f"{archive} is damaged, or no backup of a gateway"
    try:
        with tarfile.open(archive, "r:gz") as tar:
            first = tar.next()
            file = _content(tar, first) if first is not None and first.name == MANIFEST else None
            if file is None:
                raise BackupError(f"{damaged}: it does not begin with a manifest")
            raw = file.read(MAX_MANIFEST)
            _refuse_newer(archive, raw)
            manifest = msgspec.json.decode(raw, type=Manifest)
            missing = dict(manifest.files)
            while (info := tar.next()) is not None:
                member = missing.pop(info.name, None)
                file = _content(tar, info)
                if member is None or file is None or not _is_plain(info.name) or info.size != member.size:
                    raise BackupError(f"{damaged}: {info.name!r} is not what the manifest says")
                staged = staging / info.name
                files.make_directory(staged.parent)
                files.create(staged)
                with staged.open("wb") as out:
                    while chunk := file.read(_CHUNK):
                        out.write(chunk)
                if _member(staged) != member:
                    raise BackupError(f"{damaged}: {info.name} is not what was backed up")
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, *BAD_JSON) as error:
        raise BackupError(f"{damaged} ({error})") from error
    if missing:
        raise BackupError(f"{damaged}: {', '.join(sorted(missing))} missing")
    return manifest


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes] | None:
    """Return what a file of the archive holds; None of a link, which names something else, or a folder."""
    return tar.extractfile(info) if info.isreg() else None


def _refuse_newer(archive: Path, raw: bytes) -> None:
    """Refuse what this version may not understand, before it is read as if it did."""

    class _Head(msgspec.Struct):
        format: int
        version: str
        journal: int

    found = msgspec.json.decode(raw, type=_Head)
    newer = found.format > FORMAT or found.journal > JOURNAL_FORMAT or _parts(found.version) > _parts(__version__)
    if newer:
        raise BackupError(
            f"{archive} was made by sems-gateway {found.version}, and this is {__version__}; install that version "
            "or a newer one"
        )


def _parts(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)[:3]]


def _is_plain(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and path.parts[0] in {"config", "data"}


def _put_in_place(
    manifest: Manifest, staging: Path, file: Path, now: datetime, data_dir: Path | None, *, force: bool
) -> Restored:
    beside = staging / "config"
    mine = beside / manifest.config
    # As the configuration says it, from where that is going to be.
    said = directories.find(mine)
    if said.is_relative_to(beside.resolve()):
        said = file.parent.resolve() / said.relative_to(beside.resolve())
    data_dir = said if data_dir is None else data_dir.resolve()
    there = [
        path
        for path in (file, *(file.parent / one.relative_to(beside) for one in _all_below(beside) if one != mine))
        if path.exists()
    ]
    if there and not force:
        raise BackupError(
            f"{', '.join(map(str, there))} {'is' if len(there) == 1 else 'are'} there already; restore elsewhere, or "
            "overwrite with --force"
        )
    try:
        lock = directories.hold(data_dir)
    except directories.DataDirError as error:
        raise BackupError(str(error)) from None
    try:
        had = [path for path in data_dir.iterdir() if path.name != "lock"]
        aside = None
        if had and not force:
            raise BackupError(f"{data_dir} is not empty; with --force, what it has is moved into a folder in it")
        if had:
            aside = data_dir / f"before-restore-{now:%Y%m%dT%H%M%SZ}-{time.monotonic_ns() % 1000:03}"
            files.make_directory(aside)
            for path in had:
                if not path.name.startswith("before-restore-"):
                    path.rename(aside / path.name)
        # First of all: a crash in the midst leaves a gateway that does nothing by itself.
        halt.write(data_dir / halt.FILE_NAME, _halt(manifest, now))
        for path in _all_below(staging / "data"):
            if path.name != halt.FILE_NAME:
                files.copy(path, data_dir / path.name)
        found = restored.close_promises(data_dir / JOURNAL, now, f"restored from a backup of {iso(manifest.made)}")
        for path in _all_below(beside):
            files.copy(path, file if path == mine else file.parent / path.relative_to(beside))
    finally:
        os.close(lock)
    return Restored(manifest, file, data_dir, said, found.timers, found.commands, aside)


def _halt(manifest: Manifest, now: datetime) -> Halt:
    why = (
        f"restored from a backup of {iso(manifest.made)}: what was promised since then is not known here; see that the "
        "old gateway is off, look at what is set, then resume"
    )
    return Halt(by=str(GATEWAY), reason=why, since=now)


def _all_below(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())
