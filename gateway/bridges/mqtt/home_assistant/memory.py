"""What was published for Home Assistant, kept over restarts, so that it can be taken back."""

from pathlib import Path

import msgspec

from gateway.core.files import replace


class Entry(msgspec.Struct, forbid_unknown_fields=True):
    """One discovery config that the broker holds."""

    topic: str
    """Where it stands."""
    root: str
    """`<base>/<device>`, under which the device's retained topics are; empty for the gateway itself."""
    serial: str
    """Of the device; empty for the gateway itself."""
    entity: str
    """How its default entity ids begin."""
    components: dict[str, str]
    """Component → platform."""


class Memory:
    """A file in `data_dir`. A broken one counts as lost: then leftovers stay until somebody clears them."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.entries: dict[str, Entry] = {}
        """Object id → what was published."""
        self._saved = b"{}"

    def load(self) -> str | None:
        """Read the file; return what is wrong with it, if anything is."""
        try:
            self._saved = self._file.read_bytes()
            self.entries = msgspec.json.decode(self._saved, type=dict[str, Entry])
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            return str(error)
        return None

    def changed(self) -> bytes | None:
        """Return what there is to `write`; None where the file has it already."""
        body = msgspec.json.encode(self.entries)
        return None if body == self._saved else body

    def write(self, body: bytes) -> None:
        """Write and wait for the disk; may run in a thread. Raises OSError."""
        replace(self._file, body)
        self._saved = body
