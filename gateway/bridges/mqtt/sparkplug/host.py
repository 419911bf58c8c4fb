"""The primary host, as its STATE messages say (Sparkplug 3.0 §5.4, §5.5)."""

from typing import Any, Final

import msgspec

STATE_LIMIT: Final = 4_096
"""Bytes of a STATE message."""


class StateError(ValueError):
    """A STATE message that is none of Sparkplug 3.0. The message says what to do."""


class PrimaryHost:
    """Whether the host is online. Kept over connections: its clock goes on while we are away."""

    def __init__(self) -> None:
        self.online = False
        self._last: float | None = None
        """Timestamp of the newest STATE message that counted, milliseconds."""

    def forget(self) -> None:
        """Begin a connection: what the host said over the last one proves nothing."""
        self.online = False

    def receive(self, payload: bytes) -> bool:
        """Take in a STATE message; return whether it counted. Raises StateError."""
        online, timestamp = _read(payload)
        # An older one is ignored [message-flow-edge-node-birth-publish-phid-wait-timestamp].
        if self._last is not None and timestamp < self._last:
            return False
        self._last = timestamp
        self.online = online
        return True


def _read(payload: bytes) -> tuple[bool, float]:
    body: Any = None
    if len(payload) <= STATE_LIMIT:
        try:
            body = msgspec.json.decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            body = None
    online = body.get("online") if isinstance(body, dict) else None
    timestamp = body.get("timestamp") if isinstance(body, dict) else None
    if not isinstance(online, bool) or isinstance(timestamp, bool) or not isinstance(timestamp, (int, float)):
        raise StateError(
            'the primary host\'s STATE is not {"online": true|false, "timestamp": <ms>}; let it speak Sparkplug 3.0'
        )
    return online, timestamp
