"""The `csip` bridge: IEEE 2030.5 as CSIP-AUS has it, as a client."""

from typing import TYPE_CHECKING

from gateway.core.lazy import lazy

if TYPE_CHECKING:
    from gateway.bridges.csip.bridge import CsipBridge
    from gateway.bridges.csip.settings import CsipSettings

__all__ = ["CsipBridge", "CsipSettings"]
__getattr__ = lazy(__name__, CsipBridge="bridge", CsipSettings="settings")
