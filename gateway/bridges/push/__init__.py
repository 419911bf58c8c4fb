"""The `push` bridge: takes what GoodWe sends to an address of ours."""

from typing import TYPE_CHECKING

from gateway.core.lazy import lazy

if TYPE_CHECKING:
    from gateway.bridges.push.bridge import PushBridge
    from gateway.bridges.push.settings import PushSettings

__all__ = ["PushBridge", "PushSettings"]
__getattr__ = lazy(__name__, PushBridge="bridge", PushSettings="settings")
