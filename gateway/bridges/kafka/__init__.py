"""The `kafka` bridge: GoodWe's telemetry, topics of one's own, and gateways joined by them."""

from gateway.bridges.kafka.bridge import KafkaBridge
from gateway.bridges.kafka.settings import KafkaSettings

__all__ = ["KafkaBridge", "KafkaSettings"]
