"""The command line's door into a running gateway: a Unix socket in `data_dir`."""

from typing import TYPE_CHECKING

from gateway.core.lazy import lazy

if TYPE_CHECKING:
    from gateway.bridges.local.bridge import LocalBridge
    from gateway.bridges.local.client import HungUpError, LocalClient, NotRunningError
    from gateway.bridges.local.settings import LocalSettings

__all__ = ["HungUpError", "LocalBridge", "LocalClient", "LocalSettings", "NotRunningError"]
__getattr__ = lazy(
    __name__,
    HungUpError="client",
    LocalBridge="bridge",
    LocalClient="client",
    LocalSettings="settings",
    NotRunningError="client",
)
