"""Settings of the `mqtt` bridge."""

import ssl
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    field_validator,
    model_validator,
)

from gateway.api.bridge import BridgeSettings, Claim
from gateway.bridges.mqtt import formats
from gateway.bridges.mqtt.delivery import DeliverySettings, Sending, TopicClass
from gateway.bridges.mqtt.history.settings import StoreSettings
from gateway.bridges.mqtt.home_assistant.settings import (
    HomeAssistantField,
    HomeAssistantSettings,
    TopicName,
    topic_name,
)
from gateway.bridges.mqtt.limits import BROKERS, Limits, LimitSettings
from gateway.bridges.mqtt.sparkplug.settings import SparkplugSettings
from gateway.bridges.mqtt.sparkplug.topics import NAMESPACE
from gateway.bridges.mqtt.topics import TOPIC_LIMIT, RequestName, default_responses
from gateway.config.host import Host
from gateway.config.local_file import ExistingFile
from gateway.config.secret import Secret
from gateway.config.settings import Settings
from gateway.config.tls import client_context


def _as_text(raw: Any) -> Any:
    # `protocol: 5` reaches us as a number.
    return str(raw) if isinstance(raw, int) and not isinstance(raw, bool) else raw


def _known_broker(name: str) -> str:
    if name not in BROKERS:
        near = get_close_matches(name, BROKERS, 1)
        known = ", ".join(sorted(BROKERS))
        raise ValueError(
            f"{name!r} is no broker whose limits are known; "
            f"{f'did you mean {near[0]}?' if near else f'known: {known}.'} For any other, see limits"
        )
    return name


def _topics_below(filter_: str) -> str:
    # `topic_name` refuses `#` alone, and each wildcard but this one.
    topic_name(filter_.removesuffix("/#"))
    return filter_


class TlsSettings(Settings):
    """`tls:`. Without a CA of its own, the machine's trusted ones count."""

    ca: ExistingFile | None = Field(default=None, description="PEM file with the CA of the broker")
    certfile: ExistingFile | None = Field(default=None, description="PEM file with the client certificate")
    keyfile: ExistingFile | None = Field(default=None, description="PEM file with the key of the client certificate")
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
        made = client_context(self.ca, self.certfile, self.keyfile, self.keyfile_password)
        if self.alpn:
            made.set_alpn_protocols(self.alpn)
        return made


class MqttSettings(BridgeSettings):
    """What stands under a bridge of `type: mqtt`."""

    host: Host = Field(min_length=1, description="name or address of the broker")
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
    protocol: Annotated[
        Literal["5", "3.1.1"], BeforeValidator(_as_text, json_schema_input_type=Literal["5", "3.1.1", 5])
    ] = Field(default="5", description="version of MQTT")
    broker: Annotated[str, AfterValidator(_known_broker)] | None = Field(
        default=None, description=f"a broker whose limits are known: {', '.join(sorted(BROKERS))}"
    )
    limits: LimitSettings = Field(
        default=LimitSettings(), description="what the broker takes, as far as it does not say so itself"
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
        default=StoreSettings(), description="keep what could not be published, and publish it later"
    )
    payload: Annotated[str, AfterValidator(formats.known)] = Field(
        default="json", description="json: topics under base; sparkplug: Sparkplug B 3.0; or that of a plug-in"
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
    response_topics: list[Annotated[str, Field(max_length=TOPIC_LIMIT), AfterValidator(_topics_below)]] | None = Field(
        default=None,
        description="where MQTT 5 requesters may have answers: topics, or all below one, like answers/#; "
        "default: <base>/response/#",
    )
    home_assistant: HomeAssistantField = Field(
        default=HomeAssistantSettings(), description="Home Assistant discovery; true turns it on"
    )

    def client_id_for(self, gateway_id: str) -> str:
        """Return the name under which this gateway connects."""
        return self.client_id or f"sems-gateway-{gateway_id}{'-sparkplug' if self.payload == 'sparkplug' else ''}"

    def claims(self, gateway_id: str) -> Iterable[Claim]:
        """See `BridgeSettings.claims`: of two clients with one id a broker throws the first out, again and again."""
        yield Claim("client_id", f"client id {self.client_id_for(gateway_id)} at {self.host.lower()}:{self.port}")

    @property
    def broker_limits(self) -> Limits:
        """What may be sent, before the broker itself has said anything."""
        return self.limits.over(BROKERS[self.broker] if self.broker else Limits())

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
                raise ValueError("session_expiry needs protocol: 5; in 3.1.1 the age of a message is unknown")
            if any(self.sending(what).qos > 1 for what in TopicClass):
                # A new client may not go on with the packet ids of an old session.
                raise ValueError("session_expiry needs QoS 0 or 1; QoS 2 would have to go on where it was cut off")
        return self

    @model_validator(mode="after")
    def _store_can_work(self) -> Self:
        if self.store.enabled:
            if self.payload != formats.OURS:
                raise ValueError(f"store needs payload: json; run a second mqtt bridge for {self.payload}")
            if self.sending(TopicClass.STATE).qos == 0:
                raise ValueError("store needs QoS 1 or 2 for states; with 0 nobody knows what has arrived")
        return self

    @model_validator(mode="after")
    def _topics_do_not_clash(self) -> Self:
        ours = self.home_assistant
        if not ours.enabled:
            return self
        if self.payload != formats.OURS:
            raise ValueError(f"home_assistant needs payload: json; run a second mqtt bridge for {self.payload}")
        if _nested(self.base, ours.prefix):
            raise ValueError(f"base {self.base} and home_assistant.prefix {ours.prefix} must not lie in each other")
        if ours.status_topic == self.base or ours.status_topic.startswith(f"{self.base}/"):
            raise ValueError(f"home_assistant.status_topic {ours.status_topic} must not lie under base {self.base}")
        return self

    @model_validator(mode="after")
    def _answers_clash_with_nothing(self) -> Self:
        # An answer there would be a command, a state or a birth.
        taken = {self.base: "base", NAMESPACE: "Sparkplug's namespace"}
        if self.home_assistant.enabled:
            taken |= {
                self.home_assistant.prefix: "home_assistant.prefix",
                self.home_assistant.status_topic: "home_assistant.status_topic",
            }
        for filter_ in self.response_topics or ():
            topic = filter_.removesuffix("/#")
            if f"{filter_}/".startswith(default_responses(self.base).removesuffix("#")):
                continue
            for other, name in taken.items():
                if _nested(topic, other):
                    raise ValueError(
                        f"response_topics: {filter_} and {name} ({other}) must not lie in each other; "
                        f"under base, answers have their place at {default_responses(self.base)}"
                    )
        return self

    def sending(self, what: TopicClass) -> Sending:
        """Return how a class of topics is published."""
        return self.delivery.sending(what, self.qos, self.retain)


def _nested(one: str, other: str) -> bool:
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")
