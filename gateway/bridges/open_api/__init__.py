"""The Open API bridge, classic and developer platform: finds plants and devices, polls them by plan, sets setpoints."""

from gateway.bridges.open_api.bridge import OpenApiBridge
from gateway.bridges.open_api.settings import OpenApiSettings

__all__ = ["OpenApiBridge", "OpenApiSettings"]
