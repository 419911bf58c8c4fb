"""A sink that keeps history: writes every snapshot to InfluxDB, in line protocol, by HTTP API v2."""

import asyncio
import ssl
from itertools import islice
from typing import ClassVar

import httpx
from pydantic import Field, HttpUrl

from gateway.api import POINTS, BridgeSettings, Secret, SinkContext, Snapshot, Type, Updates, Value

BATCH, RETRY_FIRST, RETRY_MAX = 200, 0.5, 60.0
TAG = str.maketrans({",": r"\,", " ": r"\ ", "=": r"\="})
TEXT = str.maketrans({'"': r"\"", "\\": r"\\"})


class InfluxSettings(BridgeSettings):
    """`type: influx`."""

    url: HttpUrl = Field(description="of InfluxDB, e.g. http://127.0.0.1:8086")
    token: Secret = Field(description="that may write to the bucket")
    org: str = Field(min_length=1, description="organisation")
    bucket: str = Field(min_length=1, description="where to write")


class InfluxBridge:
    """Sink that keeps history."""

    api_version: ClassVar = "1.0"
    Settings: ClassVar = InfluxSettings
    backlog = 20_000

    def __init__(self, settings: InfluxSettings, context: SinkContext) -> None:
        self._settings, self._context = settings, context
        self._client: httpx.AsyncClient | None = None

    async def start(self) -> None:
        """Make ready to write; InfluxDB may be away."""
        headers = {"Authorization": f"Token {self._settings.token.get_secret_value()}"}
        tls = await asyncio.to_thread(ssl.create_default_context)  # it reads files
        self._client = httpx.AsyncClient(base_url=str(self._settings.url), headers=headers, verify=tls, timeout=10)

    async def stop(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.aclose()

    async def deliver(self, updates: Updates) -> None:
        """Return once all is written. What comes meanwhile waits in the gateway."""
        lines = (line for one in updates.snapshots if (line := line_of(one)))
        while batch := list(islice(lines, BATCH)):
            await self._write("\n".join(batch).encode())

    async def _write(self, body: bytes) -> None:
        where = {"org": self._settings.org, "bucket": self._settings.bucket, "precision": "ms"}
        pause = RETRY_FIRST
        while self._client is not None:
            try:
                answer = await self._client.post("api/v2/write", params=where, content=body)
                trouble = "" if answer.is_success else f"answers {answer.status_code}"
                if answer.status_code in {400, 413, 422}:  # it would say so again
                    self._context.log.warning("InfluxDB refuses a batch", status=answer.status_code)
                    trouble = ""
            except httpx.HTTPError as error:
                trouble = f"can't be reached ({type(error).__name__})"
            self._context.report(up=not trouble, detail=trouble and f"InfluxDB {trouble}; trying again")
            if not trouble:
                return
            await asyncio.sleep(pause := min(pause * 2, RETRY_MAX))


def line_of(snapshot: Snapshot) -> str:
    """Return a snapshot as a line; "" where it has no value."""
    fields = ",".join(f"{name}={field(name, value)}" for name, value in snapshot.values.items() if value is not None)
    tags = f"serial={snapshot.serial.translate(TAG)},source={snapshot.source.translate(TAG)}"
    return f"sems,{tags} {fields} {round(snapshot.time.timestamp() * 1000)}" if fields else ""


def field(name: str, value: Value) -> str:
    """Return a value as a field: a point has one type for ever, or InfluxDB would refuse it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value.translate(TEXT)}"'
    return f"{value}i" if POINTS[name].type is Type.INTEGER else str(float(value or 0))
