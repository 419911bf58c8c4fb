"""GoodWe's Batch Remote Control API: commands to a Kafka topic, and results from another."""

from typing import TYPE_CHECKING

from gateway.core.lazy import lazy

if TYPE_CHECKING:
    from gateway.bridges.batch.bridge import BatchBridge
    from gateway.bridges.batch.settings import BatchSettings

__all__ = ["BatchBridge", "BatchSettings"]
__getattr__ = lazy(__name__, BatchBridge="bridge", BatchSettings="settings")
