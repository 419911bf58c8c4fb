"""The web bridge: `/api/v1`, `/metrics` for Prometheus, `/healthz` and `/readyz` for whoever restarts containers."""

from gateway.bridges.web.bridge import WebBridge
from gateway.bridges.web.settings import WebSettings

__all__ = ["WebBridge", "WebSettings"]
