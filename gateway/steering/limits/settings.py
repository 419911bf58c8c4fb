"""`limits:` of the configuration."""

from typing import Final

from pydantic import Field

from gateway.api.bridge import BridgeSettings

PREFIX: Final = "limit:"
LIMIT: Final = "export_limit"
PERCENT: Final = "active_power_limit"
"""What the serial number of a limit begins with."""


class LimitSettings(BridgeSettings):
    """One limit."""

    device: str = Field(description="serial number of the inverter with the grid meter, or fleet:NAME")
    failsafe: float = Field(ge=0, description="W that may be fed in where whoever sets the limit has fallen silent")
    failsafe_duration: float = Field(
        default=7_200, ge=7_200, le=86_400, description="seconds for which the failsafe holds at least"
    )
    heartbeat: float = Field(
        default=120, ge=10, le=3_600, description="seconds after the last write after which the failsafe begins"
    )
