"""A real MQTT broker without mosquitto: that of the demo. gateway/demo/mqtt_front.py says what it lacks."""

from contextlib import asynccontextmanager

import pytest


@asynccontextmanager
async def embedded():
    """Run one on a free port; it can be stopped and started again. A start costs 0.2 s."""
    pytest.importorskip("iotcore")
    from gateway.demo.broker import DemoBroker

    broker = DemoBroker()
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


@asynccontextmanager
async def embedded_broker():
    """The same, for who needs but host and port."""
    async with embedded() as broker:
        yield broker.host, broker.port
