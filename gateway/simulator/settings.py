"""What can be set before a simulator starts."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator


class SimulatorSettings(BaseModel):
    """Settings of a simulated SEMS cloud. The defaults are what SEMS.md says of the real one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65_535)
    """0: one from the kernel."""
    account: str = Field(default="demo", min_length=1)
    password: SecretStr = SecretStr("demo")
    client_id: str = Field(default="demo", min_length=1)
    """Of the developer platform."""
    client_secret: SecretStr = SecretStr("demo")
    seed: int = 1
    """Of weather, habits and histories."""
    dialect: int | None = None
    """Seed of names, units, signs and times that are other than the catalogues'; None: as they are."""
    speed: float = Field(default=1.0, gt=0, le=3_600, allow_inf_nan=False)
    """How many times faster than the wall clock the physics run."""
    start: datetime | None = None
    """Physics time at the beginning; UTC where it bears no zone; None for now."""
    plants: int = Field(default=3, ge=1, le=100_000)
    """The default fleet has 3; more are made up."""
    devices_per_plant: int = Field(default=4, ge=1, le=1_000)
    """Of the made-up plants."""
    calls_per_hour: int = Field(default=3_600, ge=0)
    """Of the classic account, in a sliding hour; 0 for no limit."""
    developer_calls_per_hour: int = Field(default=3_600, ge=0)
    """Of the developer platform's account."""
    supplier_id: str = Field(default="supplier", min_length=1)
    """Client id of the third-party supplier who may use the Real-Time Data API."""
    supplier_secret: SecretStr = SecretStr("supplier")
    supplier_calls_per_hour: int = Field(default=3_600, ge=0)
    """0 for no limit."""
    whitelist: tuple[str, ...] | None = None
    """Serial numbers that the supplier may read; None: all."""
    require_dispatch: bool = False
    """The developer platform's battery orders fail where the device was not handed over to third-party dispatch."""
    limit_by_http_status: bool = False
    """Answer calls beyond the limit with HTTP 429 and Retry-After, instead of HTTP 200 and a code."""
    device_delay: float = Field(default=2.0, ge=0, allow_inf_nan=False)
    """Seconds of the wall clock until a device obeys."""
    upload_interval: float = Field(default=0.0, ge=0, le=86_400)
    """Seconds of the wall clock after which a plant tells the cloud how it is, each at its own time; 0: always."""
    physics_step: float = Field(default=60.0, ge=1, le=900)
    """Seconds of the physics clock between which energy is settled. Longer ones cost less."""
    faults: Mapping[str, Any] = {}
    """What is wrong from the start, in the words of `POST /sim/faults`."""
    push_url: str = Field(default="", pattern=r"^(https?://.+)?$")
    """Where to push all that is measured; empty: nowhere."""
    telemetry_url: str = Field(default="", pattern=r"^(kafka://[^/]+/[A-Za-z0-9._-]+)?$")
    """Topic that all of this goes to as well, `kafka://host:port/topic`; empty: none."""
    push_secret: SecretStr = SecretStr("")
    """Sent in the header X-Push-Secret; empty: none is."""
    push_interval: float = Field(default=300.0, ge=1, le=86_400)
    """Seconds."""
    push_interfaces: tuple[str, ...] = ()
    """Names in the classic catalogue; empty for all of what is measured now."""
    calls_remembered: int = Field(default=10_000, ge=1)
    """Calls, and as many controls and tasks, are kept as evidence."""

    @field_validator("start")
    @classmethod
    def _aware(cls, value: datetime | None) -> datetime | None:
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value
