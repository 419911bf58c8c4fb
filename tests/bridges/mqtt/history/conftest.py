from tests.bridges.mqtt.conftest import _quick_retries, bench, broker

__all__ = ["_quick_retries", "bench", "broker"]
