"""`type: local`."""

from typing import Final

from pydantic import Field

from gateway.api.bridge import BridgeSettings

DEFAULT_TTL: Final = 60.0
MAX_CONNECTIONS: Final = 128
"""Commands at a time; above it one makes room for the newest, so that a halt always gets in."""


class LocalSettings(BridgeSettings):
    """`type: local`. Every gateway has one already, named `cli`."""

    ttl: float = Field(default=DEFAULT_TTL, gt=0, description="seconds until an unsent command expires")

    @property
    def connections(self) -> int:
        """See `BridgeSettings.connections`."""
        return MAX_CONNECTIONS
