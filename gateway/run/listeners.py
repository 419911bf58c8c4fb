"""What listens in a gateway, by its configuration alone."""

from gateway.bridges.local import LocalSettings
from gateway.run.settings import Config


def connections_of(config: Config) -> int:
    """Return how many connections the listeners of a configuration accept at most."""
    return sum(settings.connections for settings in (LocalSettings(), *(b.settings for b in config.bridges)))
