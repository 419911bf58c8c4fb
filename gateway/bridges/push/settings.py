"""`type: push`, as the configuration has it."""

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, Final, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from gateway.core.bridge import BridgeSettings
from gateway.core.secret import Secret
from gateway.http_server import is_loopback
from gateway.http_settings import TlsSettings
from gateway.sems.catalogue import Catalogue, load
from gateway.sems.overrides import NO_OVERRIDES, OVERRIDES_HELP, CatalogueOverrides, Overrides, checked, overridden
from gateway.sems.platform import Platform, ZoneName

SECRET_LEAST: Final = 16


def _network(raw: Any) -> Any:
    try:
        return ip_network(raw)
    except (ValueError, TypeError):
        raise ValueError("this is no network; write e.g. 203.0.113.0/24, or 203.0.113.7 for one machine") from None


Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]


class PushSettings(BridgeSettings):
    """`type: push`."""

    host: str = Field(default="127.0.0.1", description="address to listen on; other than loopback needs a secret")
    port: int = Field(default=8090, ge=0, le=65535, description="0: any free one, named in the log")
    path: str = Field(
        default="/push", pattern=r"^(/[A-Za-z0-9._~-]+)+$", description="where pushes are taken; the secret may follow"
    )
    secret: Secret | None = Field(default=None, description="last part of the address GoodWe is given, or the header")
    header: str = Field(
        default="X-Push-Secret", pattern=r"^[A-Za-z0-9-]+$", description="header that may hold the secret instead"
    )
    tls: TlsSettings | None = Field(default=None, description="{certificate, key}; leave out behind a proxy")
    trusted_proxies: list[Network] = Field(
        default=[], description="networks of proxies whose X-Forwarded-For is believed"
    )
    networks: list[Network] = Field(default=[], description="networks that may push; none: all")
    max_connections: int = Field(default=1000, ge=1, le=100_000, description="connections at a time")
    max_bytes: int = Field(
        default=1024 * 1024, ge=1024, le=64 * 1024 * 1024, description="of a body, as sent and when unpacked"
    )
    platform: Platform = Field(default=Platform.CLASSIC, description="which API's bodies are pushed")
    overrides: Overrides = Field(default=NO_OVERRIDES, description=OVERRIDES_HELP)
    devices: list[str] = Field(default=["*"], description="serial numbers, or patterns, that are taken")
    time_zone: ZoneName = Field(default="UTC", description="for plants that do not say theirs, e.g. Europe/Berlin")
    interval: float = Field(default=300, ge=1, le=86_400, description="seconds that usually lie between two pushes")
    timeout: float = Field(default=10, gt=0, le=300, description="seconds to wait until histories have stored a push")

    @field_validator("secret")
    @classmethod
    def _hard_to_guess(cls, secret: Secret | None) -> Secret | None:
        if secret is not None and len(secret.get_secret_value()) < SECRET_LEAST:
            raise ValueError(f"the secret is too short; take {SECRET_LEAST} random characters at least")
        return secret

    @field_validator("overrides")
    @classmethod
    def _fit(cls, overrides: CatalogueOverrides, info: ValidationInfo) -> CatalogueOverrides:
        platform = info.data.get("platform")
        return overrides if platform is None else checked(overrides, platform.api)

    @model_validator(mode="after")
    def _closed_to_strangers(self) -> Self:
        if self.secret is None and not is_loopback(self.host):
            raise ValueError(f"host {self.host} is open to others; set secret, or listen on 127.0.0.1")
        if self.secret is None and self.trusted_proxies:
            raise ValueError("through a proxy others can reach it; set secret, or leave trusted_proxies out")
        return self

    @property
    def catalogue(self) -> Catalogue:
        """Interfaces as the user's GoodWe has them."""
        return overridden(load(self.platform.api), self.overrides)
