"""`type: open_api`, as the configuration has it."""

from typing import Final, Self

from pydantic import Field, HttpUrl, ValidationInfo, field_validator, model_validator

from gateway.core.bridge import BridgeSettings
from gateway.core.secret import Secret
from gateway.sems.catalogue import Catalogue, load
from gateway.sems.overrides import NO_OVERRIDES, OVERRIDES_HELP, CatalogueOverrides, Overrides, checked, overridden
from gateway.sems.platform import Platform, Region, ZoneName
from gateway.sems.session import Credentials

CLASSIC_URL: Final = "https://openapi.semsportal.com"


PAIRS: Final = {Platform.CLASSIC: ("account", "password"), Platform.DEVELOPER: ("client_id", "client_secret")}
"""By what one enters each platform."""


class OpenApiSettings(BridgeSettings):
    """`type: open_api`."""

    platform: Platform = Field(default=Platform.CLASSIC, description="classic, or developer for the newer gateway")
    account: str = Field(default="", description="classic: SEMS organisation account")
    password: Secret | None = Field(default=None, description="classic: its password; better {file: …} or {env: …}")
    client_id: str = Field(default="", description="developer: client id of your application")
    client_secret: Secret | None = Field(default=None, description="developer: its secret; better {file: …}")
    region: Region = Field(default=Region.EU, description="developer: eu, au, us or hk")
    url: HttpUrl = Field(default=HttpUrl(CLASSIC_URL), description="the host; developer: the region's by itself")
    poll_interval: float = Field(default=60, ge=0.1, le=3600, description="seconds between readings of a device")
    pushed_poll_interval: float = Field(
        default=900, ge=1, le=86400, description="the same for a device that another bridge brings fresh data of"
    )
    discovery_interval: float = Field(default=3600, ge=10, description="seconds between looks for new devices")
    calls_per_hour: int = Field(
        default_factory=lambda: load(Platform.CLASSIC.api).calls_per_hour,
        ge=10,
        description="what SEMS allows this account",
    )
    time_zone: ZoneName = Field(default="UTC", description="for plants that do not say theirs, e.g. Europe/Berlin")
    take_dispatch: bool = Field(
        default=False, description="developer: take an EMS over from GoodWe before the first battery command"
    )
    read_back: bool = Field(
        default=True, description="once SEMS says that a command is done, read the setpoint back; a call more or two"
    )
    overrides: Overrides = Field(default=NO_OVERRIDES, description=OVERRIDES_HELP)

    @field_validator("url")
    @classmethod
    def _tells_no_secret(cls, url: HttpUrl) -> HttpUrl:
        if url.username is not None or url.password is not None:
            raise ValueError("the url has a user or a password in it, and is told in the log; take them out")
        return url

    @field_validator("overrides")
    @classmethod
    def _fit(cls, overrides: CatalogueOverrides, info: ValidationInfo) -> CatalogueOverrides:
        platform = info.data.get("platform")
        return overrides if platform is None else checked(overrides, platform.api)

    @model_validator(mode="after")
    def _enters(self) -> Self:
        """Require the pair that the platform takes, and no other."""
        wanted = PAIRS[self.platform]
        missing = [name for name in wanted if not getattr(self, name)]
        strange = [
            name for platform, names in PAIRS.items() if platform is not self.platform for name in names
            if getattr(self, name)
        ]  # fmt: skip
        if missing:
            instead = f" instead of {' and '.join(strange)}" if strange else ""
            raise ValueError(f"platform {self.platform} is entered by {' and '.join(wanted)}; "
                             f"add {' and '.join(missing)}{instead}")  # fmt: skip
        if strange:
            raise ValueError(f"platform {self.platform} takes no {' and no '.join(strange)}; take it out")
        if self.platform is Platform.CLASSIC and "region" in self.model_fields_set:
            raise ValueError("platform classic has no region; set url to your region's host")
        if self.platform is Platform.CLASSIC and self.take_dispatch:
            raise ValueError("take_dispatch is for platform developer; take it out")
        return self

    @property
    def host(self) -> str:
        """Where the calls go."""
        if self.platform is Platform.DEVELOPER and "url" not in self.model_fields_set:
            return self.region.url
        return str(self.url)

    @property
    def catalogue(self) -> Catalogue:
        """The platform's interfaces, as the user corrects them."""
        return overridden(load(self.platform.api), self.overrides)

    @property
    def calls(self) -> int:
        """Calls an hour that SEMS allows."""
        return self.calls_per_hour if "calls_per_hour" in self.model_fields_set else self.catalogue.calls_per_hour

    @property
    def credentials(self) -> Credentials:
        """By what one enters."""
        name, secret = (getattr(self, field) for field in PAIRS[self.platform])
        return Credentials(name, secret.get_secret_value())
