"""What a listener counts."""

from enum import StrEnum
from typing import Final

import msgspec

from gateway.http.acceptor import Full


class Refused(StrEnum):
    """Why a connection was closed at once: the setting that says so."""

    LIMIT = "max_connections"
    HOST = "max_connections_per_host"
    DESCRIPTORS = "descriptors"
    """No setting: what the system lets us open."""
    ALLOW = "allow"
    TLS = "tls"


FULL: Final = {Full.TOTAL: Refused.LIMIT, Full.ADDRESS: Refused.HOST, Full.DESCRIPTORS: Refused.DESCRIPTORS}


class Counts(msgspec.Struct):
    """What it has done since it was started."""

    messages: int = 0
    """Requests answered, exceptions among them."""
    exceptions: int = 0
    refused: dict[Refused, int] = msgspec.field(default_factory=lambda: dict.fromkeys(Refused, 0))
    """Connections closed at once."""
    displaced: dict[Refused, int] = msgspec.field(default_factory=lambda: dict.fromkeys(FULL.values(), 0))
    """Connections closed for a newer one, by what there was no room for both by."""

    @property
    def refused_connections(self) -> int:
        """Those of all reasons."""
        return sum(self.refused.values())
