"""The command line's door into a running gateway: a Unix socket in `data_dir`."""

from gateway.bridges.local.bridge import LocalBridge, LocalSettings
from gateway.bridges.local.client import HungUpError, LocalClient, NotRunningError

__all__ = ["HungUpError", "LocalBridge", "LocalClient", "LocalSettings", "NotRunningError"]
