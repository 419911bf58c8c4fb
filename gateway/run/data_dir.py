"""The gateway's own directory: where it is, who holds it, and that nobody else reads it.

What talks to a running gateway needs nothing but this directory, so it is found out of a configuration that is wrong
everywhere else: a halt must not fail because a password is not set in that shell.
"""

import errno
import fcntl
import os
from pathlib import Path
from typing import Any, Final

import structlog
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from gateway.config.document import ConfigError, Problem, text_of
from gateway.core import files
from gateway.core.good_once import FILE as DEVICES_FILE
from gateway.run.environment import ENV_PREFIX, from_environment
from gateway.run.own_settings import GatewaySettings
from gateway.run.upgrade import FILE as VERSION_FILE

LEFT_BY_A_START: Final = (f"{VERSION_FILE}*", f"{DEVICES_FILE}*", "*-units.given")
"""Files that no command leaves, only a gateway that ran here: it had a journal then."""
OPTION: Final = "--data-dir DIR"
_ELSE: Final = f"or say {OPTION}, which needs no configuration"

log = structlog.get_logger("gateway")


class DataDirError(Exception):
    """`data_dir` can't be used. The message says what to do."""


class HeldError(DataDirError):
    """Another process holds it: a gateway, or a `history`."""


class _Gateway(BaseModel):
    model_config = ConfigDict(extra="ignore")

    data_dir: Path = GatewaySettings.model_fields["data_dir"].default


class _Only(BaseModel):
    """Of the settings tree, what is needed here."""

    gateway: _Gateway = _Gateway()


def find(file: Path) -> Path:
    """Return `gateway.data_dir` of a configuration, whatever else is wrong in it. Raises ConfigError."""
    try:
        said = _value(file, "gateway", "data_dir")
        over = from_environment(_Only).get("gateway", {})
        found = _Gateway.model_validate(({} if said is None else {"data_dir": said}) | over)
    except ValidationError:
        raise ConfigError(file, [Problem(0, "gateway.data_dir", f"name a directory, {_ELSE}")]) from None
    except ValueError as error:
        raise ConfigError(file, [Problem(0, f"{ENV_PREFIX}GATEWAY", f"{error}; {_ELSE}")]) from None
    return (file.parent / found.data_dir).resolve()


def may_resume(file: Path) -> list[str] | None:
    """Return `control.resume` of a configuration, whatever else is wrong in it; None where it does not say.

    Raises ConfigError.
    """
    found = _value(file, "control", "resume")
    if found is not None and not (isinstance(found, list) and all(isinstance(one, str) for one in found)):
        raise ConfigError(file, [Problem(0, "control.resume", "write a list of bridges, e.g. [cli]")])
    return found


def _value(file: Path, section: str, key: str) -> Any:
    """Return one value of a file; None where it has none. Only what is above it is looked at."""
    loader = None
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text_of(file, _ELSE))
        node = loader.get_single_node()
        for name in (section, key):
            if node is None or (isinstance(node, yaml.ScalarNode) and not node.value):
                return None
            if not isinstance(node, yaml.MappingNode):
                raise ConfigError(file, [Problem(node.start_mark.line + 1, "", f"write `key: value` lines, {_ELSE}")])
            loader.flatten_mapping(node)
            node = next((value for its, value in reversed(node.value) if its.value == name), None)
        return None if node is None else loader.construct_document(node)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        said = getattr(error, "problem", None) or type(error).__name__
        raise ConfigError(
            file, [Problem(mark.line + 1 if mark else 0, "", f"this is no YAML: {said}; mend it, {_ELSE}")]
        ) from None
    finally:
        if loader is not None:
            loader.dispose()


def hold(data_dir: Path) -> int:
    """Make `data_dir` ours alone: two gateways on one journal would execute every command twice.

    Returns what to close to let go of it. Raises DataDirError.
    """
    try:
        files.make_directory(data_dir)
        descriptor = _open_lock(data_dir / "lock")
    except OSError as error:
        raise DataDirError(
            f"gateway.data_dir {data_dir} can't be used ({error.strerror}: {error.filename}); have all in it be the "
            f"gateway's own (chown), or name another"
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise HeldError(
            f"another process holds {data_dir / 'lock'}: a gateway that runs with this gateway.data_dir, or a "
            "`history`; stop it, or give this one a directory of its own"
        ) from None
    return descriptor


def _open_lock(lock: Path) -> int:
    try:
        return files.open_own(lock, os.O_RDWR)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        # A card that has died can still be read: data go on, and reverts.
        return os.open(lock if lock.exists() else lock.parent, os.O_RDONLY | os.O_CLOEXEC)


def close_to_others(data_dir: Path, config: Path) -> None:
    """Take from others what an older gateway let them read. Said once in the log."""
    if config.resolve().is_relative_to(data_dir):
        log.warning("gateway.data_dir has the configuration in it; give the gateway a directory of its own")
        return
    changed = files.tighten(data_dir)
    if changed:
        log.info(
            "files of data_dir could be read by others, and can't any more",
            files=sorted(str(path.relative_to(data_dir)) for path in changed),
        )
