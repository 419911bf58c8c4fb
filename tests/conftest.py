"""What holds for all tests."""

import signal
from contextlib import suppress

from hypothesis import HealthCheck, settings

# How long drawing an example takes says nothing on a machine that is busy.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

# A run in a shell's background ignores SIGINT, and so would every program it starts.
with suppress(ValueError):
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """Let the slow ones begin first, so that none is left to one process alone at the end."""
    items.sort(key=lambda item: item.get_closest_marker("system") is None)
