"""How pushes leave: by HTTP to an address of the client's, or into a Kafka topic.

Most simulators push nowhere, so what either needs is loaded when it is used.
"""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import structlog

from gateway.core.errors import GatewayError

KAFKA: Final = "kafka://"
STORED: Final = "200 in the topic"
"""What is noted of a message as the answer, where HTTP has a status."""

Send = Callable[[str, bytes], Awaitable[str]]
"""Sends what is about a device or a plant, by its serial number or id. Returns an HTTP status, or what went wrong."""

log = structlog.get_logger("simulator")


@asynccontextmanager
async def transports(url: str, count: int, timeout: float, headers: dict[str, str]) -> AsyncIterator[list[Send]]:
    """Yield what carries pushes to an address, `count` at a time."""
    async with AsyncExitStack() as stack:
        if url.startswith(KAFKA):
            yield [await stack.enter_async_context(_topic(url, timeout))] * count
        else:
            context = ssl.create_default_context()
            yield [await stack.enter_async_context(_client(url, timeout, headers, context)) for _ in range(count)]


@asynccontextmanager
async def _client(url: str, timeout: float, headers: dict[str, str], context: ssl.SSLContext) -> AsyncIterator[Send]:
    """Yield one connection: the time that httpx's own pool takes grows with its square."""
    import httpx  # noqa: PLC0415 - large

    async with httpx.AsyncClient(timeout=timeout, headers=headers, trust_env=False, verify=context) as client:

        async def send(_: str, body: bytes) -> str:
            try:
                answer = await client.post(url, content=body, headers={"Content-Type": "application/json"})
            except httpx.HTTPError as error:
                return type(error).__name__
            return str(answer.status_code)

        yield send


@asynccontextmanager
async def _topic(url: str, timeout: float) -> AsyncIterator[Send]:
    """Yield a topic, `kafka://host:port/topic`; the key is the serial number, or the plant's id, as we assume."""
    from gateway.kafka import Health, KafkaConnection, Producer  # noqa: PLC0415 - large

    server, _, topic = url.removeprefix(KAFKA).partition("/")
    connection = KafkaConnection(bootstrap_servers=[server])
    producer = Producer(
        connection, "telemetry", [topic], client_id="sems-simulator", health=Health(kafka_health), log=log
    )

    async def send(serial: str, body: bytes) -> str:
        try:
            await producer.send(topic, body, key=serial, timeout=timeout)
        except GatewayError as error:
            return type(error).__name__
        return STORED

    await producer.start()
    try:
        yield send
    finally:
        await producer.stop()


def kafka_health(*, up: bool | None, detail: str = "") -> None:
    """Log how the simulator's own Kafka clients do."""
    log.debug("kafka", up=up, detail=detail)
