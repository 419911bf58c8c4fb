"""The web bridge: `/api/v1`, `/metrics` for Prometheus, `/healthz` and `/readyz` for whoever restarts containers."""

from typing import TYPE_CHECKING

from gateway.core.lazy import lazy

if TYPE_CHECKING:
    from gateway.bridges.web.bridge import WebBridge
    from gateway.bridges.web.settings import WebSettings

__all__ = ["WebBridge", "WebSettings"]
__getattr__ = lazy(__name__, WebBridge="bridge", WebSettings="settings")
