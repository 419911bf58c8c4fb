"""What the bridges that speak Kafka share: connection settings, a producer and a consumer for asyncio, and words."""

from gateway.kafka.consumer import Assigned, CaughtUp, Consumer, Received, Revoked, Start
from gateway.kafka.health import Health
from gateway.kafka.metrics import METRICS, Meter
from gateway.kafka.producer import Delivered, Producer
from gateway.kafka.settings import KafkaConnection
from gateway.kafka.topics import NewTopic, create_topics

__all__ = [
    "METRICS",
    "Assigned",
    "CaughtUp",
    "Consumer",
    "Delivered",
    "Health",
    "KafkaConnection",
    "Meter",
    "NewTopic",
    "Producer",
    "Received",
    "Revoked",
    "Start",
    "create_topics",
]
