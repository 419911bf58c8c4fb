"""The `push` bridge: takes what GoodWe sends to an address of ours."""

from gateway.bridges.push.bridge import PushBridge
from gateway.bridges.push.settings import PushSettings

__all__ = ["PushBridge", "PushSettings"]
