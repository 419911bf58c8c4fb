"""Settings of the `mqtt` bridge."""

import ssl
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FilePath, field_validator, model_validator

from gateway.bridges.mqtt.delivery import DeliverySettings, Sending, TopicClass
from gateway.bridges.mqtt.history.settings import StoreSettings
from gateway.bridges.mqtt.home_assistant.settings import HomeAssistantField, HomeAssistantSettings, TopicName
from gateway.bridges.mqtt.sparkplug.settings import SparkplugSettings
from gateway.bridges.mqtt.topics import RequestName
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
    keyfile_password: Secret | None = Field(default=None, description="of an encrypted key")
    alpn: list[Annotated[str, Field(min_length=1, max_length=255)]] = Field(
        default=[], description="protocols to offer, e.g. [mqtt]; some brokers serve MQTT on port 443 by it"
    )

    @model_validator(mode="after")
    def _key_has_certificate(self) -> Self:
        if self.keyfile is not None and self.certfile is None:
            raise ValueError("keyfile needs certfile, the certificate it belongs to")
        if self.keyfile_password is not None and self.keyfile is None and self.certfile is None:
            raise ValueError("keyfile_password needs keyfile")
        return self

    @model_validator(mode="after")
    def _files_fit(self) -> Self:
        try:
            self.context()
        except ssl.SSLError as error:
            raise ValueError(
                f"these files can't be used ({error.reason or error}); name a CA and a certificate in PEM form, "
                "the key that the certificate was made with, and keyfile_password if the key is encrypted"
            ) from None
        return self

    def context(self) -> ssl.SSLContext:
        """Return what a connection needs: TLS 1.2 at least, and a broker whose certificate is good and has its name.

        Raises ssl.SSLError or OSError where the files are not good any more.
        """
        made = ssl.create_default_context(cafile=self.ca)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.certfile is not None:
            secret = self.keyfile_password
            # Without this, OpenSSL asks for a password at the terminal.
            made.load_cert_chain(self.certfile, self.keyfile, secret.get_secret_value() if secret else lambda: b"")
        if self.alpn:
            made.set_alpn_protocols(self.alpn)
        return made


class MqttSettings(BridgeSettings):
    """What stands under a bridge of `type: mqtt`."""

    host: str = Field(min_length=1, description="name or address of the broker")
    port: int = Field(default=1883, ge=1, le=65535, description="usually 1883, with TLS 8883")
    username: str | None = Field(default=None, description="as the broker knows the gateway")
    password: Secret | None = Field(default=None, description="text, {file: PATH} or {env: NAME}")
    client_id: str | None = Field(
        default=None, min_length=1, max_length=200, description="default: sems-gateway-<gateway.id>"
    )
    base: TopicName = Field(default="sems", description="first level, or levels, of every topic")
    qos: Literal[0, 1, 2] = Field(default=1, description="where delivery says nothing else; results have 1")
    retain: bool = Field(default=True, description="let the broker keep states for later subscribers")
    delivery: DeliverySettings = Field(
        default=DeliverySettings(), description="QoS and retain flag of each class of topics"
    )
    protocol: Annotated[Literal["5", "3.1.1"], BeforeValidator(_as_text)] = Field(
        default="5", description="version of MQTT"
    )
    keepalive: int = Field(default=60, ge=5, le=65535, description="seconds")
    session_expiry: int = Field(
        default=0, ge=0, le=7 * 86_400, description="seconds for which the broker keeps sets for an absent gateway"
    )
    transport: Literal["tcp", "websockets"] = Field(default="tcp", description="tcp or websockets")
    path: str = Field(default="/mqtt", pattern=r"^/[\x21-\x7e]*$", description="of the WebSocket")
    headers: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")], Secret] = Field(
        default={}, description="more HTTP headers to open the WebSocket with"
    )
    tls: TlsSettings | None = Field(default=None, description="{} for TLS with the machine's CAs")
    points: bool = Field(default=False, description="also a topic per point")
    store: StoreSettings = Field(
        default=StoreSettings(), description="keep what the broker could not be told, and tell it later"
    )
    payload: Literal["json", "sparkplug"] = Field(
        default="json", description="json: topics under base; sparkplug: Sparkplug B 3.0"
    )
    sparkplug: SparkplugSettings = Field(
        default=SparkplugSettings(), description="who we are in Sparkplug, with payload: sparkplug"
    )
    ttl: float = Field(default=60, gt=0, le=86_400, description="seconds until an unsent command expires")
    requests: list[RequestName] = Field(
        default=[RequestName.DEVICES, RequestName.HEALTH, RequestName.HALT, RequestName.RESUME],
        description="what may be asked for at <base>/bridge/request/…; also restart, log_level",
    )
    users: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9._@-]{1,64}$")]] = Field(
        default=[], description="users with topics of their own, <base>/as/<user>/…, that the broker keeps for them"
    )
    home_assistant: HomeAssistantField = Field(
        default=HomeAssistantSettings(), description="Home Assistant discovery; true turns it on"
    )

    @property
    def roles(self) -> frozenset[str]:
        """See `BridgeSettings.roles`."""
        return frozenset(self.users)

    @model_validator(mode="after")
    def _password_has_user(self) -> Self:
        if self.password is not None and self.username is None:
            raise ValueError("password needs username")
        return self

    @field_validator("headers")
    @classmethod
    def _headers_are_lines(cls, headers: dict[str, Secret]) -> dict[str, Secret]:
        for name, value in headers.items():
            if not value.get_secret_value().isprintable():
                raise ValueError(f"the header {name} contains a control character")
        return headers

    @model_validator(mode="after")
    def _options_have_a_use(self) -> Self:
        if self.transport != "websockets" and {"path", "headers"} & self.model_fields_set:
            raise ValueError("path and headers need transport: websockets")
        if self.users and self.payload == "sparkplug":
            raise ValueError("users need payload: json; Sparkplug's topics name no user")
        if self.session_expiry:
            if self.payload == "sparkplug":
                raise ValueError(
                    "session_expiry must be 0 with payload: sparkplug, whose sessions end with the connection"
                )
            if self.protocol != "5":
                raise ValueError("session_expiry needs protocol: 5; in 3.1.1 nobody can tell how old a message is")
            if any(self.sending(what).qos > 1 for what in TopicClass):
                # A new client may not go on with the packet ids of an old session.
                raise ValueError("session_expiry needs QoS 0 or 1; QoS 2 would have to go on where it was cut off")
        return self

    @model_validator(mode="after")
    def _store_can_work(self) -> Self:
        if self.store.enabled:
            if self.payload == "sparkplug":
                raise ValueError("store needs payload: json; run a second mqtt bridge for Sparkplug")
            if self.sending(TopicClass.STATE).qos == 0:
                raise ValueError("store needs QoS 1 or 2 for states; with 0 nobody knows what has arrived")
        return self

    @model_validator(mode="after")
    def _topics_do_not_clash(self) -> Self:
        ours = self.home_assistant
        if not ours.enabled:
            return self
        if self.payload == "sparkplug":
            raise ValueError("home_assistant needs payload: json; run a second mqtt bridge for Sparkplug")
        if _nested(self.base, ours.prefix):
            raise ValueError(f"base {self.base} and home_assistant.prefix {ours.prefix} must not lie in each other")
        if ours.status_topic == self.base or ours.status_topic.startswith(f"{self.base}/"):
            raise ValueError(f"home_assistant.status_topic {ours.status_topic} must not lie under base {self.base}")
        return self

    def sending(self, what: TopicClass) -> Sending:
        """Return how a class of topics is published."""
        return self.delivery.sending(what, self.qos, self.retain)


def _nested(one: str, other: str) -> bool:
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")
