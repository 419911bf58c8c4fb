"""What the settings of several bridges say of SEMS: which generation of it, and where its plants stand."""

from enum import StrEnum
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, GetCoreSchemaHandler
from pydantic_core.core_schema import CoreSchema, no_info_after_validator_function, str_schema

from gateway.config.document import nearest
from gateway.core.zones import zone_named
from gateway.sems.catalogue import Catalogue, load, platforms
from gateway.sems.times import AUTO, order_of


class Platform(str):
    """Which generation of the Open API: each is one file in `catalogues/`, which says its name, and how one enters."""

    __slots__ = ()

    @property
    def api(self) -> str:
        """Name of its catalogue."""
        return platforms()[self]

    @property
    def catalogue(self) -> Catalogue:
        """Its interfaces, as they are shipped."""
        return load(self.api)

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        """Take the name of one that there is."""
        return no_info_after_validator_function(cls._known, str_schema())

    @classmethod
    def _known(cls, name: str) -> Self:
        if name not in platforms():
            raise ValueError(f"there is no platform {name!r}; {nearest(name, list(platforms()))}")
        return cls(name)


CLASSIC: Final = Platform("classic")
DEVELOPER: Final = Platform("developer")
CHINA: Final = "https://hz-gateway.sems.com.cn"


class Region(StrEnum):
    """Where the newer gateway stands."""

    EU = "eu"
    AU = "au"
    US = "us"
    HK = "hk"
    CN = "cn"

    @property
    def url(self) -> str:
        """Address of its host (SEMS.md, seen)."""
        return CHINA if self is Region.CN else f"https://{self}-gateway.semsportal.com"


def _exists(name: str) -> str:
    if zone_named(name) is None:
        raise ValueError(f"{name!r} is no time zone; write one like Europe/Berlin, or UTC+10:00")
    return name


def _is_format(text: str) -> str:
    if text != AUTO:
        order_of(text)
    return text


ZoneName = Annotated[str, AfterValidator(_exists)]
"""An IANA time zone that this machine knows, or an offset such as UTC+10:00."""
TIME_ZONE_HELP: Final = "for plants that do not say theirs, e.g. Europe/Berlin; not set, it is found out"
DateFormat = Annotated[str, AfterValidator(_is_format)]
"""How an account writes dates."""
DATE_FORMAT_HELP: Final = "of the account, e.g. dd/MM/yyyy or MM.dd.yyyy; auto: it is found out"
