from tests.bridges.mqtt.conftest import _quick_retries, bench, broker, mosquitto_itself

__all__ = ["_quick_retries", "bench", "broker", "mosquitto_itself"]
