"""The Real-Time Data API bridge: reads whitelisted devices, a hundred in a call. It has no control path."""

from typing import TYPE_CHECKING

from gateway.core.lazy import lazy

if TYPE_CHECKING:
    from gateway.bridges.realtime.bridge import RealtimeBridge
    from gateway.bridges.realtime.settings import RealtimeSettings

__all__ = ["RealtimeBridge", "RealtimeSettings"]
__getattr__ = lazy(__name__, RealtimeBridge="bridge", RealtimeSettings="settings")
