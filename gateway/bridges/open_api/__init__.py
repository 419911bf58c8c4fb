"""The Open API bridge: finds plants and devices, polls them, and carries out setpoints."""

from gateway.bridges.open_api.bridge import OpenApiBridge, OpenApiSettings

__all__ = ["OpenApiBridge", "OpenApiSettings"]
