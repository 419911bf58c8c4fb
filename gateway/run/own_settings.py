"""What the gateway itself is set to, and what is always so. What only talks to a running one loads no more settings."""

from pathlib import Path
from typing import Final, Literal

from pydantic import Field

from gateway.config.settings import Settings

CLI_BRIDGE: Final = "cli"
"""The bridge that every gateway has: the command line's door, a socket in `data_dir`."""


class GatewaySettings(Settings):
    """`gateway:`."""

    id: str = Field(
        default="sems-gateway", pattern=r"^[A-Za-z0-9_-]{1,64}$", description="names this gateway to brokers"
    )
    data_dir: Path = Field(default=Path("data"), description="journal, tokens, unit numbers; relative to this file")


class LogSettings(Settings):
    """`log:`."""

    level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="least severe to log")
    format: Literal["auto", "console", "json"] = Field(
        default="auto", description="auto: lines for people, in a container JSON lines"
    )
