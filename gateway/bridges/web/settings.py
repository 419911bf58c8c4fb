"""`type: web`, as the configuration has it."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Annotated, Final, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from gateway.api.bridge import BridgeSettings, Claim, tcp_ports
from gateway.config.host import Host
from gateway.config.network import Network
from gateway.config.secret import Secret
from gateway.config.settings import Settings
from gateway.core.points import POINTS, Type
from gateway.http.addresses import is_loopback
from gateway.http.settings import HOSTS_HELP, HostName, TlsSettings

MIN_SECRET_CHARS: Final = 16

TokenName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]


class TokenSettings(Settings):
    """One of `tokens:`."""

    token: Secret = Field(description="sent as `Authorization: Bearer …`; 16 random characters at least")
    write: bool = Field(default=False, description="true: may set, cancel, halt and resume")

    @field_validator("token")
    @classmethod
    def _hard_to_guess(cls, token: Secret) -> Secret:
        if len(token.get_secret_value()) < MIN_SECRET_CHARS:
            raise ValueError(f"the token is too short; take {MIN_SECRET_CHARS} random characters at least")
        return token


class WebSettings(BridgeSettings):
    """`type: web`."""

    host: Host = Field(default="127.0.0.1", description="address to listen on; other than loopback needs a token")
    port: int = Field(default=9090, ge=0, le=65535, description="0: any free one, named in the log")
    token: Secret | None = Field(
        default=None, description="asked of readers as `Authorization: Bearer …`; none: on loopback anybody reads"
    )
    tokens: dict[TokenName, TokenSettings] = Field(
        default={}, description="name → {token, write}; commands need one with write: true"
    )
    tls: TlsSettings | None = Field(default=None, description="{certificate, key}; leave out behind a proxy")
    hosts: list[HostName] = Field(default=[], description=HOSTS_HELP)
    trusted_proxies: list[Network] = Field(
        default=[], description="networks of proxies whose X-Forwarded-For is believed"
    )
    ttl: float = Field(default=60, gt=0, le=86_400, description="seconds until an unsent command expires")
    max_connections: int = Field(
        default=200, ge=1, le=100_000, description="connections at a time; further ones are closed at once"
    )
    max_connections_per_address: int = Field(
        default=64, ge=1, le=100_000, description="of one address (an IPv6 /64), unless a trusted proxy's"
    )

    recent: float = Field(
        default=14_400,
        ge=120,
        le=604_800,
        description="seconds that the page's curves go back; 120 values of each device are kept in memory",
    )
    metrics_points: list[str] = Field(
        default=[], description="points that /metrics shows of each device while its data are good; none: no points"
    )

    @property
    def connections(self) -> int:
        """See `BridgeSettings.connections`."""
        return self.max_connections

    def claims(self, gateway_id: str) -> Iterable[Claim]:  # noqa: ARG002
        """See `BridgeSettings.claims`."""
        return tcp_ports(self.host, self.port)

    @property
    def roles(self) -> frozenset[str]:
        """See `BridgeSettings.roles`: the names of tokens."""
        return frozenset(self.tokens)

    @field_validator("metrics_points")
    @classmethod
    def _numbers_that_there_are(cls, names: list[str]) -> list[str]:
        for name in names:
            point = POINTS.get(name)
            if point is None:
                near = get_close_matches(name, POINTS, 1)
                raise ValueError(f"there is no point {name!r}" + (f"; did you mean {near[0]}?" if near else ""))
            if point.type in (Type.TEXT, Type.ENUM):
                raise ValueError(f"{name} is no number, and metrics are; leave it out")
        return list(dict.fromkeys(names))

    @field_validator("token")
    @classmethod
    def _not_empty(cls, token: Secret | None) -> Secret | None:
        if token is not None and not token.get_secret_value():
            raise ValueError("the token is empty; give it 16 random characters, or leave it out")
        return token

    @model_validator(mode="after")
    def _closed_to_strangers(self) -> Self:
        if self.token is None and not self.tokens:
            if not is_loopback(self.host):
                raise ValueError(f"host {self.host} is open to others; set token or tokens, or listen on 127.0.0.1")
            if self.trusted_proxies:
                raise ValueError("through a proxy others can reach it; set token or tokens, or no trusted_proxies")
        return self

    @model_validator(mode="after")
    def _no_token_twice(self) -> Self:
        seen = {self.token.get_secret_value(): "token"} if self.token else {}
        for name, entry in self.tokens.items():
            secret = entry.token.get_secret_value()
            if secret in seen:
                raise ValueError(f"tokens.{name} is the same as {seen[secret]}; give each one of its own")
            seen[secret] = f"tokens.{name}"
        return self
