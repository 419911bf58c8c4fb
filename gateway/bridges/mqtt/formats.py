"""Finds payload formats by the names that `payload:` takes, over entry points of `sems_gateway.mqtt_payloads`."""

from functools import cache
from typing import Any, Final

from gateway.api.mqtt import PayloadFormat
from gateway.api.registry import Kind, PluginError, Registry, found
from gateway.core.model import DeviceState, Value

OURS: Final = "json"
"""The one that all else is published in, whatever the format of values."""
_METHODS: Final = ("state", "point")


class OwnTopics:
    """What brings topics, commands and a session of its own along, as Sparkplug does: no mere format."""


SPARKPLUG: Final = OwnTopics()


def _lacks(loaded: Any) -> str:
    missing = [name for name in _METHODS if not callable(getattr(loaded, name, None))]
    return f"has no {' and no '.join(missing)}" if missing and not isinstance(loaded, OwnTopics) else ""


PAYLOAD: Final = Kind("payload", "payload format", "sems_gateway.mqtt_payloads", _lacks)


@cache
def installed() -> Registry[Any]:
    """Return the registry of payload formats that are installed."""
    return found(PAYLOAD)


def known(name: str) -> str:
    """Return a name if it is that of a format which can be used. Raises ValueError that says what to do."""
    try:
        installed().load(name)
    except PluginError as error:
        raise ValueError(str(error)) from None
    return name


def format_of(name: str) -> PayloadFormat:
    """Return a format by its name. Raises PluginError."""
    loaded = installed().load(name)
    if name == OURS:
        # States are most of what is published: nothing stands between.
        ours: PayloadFormat = loaded
        return ours
    return _Guarded(name, loaded() if isinstance(loaded, type) else loaded)


class _Guarded:
    """A stranger's: what goes wrong in it is a ValueError, as of a value that can't be encoded, and no more."""

    def __init__(self, name: str, theirs: PayloadFormat) -> None:
        self._name = name
        self._theirs = theirs

    def state(self, state: DeviceState) -> bytes:
        return self._encoded(self._theirs.state, state)

    def point(self, value: Value) -> bytes:
        return self._encoded(self._theirs.point, value)

    def _encoded(self, encode: Any, what: object) -> bytes:
        try:
            encoded = encode(what)
        except Exception as error:
            raise ValueError(f"payload format {self._name}: {type(error).__name__}: {error}") from error
        if not isinstance(encoded, bytes):
            text = f"payload format {self._name}: it returns {type(encoded).__name__}, not bytes"
            raise ValueError(text)  # noqa: TRY004 - as for any other value that can't be published
        return encoded
