"""The `kafka` bridge: GoodWe's telemetry, topics of one's own, and gateways joined by them."""

from typing import TYPE_CHECKING

from gateway.core.lazy import lazy

if TYPE_CHECKING:
    from gateway.bridges.kafka.bridge import KafkaBridge
    from gateway.bridges.kafka.settings import KafkaSettings

__all__ = ["KafkaBridge", "KafkaSettings"]
__getattr__ = lazy(__name__, KafkaBridge="bridge", KafkaSettings="settings")
