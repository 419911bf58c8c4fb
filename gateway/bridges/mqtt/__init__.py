"""MQTT: states and availability as retained topics, commands at set topics, every step at a result topic."""

from typing import TYPE_CHECKING

from gateway.core.lazy import lazy

if TYPE_CHECKING:
    from gateway.bridges.mqtt.bridge import MqttBridge
    from gateway.bridges.mqtt.settings import MqttSettings

__all__ = ["MqttBridge", "MqttSettings"]
__getattr__ = lazy(__name__, MqttBridge="bridge", MqttSettings="settings")
