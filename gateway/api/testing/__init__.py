"""The conformance kit: what every bridge must hold, ours and a stranger's. docs/plugins.md shows how it is used.

class TestMyBridge(Conformance):            # pytest finds it; each check is a test
    bridge = MyBridge
    settings = {"url": "http://127.0.0.1:1/"}

conforms(MyBridge, {"url": "…"})            # the same without pytest; raises ConformanceError
"""

from gateway.api.testing.bench import DEVICE, POINT, SETPOINT, Bench
from gateway.api.testing.conformance import Arrival, Conformance, ConformanceError, conforms
from gateway.api.testing.far_side import eventually

__all__ = [
    "DEVICE",
    "POINT",
    "SETPOINT",
    "Arrival",
    "Bench",
    "Conformance",
    "ConformanceError",
    "conforms",
    "eventually",
]
