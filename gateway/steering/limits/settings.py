"""`limits:` of the configuration."""

from typing import Final, Self

from pydantic import Field, model_validator

from gateway.api.bridge import BridgeSettings

PREFIX: Final = "limit:"
"""What the serial number of a limit begins with."""
LIMIT, PERCENT, IMPORT = "export_limit", "active_power_limit", "import_limit"
MODE, POWER, CHARGING = "battery_mode", "battery_power_target", "charging"


class LimitSettings(BridgeSettings):
    """One limit."""

    device: str = Field(description="serial number of the inverter with the grid meter, or fleet:NAME")
    failsafe: float | None = Field(
        default=None,
        ge=0,
        description="W that may be fed in where whoever sets the limit has fallen silent; without it there is no "
        "export_limit",
    )
    import_failsafe: float | None = Field(
        default=None, ge=0, description="W that may be drawn then; without it there is no import_limit"
    )
    failsafe_duration: float = Field(
        default=7_200, ge=7_200, le=86_400, description="seconds for which the failsafe holds at least"
    )
    heartbeat: float = Field(
        default=120, ge=10, le=3_600, description="seconds after the last write after which the failsafe begins"
    )
    meter: str = Field(
        default="", max_length=64, description="serial number whose grid_power import_limit is of; default: device"
    )
    chargers: list[str] = Field(default=[], description="serial numbers of EV chargers that wait for import_limit")

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if self.failsafe is None and self.import_failsafe is None:
            raise ValueError("name failsafe (W that may be fed in) or import_failsafe (W that may be drawn), or both")
        return self

    @property
    def failsafes(self) -> dict[str, float]:
        """W by setpoint, of those that it takes."""
        given = {LIMIT: self.failsafe, IMPORT: self.import_failsafe}
        return {setpoint: watts for setpoint, watts in given.items() if watts is not None}
