"""What the bridges that speak Kafka share: connection settings, a producer and a consumer for asyncio, and words."""

from gateway.kafka.consumer import Assigned, CaughtUp, Consumer, Received, Revoked, Start
from gateway.kafka.health import TROUBLES, Health
from gateway.kafka.marks import TopicIds
from gateway.kafka.meter import METERS, Meter
from gateway.kafka.producer import Delivered, Producer, TooLargeError
from gateway.kafka.renewal import watch_credentials
from gateway.kafka.settings import KafkaConnection
from gateway.kafka.topics import NewTopic, create_topics

__all__ = [
    "METERS",
    "TROUBLES",
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
    "TooLargeError",
    "TopicIds",
    "create_topics",
    "watch_credentials",
]
