"""The Real-Time Data API bridge: reads whitelisted devices, a hundred in a call. It has no control path."""

from gateway.bridges.realtime.bridge import RealtimeBridge
from gateway.bridges.realtime.settings import RealtimeSettings

__all__ = ["RealtimeBridge", "RealtimeSettings"]
