"""What a transport's settings say of what comes over it."""

from collections.abc import Sequence
from typing import Protocol

from gateway.sems.catalogue import Catalogue


class IntakeSettings(Protocol):
    """A part of the settings of a bridge that is sent data."""

    @property
    def interval(self) -> float:
        """Seconds that usually lie between two messages about the same."""
        ...

    @property
    def devices(self) -> Sequence[str]:
        """Serial numbers, or patterns, that are taken."""
        ...

    @property
    def time_zone(self) -> str:
        """For plants that do not say theirs; empty where it is found out."""
        ...

    @property
    def date_format(self) -> str:
        """How dates are written, or `auto`."""
        ...

    @property
    def catalogue(self) -> Catalogue:
        """Interfaces whose answers are sent."""
        ...
