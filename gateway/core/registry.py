"""Finds bridges by the `type:` of the configuration, over the entry points of `sems_gateway.bridges`."""

from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import cast

from gateway.core.bridge import Bridge

GROUP = "sems_gateway.bridges"


class UnknownBridgeError(LookupError):
    """No plugin has this name."""


class DuplicateBridgeError(RuntimeError):
    """Two installed packages bring a bridge of the same name."""


class Registry:
    """Type name → bridge class. Classes are loaded when first asked for."""

    def __init__(self, found: Iterable[EntryPoint]) -> None:
        self._found: dict[str, EntryPoint] = {}
        for entry in found:
            twin = self._found.get(entry.name)
            if twin is not None and twin.value != entry.value:
                raise DuplicateBridgeError(
                    f"bridge type {entry.name!r} is brought by both {twin.value} and {entry.value}; "
                    "uninstall one of the two packages"
                )
            self._found[entry.name] = entry

    @property
    def types(self) -> list[str]:
        """Every type that may stand in a configuration."""
        return sorted(self._found)

    def load(self, type_: str) -> type[Bridge]:
        """Return the class behind a type. Raises UnknownBridgeError with the nearest name."""
        if type_ not in self._found:
            near = get_close_matches(type_, self.types, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known types: {', '.join(self.types)}"
            raise UnknownBridgeError(f"there is no bridge type {type_!r}; {hint}")
        return cast("type[Bridge]", self._found[type_].load())


@cache
def installed() -> Registry:
    """Return the registry of what is installed."""
    return Registry(entry_points(group=GROUP))
