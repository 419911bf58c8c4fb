"""One SEMS account over the Open API, as source and controller."""

import asyncio
from collections.abc import Mapping
from typing import ClassVar, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, HttpUrl, field_validator

from gateway.bridges.open_api.control import Control
from gateway.bridges.open_api.plants import Plants
from gateway.bridges.open_api.polling import Poller
from gateway.core.bridge import BridgeSettings, Context, Outcome
from gateway.core.errors import GatewayError, NotSentError
from gateway.core.model import Command, Value
from gateway.core.secret import Secret
from gateway.sems.budget import Budget
from gateway.sems.catalogue import load
from gateway.sems.session import Credentials, Session

RETRY_FIRST: Final = 2.0
RETRY_MOST: Final = 60.0


class OpenApiSettings(BridgeSettings):
    """`type: open_api`."""

    account: str = Field(min_length=1, description="SEMS organisation account")
    password: Secret = Field(description="its password; better {file: …} or {env: …}")
    url: HttpUrl = Field(default=HttpUrl("https://openapi.semsportal.com"), description="the region's host")
    poll_interval: float = Field(default=60, ge=0.1, le=3600, description="seconds between readings of a device")
    discovery_interval: float = Field(default=3600, ge=10, description="seconds between looks for new devices")
    calls_per_hour: int = Field(default=3600, ge=10, description="what SEMS allows this account")
    time_zone: str = Field(default="UTC", description="for plants that do not say theirs, e.g. Europe/Berlin")

    @field_validator("time_zone")
    @classmethod
    def _exists(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"{name!r} is no time zone; write one like Europe/Berlin") from None
        return name


class OpenApiBridge:
    """Source and controller."""

    Settings: ClassVar[type[BridgeSettings]] = OpenApiSettings

    def __init__(self, settings: OpenApiSettings, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._catalogue = load("open_api")
        budget = Budget(settings.calls_per_hour, context.clock)
        credentials = Credentials(settings.account, settings.password.get_secret_value())
        self._session = Session(
            self._catalogue,
            str(settings.url),
            credentials,
            context.data_dir / f"{context.name}-session.json",
            context.clock,
            budget,
        )
        self._plants = Plants(self._catalogue, self._session, context, ZoneInfo(settings.time_zone))
        self._poller = Poller(self._catalogue, self._session, context, self._plants, settings.poll_interval)
        self._control = Control(self._catalogue, self._session, context, self._plants)

    async def start(self) -> None:
        """Log in and poll, in the background: SEMS may be away."""
        await self._session.start()
        self._context.report(up=None, detail=f"connecting to SEMS at {self._settings.url}")
        self._context.spawn(self._run(), "polling")

    async def stop(self) -> None:
        """Close the session."""
        await self._session.stop()

    def takes(self, serial: str, setpoint: str) -> bool:
        """See `Controller.takes`."""
        return self._control.takes(serial, setpoint)

    async def send(self, command: Command, in_force: Mapping[str, Value], timeout: float) -> str:
        """See `Controller.send`."""
        return await self._control.send(command, in_force, timeout)

    async def result(self, command: Command, receipt: str) -> Outcome:
        """See `Controller.result`."""
        return await self._control.result(command, receipt)

    async def _run(self) -> None:
        """Discover, then poll; discover again from time to time. No failure of SEMS ends this."""
        clock = self._context.clock
        discovered_at: float | None = None
        pause = RETRY_FIRST
        while True:
            began = clock.monotonic()
            try:
                if discovered_at is None or began - discovered_at > self._settings.discovery_interval:
                    await self._plants.discover()
                    discovered_at = clock.monotonic()
                await self._poller.round()
            except GatewayError as error:
                wait = max(pause, getattr(error, "retry_after", None) or 0.0)
                self._context.report(up=False, detail=f"{error}; trying again")
                await asyncio.sleep(wait if isinstance(error, NotSentError) else pause)
                pause = min(pause * 2, max(RETRY_MOST, self._settings.poll_interval))
            else:
                pause = RETRY_FIRST
                self._context.report(up=True)
                await asyncio.sleep(max(0.0, began + self._poller.interval - clock.monotonic()))
