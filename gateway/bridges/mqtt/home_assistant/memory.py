"""What was published for Home Assistant, kept over restarts, so that it can be cleared."""

from collections.abc import Mapping
from pathlib import Path

import msgspec
import structlog

from gateway.core.kept_file import KeptFile


class Entry(msgspec.Struct, gc=False):
    """One discovery config that the broker holds."""

    topic: str
    """Where it stands."""
    root: str
    """`<base>/<device>`; empty for the gateway itself."""
    serial: str
    """Of the device; empty for the gateway itself."""
    entity: str
    """How its default entity ids begin."""
    components: dict[str, str]
    """Component → platform."""


class KeptEntry(msgspec.Struct, gc=False):
    """The same in the file, which is written whole for each device that is found: components are most of it."""

    topic: str
    root: str
    serial: str
    entity: str
    components: dict[str, str] | str
    """Or the object id of an entry that has the same; so it is for all but one of a kind."""


def kept_file(path: Path, log: structlog.stdlib.BoundLogger) -> KeptFile[dict[str, KeptEntry]]:
    """Return the file: object id → what was published. What is lost stays until somebody clears it."""
    return KeptFile(
        path,
        dict[str, KeptEntry],
        log,
        unreadable="what was published for Home Assistant is forgotten",
        unwritable="what is published for Home Assistant can't be written down",
    )


def as_kept(entry: Entry, alike: str | None) -> KeptEntry:
    """Return an entry as it is written; `alike` is the object id of another one with the same components."""
    components = entry.components if alike is None else alike
    return KeptEntry(entry.topic, entry.root, entry.serial, entry.entity, components)


def restored(kept: Mapping[str, KeptEntry]) -> dict[str, Entry]:
    """Return what was written; without components where the entry that has them is not there."""
    return {
        object_id: Entry(one.topic, one.root, one.serial, one.entity, _components(kept, one))
        for object_id, one in kept.items()
    }


def _components(kept: Mapping[str, KeptEntry], one: KeptEntry) -> dict[str, str]:
    if isinstance(one.components, dict):
        return one.components
    other = kept.get(one.components)
    return other.components if other is not None and isinstance(other.components, dict) else {}
