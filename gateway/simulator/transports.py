"""How pushes leave: by HTTP to an address of the client's, or into a Kafka topic."""

import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Final, Protocol, Self

import httpx
import structlog

from gateway.core.errors import GatewayError
from gateway.kafka import Health, KafkaConnection, Producer

KAFKA: Final = "kafka://"
STORED: Final = "200 in the topic"
"""What is noted of a message as the answer, where HTTP has a status."""

log = structlog.get_logger("simulator")


class Transport(Protocol):
    """One connection's worth of pushing."""

    async def push(self, serial: str, body: bytes) -> str:
        """Send what is about a device or a plant. Returns an HTTP status, or what went wrong."""
        ...


class HttpTransport:
    """A client with one connection: the time that httpx's own pool takes grows with its square."""

    def __init__(self, url: str, timeout: float, headers: dict[str, str], context: ssl.SSLContext) -> None:
        self._url = url
        self._client = httpx.AsyncClient(timeout=timeout, headers=headers, trust_env=False, verify=context)

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    async def push(self, serial: str, body: bytes) -> str:  # noqa: ARG002 - the body says it
        """See `Transport.push`."""
        try:
            answer = await self._client.post(self._url, content=body, headers={"Content-Type": "application/json"})
        except httpx.HTTPError as error:
            return type(error).__name__
        return str(answer.status_code)


class KafkaTransport:
    """A topic, `kafka://host:port/topic`; the key is the serial number, or the plant's id, as we assume."""

    def __init__(self, url: str, timeout: float) -> None:
        server, _, self._topic = url.removeprefix(KAFKA).partition("/")
        self._timeout = timeout
        self._producer = Producer(
            KafkaConnection(bootstrap_servers=[server]),
            "telemetry",
            [self._topic],
            client_id="sems-simulator",
            health=Health(_told),
            log=log,
        )

    async def __aenter__(self) -> Self:
        await self._producer.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._producer.stop()

    async def push(self, serial: str, body: bytes) -> str:
        """See `Transport.push`."""
        try:
            await self._producer.send(self._topic, body, key=serial, timeout=self._timeout)
        except GatewayError as error:
            return type(error).__name__
        return STORED


@asynccontextmanager
async def transports(url: str, count: int, timeout: float, headers: dict[str, str]) -> AsyncIterator[list[Transport]]:
    """Yield what carries pushes to an address, `count` at a time."""
    async with AsyncExitStack() as stack:
        if url.startswith(KAFKA):
            one = await stack.enter_async_context(KafkaTransport(url, timeout))
            yield [one] * count
        else:
            context = ssl.create_default_context()
            yield [await stack.enter_async_context(HttpTransport(url, timeout, headers, context)) for _ in range(count)]


def _told(*, up: bool | None, detail: str = "") -> None:
    log.debug("telemetry", up=up, detail=detail)
