"""`type: push`, as the configuration has it."""

from collections.abc import Iterable
from typing import Final

from pydantic import Field, ValidationInfo, field_validator

from gateway.api.bridge import BridgeSettings, Claim, tcp_ports
from gateway.config.host import Host
from gateway.config.network import Network
from gateway.config.secret import Secret
from gateway.http.settings import HOSTS_HELP, HostName, TlsSettings
from gateway.sems.catalogue import Catalogue, load
from gateway.sems.overrides import NO_OVERRIDES, OVERRIDES_HELP, CatalogueOverrides, Overrides, checked, overridden
from gateway.sems.platform import (
    CLASSIC,
    DATE_FORMAT_HELP,
    TIME_ZONE_HELP,
    DateFormat,
    Platform,
    ZoneName,
)
from gateway.sems.times import AUTO

MIN_SECRET_CHARS: Final = 16


class PushSettings(BridgeSettings):
    """`type: push`."""

    host: Host = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8090, ge=0, le=65535, description="0: any free one, named in the log")
    path: str = Field(
        default="/push", pattern=r"^(/[A-Za-z0-9._~-]+)+$", description="where pushes are taken; the secret may follow"
    )
    secret: Secret = Field(
        description="last part of the address GoodWe is given, or the header; make one with `openssl rand -hex 24`"
    )
    header: str = Field(
        default="X-Push-Secret", pattern=r"^[A-Za-z0-9-]+$", description="header that may hold the secret instead"
    )
    tls: TlsSettings | None = Field(default=None, description="{certificate, key}; leave out behind a proxy")
    hosts: list[HostName] = Field(default=[], description=HOSTS_HELP)
    trusted_proxies: list[Network] = Field(
        default=[], description="networks of proxies whose X-Forwarded-For is believed"
    )
    networks: list[Network] = Field(default=[], description="networks that may push; none: all")
    max_connections: int = Field(
        default=1000, ge=1, le=100_000, description="connections at a time; further ones are closed at once"
    )
    max_connections_per_address: int = Field(
        default=400, ge=1, le=100_000, description="of one address (an IPv6 /64), unless a trusted proxy's"
    )
    max_bytes: int = Field(
        default=1024 * 1024, ge=1024, le=64 * 1024 * 1024, description="of a body, as sent and when unpacked"
    )
    platform: Platform = Field(default=CLASSIC, description="which API's bodies are pushed")
    overrides: Overrides = Field(default=NO_OVERRIDES, description=OVERRIDES_HELP)
    devices: list[str] = Field(default=["*"], description="serial numbers, or patterns, that are taken")
    announce: bool = Field(
        default=False, description="true: take devices that neither another bridge nor `devices` knows by name"
    )
    announce_most: int = Field(default=100, ge=1, le=20_000, description="such devices a day (UTC)")
    time_zone: ZoneName = Field(default="", description=TIME_ZONE_HELP)
    date_format: DateFormat = Field(default=AUTO, description=DATE_FORMAT_HELP)
    interval: float = Field(default=300, ge=1, le=86_400, description="seconds that usually lie between two pushes")
    timeout: float = Field(default=10, gt=0, le=300, description="seconds to wait until histories have stored a push")

    @field_validator("secret")
    @classmethod
    def _hard_to_guess(cls, secret: Secret) -> Secret:
        if len(secret.get_secret_value()) < MIN_SECRET_CHARS:
            raise ValueError(f"the secret is too short; take {MIN_SECRET_CHARS} random characters at least")
        return secret

    @field_validator("overrides")
    @classmethod
    def _fit(cls, overrides: CatalogueOverrides, info: ValidationInfo) -> CatalogueOverrides:
        platform = info.data.get("platform")
        return overrides if platform is None else checked(overrides, platform.api)

    @property
    def connections(self) -> int:
        """See `BridgeSettings.connections`."""
        return self.max_connections

    def claims(self, gateway_id: str) -> Iterable[Claim]:  # noqa: ARG002
        """See `BridgeSettings.claims`."""
        return tcp_ports(self.host, self.port)

    @property
    def catalogue(self) -> Catalogue:
        """Interfaces as the user's GoodWe has them."""
        return overridden(load(self.platform.api), self.overrides)
