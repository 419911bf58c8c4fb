"""What a simulator can be told before it starts."""

from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator


class SimulatorSettings(BaseModel):
    """Settings of a simulated SEMS cloud. The defaults are what SEMS.md says of the real one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65_535)
    """0: one from the kernel."""
    account: str = Field(default="demo", min_length=1)
    password: SecretStr = SecretStr("demo")
    seed: int = 1
    """Of weather, habits and histories."""
    speed: float = Field(default=1.0, gt=0, le=3_600, allow_inf_nan=False)
    """How many times faster than the wall clock the physics run."""
    start: datetime | None = None
    """Physics time at the beginning; UTC where it bears no zone; None for now."""
    plants: int = Field(default=3, ge=1, le=100_000)
    """The default fleet has 3; more are made up."""
    devices_per_plant: int = Field(default=4, ge=1, le=1_000)
    """Of the made-up plants."""
    token_lifetime: float = Field(default=7_200.0, gt=0)
    """Seconds."""
    calls_per_hour: int = Field(default=3_600, ge=0)
    """Of an account, in a sliding hour; 0 for no limit."""
    limit_by_http_status: bool = False
    """Answer calls beyond the limit with HTTP 429 and Retry-After, instead of HTTP 200 and a code."""
    device_delay: float = Field(default=2.0, ge=0, allow_inf_nan=False)
    """Seconds of the wall clock until a device obeys."""
    calls_remembered: int = Field(default=10_000, ge=1)
    """Calls, and as many controls and tasks, are kept as evidence."""

    @field_validator("start")
    @classmethod
    def _aware(cls, value: datetime | None) -> datetime | None:
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value
