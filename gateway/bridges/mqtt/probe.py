"""Whether the broker lets this gateway in, and what it grants: looked at under another client id, nothing published."""

from collections.abc import AsyncIterator
from typing import Final

from gateway.api import Mark, Probe, SinkContext
from gateway.bridges.mqtt.client import Client, ConnectError, LostError
from gateway.bridges.mqtt.limits import MAX_PACKET, Limits
from gateway.bridges.mqtt.message import Message
from gateway.bridges.mqtt.settings import MqttSettings

GOODBYE: Final = 2.0
"""Seconds."""


async def probe_broker(settings: MqttSettings, context: SinkContext) -> AsyncIterator[Probe]:
    """Connect, subscribe, leave."""
    name = f"{settings.host}:{settings.port}"
    client = Client(
        settings,
        f"{settings.client_id_for(context.gateway_id)}-doctor",
        Message(topic=f"{settings.base}/bridge/doctor", payload=b""),
        on_message=lambda _: None,
        on_lost=lambda: None,
        clock=context.clock,
        log=context.log,
    )
    try:
        await client.connect()
    except ConnectError as error:
        yield Probe(Mark.WRONG, "broker", f"broker {name} {error}")
        return
    try:
        user = f" as {settings.username}" if settings.username else ""
        yield Probe(Mark.WELL, "broker", f"broker {name} lets us in{user}{_bounds(client.limits)}")
        wanted = [f"{settings.base}/+/set", f"{settings.base}/bridge/request/+"] if settings.payload == "json" else []
        if wanted:
            await client.subscribe(wanted)
            yield _granted(wanted, client)
    except LostError as error:
        yield Probe(Mark.WRONG, "broker", f"broker {name} {error}")
    finally:
        await client.disconnect(GOODBYE)


def _granted(wanted: list[str], client: Client) -> Probe:
    refused = client.unsent.detail
    if refused:
        return Probe(
            Mark.WRONG, "broker", f"the broker refuses subscriptions: {refused}", "see its access rules in docs/mqtt.md"
        )
    return Probe(Mark.WELL, "broker", f"it grants {' and '.join(wanted)}")


def _bounds(limits: Limits) -> str:
    """Return what it does not take, in words; "" where it takes everything."""
    bounds = [
        *([f"packets of {limits.packet} bytes at most"] if limits.packet < MAX_PACKET else []),
        *([f"QoS {limits.qos} at most"] if limits.qos < 2 else []),
        *(["nothing retained"] if not limits.retain else []),
        *(["no wildcards"] if not limits.wildcards else []),
    ]
    return f"; it takes {', '.join(bounds)}" if bounds else ""
