"""How to reach a Kafka cluster, as the configuration of a bridge has it."""

import re
import ssl
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from confluent_kafka import KafkaException
from confluent_kafka import Producer as RawProducer
from pydantic import (
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from gateway.config.local_file import LocalFile, beside
from gateway.config.secret import Secret
from gateway.config.settings import Settings
from gateway.kafka.logger import NO_LOG

Option = str | bool | int | float

OURS: Final = (
    "bootstrap.servers",
    "metadata.broker.list",
    "security.protocol",
    "client.id",
    "acks",
    "request.required.acks",
    "enable.idempotence",
    "transactional.id",
    "message.timeout.ms",
    "delivery.timeout.ms",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.partition.eof",
    "auto.offset.reset",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "partition.assignment.strategy",
    "statistics.interval.ms",
    "log.queue",
    "plugin.library.paths",
)
"""What `options` may not set: the gateway's promises rest on it, or a setting of its own has it."""
OURS_BEGIN: Final = (
    "sasl.",
    "ssl.ca.",
    "ssl.certificate.",
    "ssl.key.",
    "ssl.keystore.",
    "ssl.endpoint.",
    "ssl.engine.",
)
_SERVER: Final = re.compile(r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):\d{1,5}$")


def _listed(raw: Any) -> Any:
    return [part.strip() for part in raw.split(",")] if isinstance(raw, str) else raw


class SaslSettings(Settings):
    """`sasl:`. Without it nobody logs in, but for a client certificate under `tls`."""

    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        default="SCRAM-SHA-512", description="how the password is shown to the broker"
    )
    username: str = Field(min_length=1, description="as the cluster knows the gateway")
    password: Secret = Field(description="text, {file: PATH} or {env: NAME}; a file is read again when it changes")
    _file: Path | None = PrivateAttr(default=None)

    @model_validator(mode="wrap")
    @classmethod
    def _with_its_file(cls, raw: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        made = handler(raw)
        match raw:
            case {"password": {"file": str(path)}}:
                made._file = beside(Path(path), info)  # noqa: SLF001 - our own
        return made

    @property
    def password_file(self) -> Path | None:
        """Where the password stands; None where it can't change."""
        return self._file

    def current_password(self) -> str:
        """Return the password as its file has it now; the first one where that can't be read, or is empty."""
        found = ""
        if self._file is not None:
            with suppress(OSError, UnicodeDecodeError):
                found = self._file.read_text("utf-8").rstrip("\r\n")
        return found or self.password.get_secret_value()


class TlsSettings(Settings):
    """`tls:`. Without a CA of its own, the machine's trusted ones count."""

    ca: LocalFile | None = Field(default=None, description="PEM file with the CA of the brokers")
    certificate: LocalFile | None = Field(default=None, description="PEM file: our own certificate, for mutual TLS")
    key: LocalFile | None = Field(default=None, description="PEM file: the private key of our certificate")
    key_password: Secret | None = Field(default=None, description="of an encrypted key")
    verify_hostname: bool = Field(default=True, description="the broker's certificate must be of the name we call")

    @model_validator(mode="after")
    def _files_are_good(self) -> Self:
        if (self.certificate is None) is not (self.key is None):
            raise ValueError("tls.certificate and tls.key belong together; set both, or neither")
        if self.key_password is not None and self.key is None:
            raise ValueError("tls.key_password needs tls.key")
        self.check()
        return self

    @property
    def files(self) -> tuple[Path, ...]:
        """Those that may be renewed."""
        return tuple(path for path in (self.ca, self.certificate, self.key) if path is not None)

    def check(self) -> None:
        """Raise ValueError where the files, as they are now, can't be used."""
        for name in ("ca", "certificate", "key"):
            _readable(name, getattr(self, name))
        trial = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.ca is not None:
            try:
                trial.load_verify_locations(self.ca)
            except ssl.SSLError:
                raise ValueError(f"tls.ca: {self.ca} holds no certificate in PEM form") from None
        if self.certificate is not None and self.key is not None:
            # Without a password, OpenSSL would ask on the terminal, and wait.
            password = self.key_password.get_secret_value() if self.key_password else ""
            try:
                trial.load_cert_chain(self.certificate, self.key, password=lambda: password)
            except ssl.SSLError as error:
                raise ValueError(
                    f"tls: {self.certificate} and {self.key} can't be used ({error.reason or error}); name a "
                    "certificate with its chain and the key made with it, both in PEM form; key_password if it has one"
                ) from None


class KafkaConnection(Settings):
    """`connection:` of a bridge that speaks Kafka."""

    bootstrap_servers: Annotated[list[str], BeforeValidator(_listed, json_schema_input_type=str | list[str])] = Field(
        min_length=1, description="host:port of some brokers; they name the others"
    )
    sasl: SaslSettings | None = Field(default=None, description="{mechanism, username, password}")
    tls: TlsSettings | None = Field(default=None, description="{} for TLS with the machine's CAs")
    options: dict[str, Option] = Field(
        default={}, description="more settings of librdkafka, e.g. {socket.keepalive.enable: true}"
    )

    @field_validator("bootstrap_servers")
    @classmethod
    def _with_ports(cls, servers: list[str]) -> list[str]:
        for server in servers:
            if not _SERVER.match(server):
                raise ValueError(f"{server!r} is no host:port; write e.g. kafka.example.com:9093")
        return servers

    @field_validator("options")
    @classmethod
    def _known(cls, options: dict[str, Option]) -> dict[str, Option]:
        for name in options:
            if name in OURS or name.startswith(OURS_BEGIN) or name.endswith(("_cb", ".cb")):
                raise ValueError(f"the option {name} is the gateway's own; leave it out, or use the setting for it")
        try:
            # Reaches for nobody, since it has no servers.
            RawProducer({**_plain(options), "logger": NO_LOG}).close()
        except (KafkaException, ValueError, TypeError) as error:
            raise ValueError(f"librdkafka does not take these options: {_said(error)}") from None
        return options

    @property
    def security(self) -> str:
        """Name, as librdkafka has it, of what protects the connection."""
        return ("SASL_" if self.sasl else "") + ("SSL" if self.tls else "PLAINTEXT")

    def config(self, client_id: str) -> dict[str, Any]:
        """Return librdkafka's settings for a client of this cluster. They hold secrets: never log them."""
        made: dict[str, Any] = {
            "bootstrap.servers": ",".join(self.bootstrap_servers),
            "client.id": client_id,
            "security.protocol": self.security,
            "reconnect.backoff.ms": 250,
            "reconnect.backoff.max.ms": 10_000,
            "socket.nagle.disable": True,
            "topic.metadata.refresh.interval.ms": 60_000,
            **_plain(self.options),
        }
        if self.sasl is not None:
            made["sasl.mechanism"] = self.sasl.mechanism
            made["sasl.username"] = self.sasl.username
            made["sasl.password"] = self.sasl.current_password()
        if self.tls is not None:
            made |= _tls(self.tls)
        return made


def _tls(tls: TlsSettings) -> dict[str, Any]:
    made: dict[str, Any] = {"ssl.endpoint.identification.algorithm": "https" if tls.verify_hostname else "none"}
    for name, path in (("ca", tls.ca), ("certificate", tls.certificate), ("key", tls.key)):
        if path is not None:
            made[f"ssl.{name}.location"] = str(path)
    if tls.key_password is not None:
        made["ssl.key.password"] = tls.key_password.get_secret_value()
    return made


def _plain(options: Mapping[str, Option]) -> dict[str, Any]:
    return {name: str(value).lower() if isinstance(value, bool) else value for name, value in options.items()}


def _readable(name: str, path: Path | None) -> None:
    if path is not None:
        try:
            path.read_bytes()
        except OSError as error:
            raise ValueError(
                f"tls.{name}: {path} can't be read ({error.strerror}); name a PEM file we may read"
            ) from None


def _said(error: Exception) -> str:
    inner = error.args[0] if error.args else error
    return inner.str() if hasattr(inner, "str") else str(inner)
