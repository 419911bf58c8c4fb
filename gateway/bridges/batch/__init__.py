"""GoodWe's Batch Remote Control API: commands to a Kafka topic, and results from another."""

from gateway.bridges.batch.bridge import BatchBridge
from gateway.bridges.batch.settings import BatchSettings

__all__ = ["BatchBridge", "BatchSettings"]
