"""Settings of the `mqtt` bridge."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FilePath, field_validator, model_validator

from gateway.core.bridge import BridgeSettings
from gateway.core.secret import Secret


def _as_text(raw: Any) -> Any:
    # `protocol: 5` reaches us as a number.
    return str(raw) if isinstance(raw, int) and not isinstance(raw, bool) else raw


class TlsSettings(BaseModel):
    """`tls:`. Without a CA of its own, the machine's trusted ones count."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ca: FilePath | None = Field(default=None, description="PEM file with the CA of the broker")
    certfile: FilePath | None = Field(default=None, description="PEM file with the client certificate")
    keyfile: FilePath | None = Field(default=None, description="PEM file with the key of the client certificate")

    @model_validator(mode="after")
    def _key_has_certificate(self) -> Self:
        if self.keyfile is not None and self.certfile is None:
            raise ValueError("keyfile needs certfile, the certificate it belongs to")
        return self


class MqttSettings(BridgeSettings):
    """What stands under a bridge of `type: mqtt`."""

    host: str = Field(min_length=1, description="name or address of the broker")
    port: int = Field(default=1883, ge=1, le=65535, description="usually 1883, with TLS 8883")
    username: str | None = Field(default=None, description="as the broker knows the gateway")
    password: Secret | None = Field(default=None, description="text, {file: PATH} or {env: NAME}")
    client_id: str | None = Field(
        default=None, min_length=1, max_length=200, description="default: sems-gateway-<gateway.id>"
    )
    base: str = Field(default="sems", description="first level, or levels, of every topic")
    qos: Literal[0, 1, 2] = Field(default=1, description="of states; results always have 1")
    retain: bool = Field(default=True, description="let the broker keep states for later subscribers")
    protocol: Annotated[Literal["5", "3.1.1"], BeforeValidator(_as_text)] = Field(
        default="5", description="version of MQTT"
    )
    keepalive: int = Field(default=60, ge=5, le=65535, description="seconds")
    tls: TlsSettings | None = Field(default=None, description="{} for TLS with the machine's CAs")
    points: bool = Field(default=False, description="also a topic per point")
    ttl: float = Field(default=60, gt=0, le=86_400, description="seconds until an unsent command expires")

    @field_validator("base")
    @classmethod
    def _is_topic(cls, base: str) -> str:
        if not base or base.startswith("/") or base.endswith("/") or "//" in base:
            raise ValueError(f"{base!r} must be one or more levels like sems or home/sems, without / at an end")
        if any(char in base for char in "+#"):
            raise ValueError(f"{base!r} contains a wildcard; leave out + and #")
        if base.startswith("$"):
            raise ValueError(f"{base!r} begins with $, which is for the broker's own topics")
        if not base.isprintable():
            raise ValueError(f"{base!r} contains a control character")
        return base

    @model_validator(mode="after")
    def _password_has_user(self) -> Self:
        if self.password is not None and self.username is None:
            raise ValueError("password needs username")
        return self
