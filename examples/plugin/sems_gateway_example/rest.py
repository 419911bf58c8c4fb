"""A source: polls a JSON document, and publishes what its settings map to points."""

import asyncio
import ssl
from typing import Any, ClassVar, Literal

import httpx
from pydantic import BaseModel, Field, HttpUrl

from gateway.api import POINTS, BridgeSettings, Device, DeviceKind, Secret, Snapshot, SourceContext, Value


class DeviceSettings(BaseModel):
    """One of `devices:`."""

    kind: DeviceKind = Field(default=DeviceKind.INVERTER, description="what it is")
    points: dict[Literal[tuple(POINTS)], str] = Field(description="point -> where its value is, e.g. inverters.0.power")


class RestSettings(BridgeSettings):
    """`type: rest`."""

    url: HttpUrl = Field(description="of the JSON document")
    token: Secret = Field(default="", validate_default=True, description="sent as `Authorization: Bearer …`")
    interval: float = Field(default=30, ge=0.1, le=3600, description="seconds between two looks")
    devices: dict[str, DeviceSettings] = Field(description="serial number -> what it is, and its points")


class RestBridge:
    """Source."""

    api_version: ClassVar = "1.0"
    Settings: ClassVar = RestSettings

    def __init__(self, settings: RestSettings, context: SourceContext) -> None:
        self._settings, self._context = settings, context
        self._client: httpx.AsyncClient | None = None

    async def start(self) -> None:
        """Begin to poll."""
        headers = {"Authorization": f"Bearer {self._settings.token.get_secret_value()}"}
        tls = await asyncio.to_thread(ssl.create_default_context)  # it reads files
        self._client = httpx.AsyncClient(headers=headers, verify=tls, timeout=10)
        for serial, device in self._settings.devices.items():
            self._context.announce(Device(serial=serial, kind=device.kind), named=True)
        self._context.report(up=None, detail=f"asking {self._settings.url.host}")
        self._context.spawn(self._poll(self._client), "poll")

    async def stop(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.aclose()

    async def _poll(self, client: httpx.AsyncClient) -> None:
        while True:
            try:
                answer = await client.get(str(self._settings.url))
                self._publish(answer.raise_for_status().json())
            except (httpx.HTTPError, ValueError) as error:
                self._context.report(up=False, detail=f"no answer of use ({type(error).__name__}); trying again")
            else:
                self._context.report(up=True)
            await asyncio.sleep(self._settings.interval)

    def _publish(self, document: Any) -> None:
        for serial, device in self._settings.devices.items():
            values = {name: _value(name, document, path) for name, path in device.points.items()}
            now, source, interval = self._context.clock.now(), self._context.name, self._settings.interval
            self._context.publish(Snapshot(serial=serial, time=now, source=source, interval=interval, values=values))


def _value(point: str, document: Any, path: str) -> Value:
    """Return what is there, as the point takes it; None for what is not."""
    try:
        for key in path.split("."):
            document = document[int(key)] if isinstance(document, list) else document[key]
        return POINTS[point].parse(document)
    except (LookupError, TypeError, ValueError):
        return None
