"""`type: open_api`, as the configuration has it."""

from collections.abc import Mapping
from typing import Any, ClassVar, Final, Self

import msgspec
from pydantic import Field, HttpUrl, ValidationInfo, field_validator, model_validator

from gateway.api.bridge import BridgeSettings
from gateway.config.document import nearest
from gateway.config.host import CloudUrl
from gateway.config.secret import Secret
from gateway.config.short_form import ShortForm
from gateway.sems.calls import MAX_SERIAL
from gateway.sems.catalogue import Catalogue, Use, load, platforms
from gateway.sems.credentials import Credentials
from gateway.sems.overrides import NO_OVERRIDES, OVERRIDES_HELP, CatalogueOverrides, Overrides, checked, overridden
from gateway.sems.plants import PLANT
from gateway.sems.platform import (
    CLASSIC,
    DATE_FORMAT_HELP,
    TIME_ZONE_HELP,
    DateFormat,
    Platform,
    Region,
    ZoneName,
)
from gateway.sems.times import AUTO


class Given(msgspec.Struct, frozen=True):
    """What the configuration says that there is, whatever the lists say."""

    plants: tuple[str, ...] = ()
    devices: Mapping[str, tuple[str, str]] = {}
    """Serial → type and plant; "" where it does not say."""


NOTHING_GIVEN: Final = Given()


class GivenDevice(ShortForm):
    """A line of `devices:`: `9010KETU218W0001`, or `{sn: …, type: …, plant: …}`."""

    SHORT: ClassVar = {"type": "string"}

    sn: str = Field(min_length=1, max_length=MAX_SERIAL, description="serial number")
    type: str = Field(default="", description="type of device, where no list says it, e.g. battery; else inverter")
    plant: str = Field(default="", description="id of the plant it belongs to")

    @model_validator(mode="before")
    @classmethod
    def _may_be_a_number(cls, raw: Any) -> Any:
        return {"sn": raw} if isinstance(raw, str) else raw


class OpenApiSettings(BridgeSettings):
    """`type: open_api`."""

    platform: Platform = Field(default=CLASSIC, description="classic, or developer for the newer gateway")
    account: str = Field(default="", description="classic: SEMS organisation account")
    password: Secret | None = Field(default=None, description="classic: its password; better {file: …} or {env: …}")
    client_id: str = Field(default="", description="developer: client id of your application")
    client_secret: Secret | None = Field(default=None, description="developer: its secret; better {file: …}")
    region: Region = Field(default=Region.EU, description="developer: eu, au, us or hk")
    url: CloudUrl = Field(
        default=HttpUrl(CLASSIC.catalogue.host), description="the host; developer: the region's by itself"
    )
    poll_interval: float = Field(default=60, ge=0.1, le=3600, description="seconds between readings of a device")
    pushed_poll_interval: float = Field(
        default=900, ge=1, le=86400, description="the same for a device that another bridge brings fresh data of"
    )
    discovery_interval: float = Field(default=3600, ge=10, description="seconds between looks for new devices")
    calls_per_hour: int = Field(
        default_factory=lambda: CLASSIC.catalogue.calls_per_hour,
        ge=10,
        description="what SEMS allows this account",
    )
    time_zone: ZoneName = Field(default="", description=TIME_ZONE_HELP)
    date_format: DateFormat = Field(default=AUTO, description=DATE_FORMAT_HELP)
    plants: tuple[str, ...] = Field(
        default=(), description="ids of plants that there are, where SEMS does not list them"
    )
    devices: tuple[GivenDevice, ...] = Field(
        default=(), description="serial numbers, or {sn, type, plant}, of devices that no list has"
    )
    take_dispatch: bool = Field(
        default=False, description="developer: take an EMS over from GoodWe before the first battery command"
    )
    loggers: dict[str, str] = Field(
        default={},
        description="take_dispatch: serial number of an inverter -> that of its data logger, where SEMS does not say",
    )
    read_back: bool = Field(
        default=True, description="once SEMS says that a command is done, read the setpoint back; a call more or two"
    )
    fill_gaps_within: float = Field(
        default=7 * 86_400,
        ge=0,
        le=90 * 86_400,
        description="seconds: what was missed so long ago is read again, where a sink keeps history; 0: nothing is",
    )
    overrides: Overrides = Field(default=NO_OVERRIDES, description=OVERRIDES_HELP)

    @field_validator("devices")
    @classmethod
    def _are_of_known_types(cls, devices: tuple[GivenDevice, ...], info: ValidationInfo) -> tuple[GivenDevice, ...]:
        platform = info.data.get("platform")
        known = [] if platform is None else [
            *dict.fromkeys(type_ for interface in load(platform.api).using(Use.LIVE) for type_ in interface.of
                           if type_ != PLANT)
        ]  # fmt: skip
        for device in devices:
            if known and device.type and device.type not in known:
                raise ValueError(f"{device.sn}: there is no type {device.type!r}; {nearest(device.type, known)}")
        return devices

    @field_validator("overrides")
    @classmethod
    def _fit(cls, overrides: CatalogueOverrides, info: ValidationInfo) -> CatalogueOverrides:
        platform = info.data.get("platform")
        return overrides if platform is None else checked(overrides, platform.api)

    @model_validator(mode="after")
    def _enters(self) -> Self:
        """Require the pair that the platform takes, and no other."""
        catalogue = self.platform.catalogue
        wanted = catalogue.enters
        missing = [name for name in wanted if not getattr(self, name)]
        strange = [
            name for other in platforms().values() for name in load(other).enters
            if name not in wanted and getattr(self, name)
        ]  # fmt: skip
        strange = list(dict.fromkeys(strange))
        if missing:
            instead = f" instead of {' and '.join(strange)}" if strange else ""
            raise ValueError(f"platform {self.platform} is entered by {' and '.join(wanted)}; "
                             f"add {' and '.join(missing)}{instead}")  # fmt: skip
        if strange:
            raise ValueError(f"platform {self.platform} takes no {' and no '.join(strange)}; take it out")
        if catalogue.host and "region" in self.model_fields_set:
            raise ValueError(f"platform {self.platform} has no region; set url to your region's host")
        if self.take_dispatch and next(catalogue.using(Use.DISPATCH), None) is None:
            raise ValueError("take_dispatch is for platform developer; take it out")
        return self

    @property
    def given(self) -> Given:
        """What there is, whatever the lists say."""
        return Given(self.plants, {device.sn: (device.type, device.plant) for device in self.devices})

    @property
    def host(self) -> str:
        """Where the calls go."""
        if "url" in self.model_fields_set:
            return str(self.url)
        own = self.platform.catalogue.host
        return str(HttpUrl(own)) if own else self.region.url

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
        name, secret = (getattr(self, field) for field in self.platform.catalogue.enters)
        return Credentials(name, secret.get_secret_value())
