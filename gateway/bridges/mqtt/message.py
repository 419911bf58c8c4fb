"""One MQTT message, whichever way it goes."""

import msgspec


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What the bridge keeps of a message."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False
    response_topic: str | None = None
    """MQTT 5: where the sender wants answers."""
    correlation: bytes | None = None
    """MQTT 5: what the answers shall carry."""
    expiry: int | None = None
    """MQTT 5: seconds that are left of what the sender gave it; not executed after that."""
    backlog: bool = False
    """It may have waited at the broker for an unknown time."""
