"""What the settings of several bridges say of SEMS: which generation of it, and where its plants stand."""

from enum import StrEnum
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator


class Platform(StrEnum):
    """Which generation of the Open API."""

    CLASSIC = "classic"
    DEVELOPER = "developer"

    @property
    def api(self) -> str:
        """Name of its catalogue."""
        return "open_api" if self is Platform.CLASSIC else "developer"


class Region(StrEnum):
    """Where the newer gateway stands."""

    EU = "eu"
    AU = "au"
    US = "us"
    HK = "hk"

    @property
    def url(self) -> str:
        """Address of its host (SEMS.md, seen)."""
        return f"https://{self}-gateway.semsportal.com"


def _exists(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name!r} is no time zone; write one like Europe/Berlin") from None
    return name


ZoneName = Annotated[str, AfterValidator(_exists)]
"""An IANA time zone that this machine knows."""
