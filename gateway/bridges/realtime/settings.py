"""`type: realtime`, as the configuration has it."""

from typing import Final

from pydantic import Field, ValidationInfo, field_validator, model_validator

from gateway.api.bridge import BridgeSettings
from gateway.config.document import nearest
from gateway.config.host import CloudUrl
from gateway.config.secret import Secret
from gateway.sems.catalogue import Catalogue, Use, load
from gateway.sems.credentials import Credentials
from gateway.sems.overrides import NO_OVERRIDES, OVERRIDES_HELP, CatalogueOverrides, Overrides, checked, overridden
from gateway.sems.platform import (
    DATE_FORMAT_HELP,
    DEVELOPER,
    TIME_ZONE_HELP,
    DateFormat,
    Region,
    ZoneName,
)
from gateway.sems.times import AUTO
from gateway.sems.whitelist import WHITELIST_HELP, Whitelist

API: Final = "realtime"
ACCOUNT_API: Final = DEVELOPER.api
"""Accounts are the newer gateway's: with the same client id, token and calls are shared with a bridge of that."""


class RealtimeSettings(BridgeSettings):
    """`type: realtime`."""

    client_id: str = Field(min_length=1, description="client id of your API account")
    client_secret: Secret = Field(description="its secret; better {file: …} or {env: …}")
    region: Region = Field(default=Region.EU, description="eu, au, us or hk")
    url: CloudUrl | None = Field(default=None, description="the host, where it is not the region's")
    whitelist: Whitelist = Field(description=WHITELIST_HELP)
    types: dict[str, str] = Field(
        default={}, description="serial number -> data type, e.g. inverter; of others the cloud is asked"
    )
    poll_interval: float = Field(default=60, ge=1, le=3600, description="seconds between readings of a device")
    list_interval: float = Field(default=3600, ge=60, description="seconds between looks at the list of devices")
    calls_per_hour: int = Field(
        default_factory=lambda: load(API).calls_per_hour, ge=10, description="what SEMS allows this account"
    )
    parallel: int = Field(default=4, ge=1, le=16, description="calls under way at a time")
    time_zone: ZoneName = Field(default="", description=TIME_ZONE_HELP)
    date_format: DateFormat = Field(default=AUTO, description=DATE_FORMAT_HELP)
    overrides: Overrides = Field(default=NO_OVERRIDES, description=OVERRIDES_HELP)

    @field_validator("overrides")
    @classmethod
    def _fit(cls, overrides: CatalogueOverrides) -> CatalogueOverrides:
        return checked(overrides, API)

    @field_validator("types")
    @classmethod
    def _are_types(cls, types: dict[str, str], _: ValidationInfo) -> dict[str, str]:
        known = [*dict.fromkeys(type_ for interface in load(API).using(Use.LIVE) for type_ in interface.of)]
        for serial, type_ in types.items():
            if type_ not in known:
                raise ValueError(f"{serial}: there is no data type {type_!r}; {nearest(type_, known)}")
        return types

    @model_validator(mode="after")
    def _is_listed(self) -> "RealtimeSettings":
        if self.whitelist.everything and next(self.catalogue.using(Use.DEVICES), None) is None:
            raise ValueError(
                'whitelist "*" needs the interface that lists devices, and overrides take it out; '
                "write the serial numbers, or {file: PATH}"
            )
        return self

    @property
    def host(self) -> str:
        """Where the calls go."""
        return self.region.url if self.url is None else str(self.url)

    @property
    def catalogue(self) -> Catalogue:
        """The interfaces, as the user corrects them."""
        return overridden(load(API), self.overrides)

    @property
    def calls(self) -> int:
        """Calls an hour that SEMS allows."""
        return self.calls_per_hour if "calls_per_hour" in self.model_fields_set else self.catalogue.calls_per_hour

    @property
    def credentials(self) -> Credentials:
        """By what one enters."""
        return Credentials(self.client_id, self.client_secret.get_secret_value())
