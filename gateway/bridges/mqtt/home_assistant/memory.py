"""What was published for Home Assistant, kept over restarts, so that it can be cleared."""

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


def kept_file(path: Path, log: structlog.stdlib.BoundLogger) -> KeptFile[dict[str, Entry]]:
    """Return the file: object id → what was published. What is lost stays until somebody clears it."""
    return KeptFile(
        path,
        dict[str, Entry],
        log,
        unreadable="what was published for Home Assistant is forgotten",
        unwritable="what is published for Home Assistant can't be written down",
    )
