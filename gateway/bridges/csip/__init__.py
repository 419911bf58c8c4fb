"""The `csip` bridge: IEEE 2030.5 as CSIP-AUS has it, as a client."""

from gateway.bridges.csip.bridge import CsipBridge
from gateway.bridges.csip.settings import CsipSettings

__all__ = ["CsipBridge", "CsipSettings"]
