"""The Open API bridge, classic and developer platform: finds plants and devices, polls them by plan, sets setpoints."""

from typing import TYPE_CHECKING

from gateway.core.lazy import lazy

if TYPE_CHECKING:
    from gateway.bridges.open_api.bridge import OpenApiBridge
    from gateway.bridges.open_api.settings import OpenApiSettings

__all__ = ["OpenApiBridge", "OpenApiSettings"]
__getattr__ = lazy(__name__, OpenApiBridge="bridge", OpenApiSettings="settings")
