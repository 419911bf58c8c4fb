"""What was looked at before a gateway runs, or of one that does: how it stands, and what to do about it."""

from enum import StrEnum

import msgspec


class Mark(StrEnum):
    """How something stands."""

    WELL = "✓"
    NOTE = "!"
    """Nothing is broken, but somebody should know."""
    WRONG = "✗"


class Probe(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    mark: Mark
    about: str
    """Stable, for programs: e.g. dns, tls, clock, broker, port."""
    text: str
    remedy: str = ""
    """What to do, e.g. lines for the configuration."""
