"""The web bridge: `/metrics` for Prometheus, `/healthz` and `/readyz` for whoever restarts containers."""

from gateway.bridges.web.bridge import WebBridge, WebSettings

__all__ = ["WebBridge", "WebSettings"]
