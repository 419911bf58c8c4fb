"""MQTT: states and availability as retained topics, commands at set topics, every step at a result topic."""

from gateway.bridges.mqtt.bridge import MqttBridge

__all__ = ["MqttBridge"]
