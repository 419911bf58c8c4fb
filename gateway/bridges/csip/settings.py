"""`type: csip`, as the configuration has it."""

import ssl
from collections.abc import Mapping
from typing import Annotated, Final, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from gateway.api.bridge import BridgeSettings
from gateway.bridges.csip.resources import MODES, Unit
from gateway.config.local_file import ExistingFile
from gateway.config.secret import Secret
from gateway.config.settings import Settings
from gateway.config.tls import client_context
from gateway.core.points import SETPOINTS

SerialName = Annotated[str, Field(min_length=1, max_length=64)]
DEFAULT_PATH: Final = "/dcap"


class TlsSettings(Settings):
    """`tls:`. 2030.5 knows no connection without it."""

    certificate: ExistingFile = Field(description="PEM file: the client certificate; LFDI and SFDI are made of it")
    key: ExistingFile = Field(description="PEM file: its private key")
    key_password: Secret | None = Field(default=None, description="of an encrypted key")
    ca: ExistingFile | None = Field(default=None, description="PEM file: the utility's CA; default: the machine's CAs")
    check_name: bool = Field(
        default=True, description="false where the server's certificate has no name, as 2030.5 permits; needs ca"
    )

    @model_validator(mode="after")
    def _someone_is_trusted(self) -> Self:
        if not self.check_name and self.ca is None:
            raise ValueError(
                "check_name: false needs ca: without a name, anybody's certificate of a public CA would do"
            )
        return self

    @model_validator(mode="after")
    def _files_fit(self) -> Self:
        try:
            self.context()
        except ssl.SSLError as error:
            raise ValueError(
                f"these files can't be used ({error.reason or error}); name a certificate and a CA in PEM form, the "
                "key that the certificate was made with, and key_password if the key is encrypted"
            ) from None
        return self

    def context(self) -> ssl.SSLContext:
        """Return what a connection needs: TLS 1.2 at least, and our certificate. Blocks.

        Raises ssl.SSLError or OSError where the files are not good any more.
        """
        made = client_context(self.ca, self.certificate, self.key, self.key_password)
        made.check_hostname = self.check_name
        return made


class FallbackSettings(Settings):
    """`fallback:`."""

    after: float = Field(default=900, ge=60, le=86_400, description="seconds without the server")
    limits: dict[str, float | bool] = Field(
        default={}, description="mode: value (W, %, or true), e.g. {opModExpLimW: 1500}; others fall to the default"
    )

    @field_validator("limits")
    @classmethod
    def _known(cls, limits: Mapping[str, float | bool]) -> dict[str, float | bool]:
        for mode, value in limits.items():
            _known_mode(mode)
            if isinstance(value, bool) is not (MODES[mode] is Unit.SWITCH):
                raise ValueError(f"{mode} takes {'true or false' if MODES[mode] is Unit.SWITCH else 'a number'}")
        return dict(limits)


class TelemetrySettings(Settings):
    """`telemetry:`."""

    enabled: bool = Field(default=True, description="false: nothing is posted")
    site: str = Field(default="", max_length=64, description="serial whose grid_power is the site's; default: device")
    der: str = Field(default="", max_length=64, description="serial whose values are the DER's; default: device")
    post_rate: int = Field(default=300, ge=10, le=86_400, description="seconds, where the server names none")


def _known_mode(mode: str) -> None:
    if mode not in MODES:
        raise ValueError(f"{mode!r} is no mode that is known; known: {', '.join(MODES)}")


class CsipSettings(BridgeSettings):
    """`type: csip`."""

    url: str = Field(description="of the server's DeviceCapability, e.g. https://csip.example.com/dcap")
    tls: TlsSettings = Field(description="{certificate, key, ca}")
    device: SerialName = Field(description="serial of the inverter, plant or fleet that is steered")
    lfdi: str = Field(
        default="",
        pattern=r"^([0-9A-Fa-f]{40})?$",
        description="of the EndDevice, where the certificate is an aggregator's; default: the certificate's own",
    )
    pin: int | None = Field(
        default=None,
        ge=0,
        le=999_999,
        description="registration PIN, its check digit included; another one at the server: nothing is taken",
    )
    register_device: bool = Field(
        default=False, description="true: register the EndDevice at the server where it has none"
    )
    connection_point: str = Field(
        default="", max_length=32, description="id of the connection point (NMI), told to the server once"
    )
    limits: dict[str, str] = Field(
        default={}, description="mode: setpoint, where it is not the usual one, e.g. {opModGenLimW: active_power_limit}"
    )
    rated_power: float | None = Field(default=None, gt=0, description="W; default: what the device says")
    hold: float = Field(
        default=1800, ge=60, le=86_400, description="seconds after which the gateway takes back what is not refreshed"
    )
    fallback: FallbackSettings = Field(
        default=FallbackSettings(), description="when the server is silent: {after, limits}"
    )
    telemetry: TelemetrySettings = Field(default=TelemetrySettings(), description="what is posted")
    poll_least: float = Field(default=5, ge=1, le=3600, description="seconds between two reads of a resource, at least")
    enterprise: int = Field(default=0, ge=0, lt=2**32, description="IANA enterprise number, for mRIDs of ours")
    max_bytes: int = Field(default=1024 * 1024, ge=4096, le=64 * 1024 * 1024, description="of an answer")
    timeout: float = Field(default=30, gt=0, le=300, description="seconds for a request")

    @field_validator("url")
    @classmethod
    def _is_https(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or parts.query or parts.fragment or parts.username:
            raise ValueError("url is https://host[:port]/path of the server's DeviceCapability")
        return url if parts.path.strip("/") else url.rstrip("/") + DEFAULT_PATH

    @field_validator("pin")
    @classmethod
    def _adds_up(cls, pin: int | None) -> int | None:
        if pin is not None and sum(map(int, str(pin))) % 10:
            raise ValueError(
                "the digits of a PIN add up to a multiple of 10, the last one sees to that; this one's do not"
            )
        return pin

    @field_validator("limits")
    @classmethod
    def _are_known(cls, limits: Mapping[str, str]) -> dict[str, str]:
        for mode, setpoint in limits.items():
            _known_mode(mode)
            if setpoint not in SETPOINTS:
                raise ValueError(f"{setpoint!r} is no setpoint; known: {', '.join(SETPOINTS)}")
        return dict(limits)
