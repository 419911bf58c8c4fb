"""Finds what is installed by entry point: bridges, register maps and payload formats, ours and strangers'.

Nothing is loaded before it is asked for by name, so a plug-in that is broken harms nobody who does not use it.
"""

from collections.abc import Callable, Iterable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, Generic, TypeVar

import msgspec

from gateway.api.bridge import Bridge, BridgeSettings
from gateway.api.version import API_VERSION, unfit
from gateway.config.document import nearest
from gateway.core.text import MAX_DETAIL, plain

GROUP: Final = "sems_gateway.bridges"
OWN_BRIDGES: Final = "gateway.bridges."
"""What the entry points of those begin with that come with the gateway."""
T = TypeVar("T")


EXTRAS: Final = {"confluent_kafka": "kafka"}
"""Library → the extra of sems-gateway that brings it."""


class PluginError(Exception):
    """A plug-in that can't be used. The message says what to do."""


class UnknownPluginError(PluginError, LookupError):
    """Nothing that is installed has this name."""


class DuplicatePluginError(PluginError):
    """Two installed packages bring one of the same name."""


class BrokenPluginError(PluginError):
    """It fails to import, or is not what it says."""


class MissingExtraError(PluginError):
    """It comes with the gateway, and needs a library that the gateway does not always bring."""


class PluginVersionError(PluginError):
    """It was built for another version of the API, or does not say for which."""


class Kind(msgspec.Struct, frozen=True):
    """One kind of plug-in."""

    name: str
    """As `sems-gateway plugins` lists it."""
    words: str
    """As errors call it."""
    group: str
    """Of its entry points."""
    lacks: Callable[[Any], str] = lambda _: ""
    """Returns what keeps a loaded one from being of this kind; "" for nothing."""


class Plugin(msgspec.Struct, frozen=True):
    """One that is installed, whether it can be used or not."""

    name: str
    kind: str
    package: str
    version: str
    """Of the package."""
    entry_point: str
    api_version: str
    """For which it was built; empty where that can't be told."""
    error: str
    """Why it can't be used; empty where it can."""


class Registry(Generic[T]):
    """Name → what stands behind it. Loaded when first asked for."""

    def __init__(self, found: Iterable[EntryPoint], kind: Kind | None = None) -> None:
        self.kind = kind or BRIDGE
        self._found: dict[str, list[EntryPoint]] = {}
        for entry in found:
            same = self._found.setdefault(entry.name, [])
            if all(one.value != entry.value for one in same):
                same.append(entry)

    @property
    def types(self) -> list[str]:
        """Every name that may stand in a configuration."""
        return sorted(self._found)

    def load(self, type_: str) -> T:
        """Return what is behind a name. Raises a PluginError that says what to do."""
        entry = self._only(type_)
        loaded = self._loaded(entry)
        if wrong := self.kind.lacks(loaded):
            raise BrokenPluginError(
                f"{self.kind.words} {type_!r} can't be used: {_named(entry)} {wrong}; see docs/plugins.md"
            )
        return loaded

    def settings(self, type_: str) -> type[BridgeSettings]:
        """Return the `Settings` of a bridge. Raises a PluginError, as `load` does.

        Ours are loaded without their bridge, which takes a fraction of the time: `XSettings` of the module `settings`
        beside `XBridge`, which imports what the bridge needs of libraries that are not always there. Of a stranger's
        bridge only the whole says whether it can be used.
        """
        entry = self._only(type_)
        if not entry.value.startswith(OWN_BRIDGES):
            settings: type[BridgeSettings] = getattr(self.load(type_), "Settings")  # noqa: B009 - T need not have any
            return settings
        value = f"{entry.module}.settings:{entry.attr.removesuffix('Bridge')}Settings"
        alone = EntryPoint(type_, value, entry.group)
        own: type[BridgeSettings] = self._imported(alone, self._unusable(entry))
        return own

    def _unusable(self, entry: EntryPoint) -> str:
        return f"{self.kind.words} {entry.name!r} can't be used"

    def _only(self, type_: str) -> EntryPoint:
        """Return the entry point of a name that one package alone brings."""
        if type_ not in self._found:
            raise UnknownPluginError(f"there is no {self.kind.words} {type_!r}; {nearest(type_, self.types)}")
        entry, *twins = self._found[type_]
        if twins:
            raise DuplicatePluginError(
                f"{self.kind.words} {type_!r} is brought by {' and by '.join(map(_named, self._found[type_]))}; "
                "uninstall all but one of these packages"
            )
        return entry

    def _loaded(self, entry: EntryPoint) -> T:
        what = self._unusable(entry)
        loaded: T = self._imported(entry, what)
        built_for = _built_for(entry, loaded)
        if not built_for:
            raise PluginVersionError(
                f"{what}: {_named(entry)} does not say for which API it was built; "
                f'add api_version = "{API_VERSION}" to it, or upgrade {_package(entry) or "its package"}'
            )
        if wrong := unfit(built_for):
            raise PluginVersionError(f"{what}: {_named(entry)}: {wrong}")
        return loaded

    @staticmethod
    def _imported(entry: EntryPoint, what: str) -> Any:
        try:
            return entry.load()
        except ModuleNotFoundError as error:
            if (extra := EXTRAS.get(error.name or "")) is None:
                raise BrokenPluginError(_failed(entry, what, error)) from error
            raise MissingExtraError(
                f"{what}: {error.name} is not installed; install sems-gateway[{extra}]: from a checkout, "
                f"`uv tool install '.[{extra}]'` or `pipx install --force '.[{extra}]'`; beside the Debian package, "
                f"sems-gateway-{extra}"
            ) from error
        except Exception as error:
            # Whatever a stranger's module does when it is imported ends no more than itself.
            raise BrokenPluginError(_failed(entry, what, error)) from error

    def listed(self) -> list[Plugin]:
        """Return all that is installed, with what keeps it from being used."""
        return [self._listed(entry) for name in self.types for entry in self._found[name]]

    def _listed(self, entry: EntryPoint) -> Plugin:
        error, built_for = "", ""
        try:
            built_for = _built_for(entry, self._imported(entry, ""))
            self.load(entry.name)
        except PluginError as trouble:
            error = str(trouble).removeprefix(": ")
        version = entry.dist.version if entry.dist is not None else ""
        return Plugin(entry.name, self.kind.name, _package(entry), version, entry.value, built_for, error)


def _failed(entry: EntryPoint, what: str, error: Exception) -> str:
    return (
        f"{what}: {_named(entry)} fails to import ({type(error).__name__}: {plain(str(error), MAX_DETAIL)}); "
        f"upgrade {_package(entry) or 'its package'} and what it needs, or uninstall it"
    )


def _built_for(entry: EntryPoint, loaded: object) -> str:
    """Return for which API a plug-in was built: as it says itself; what comes with the gateway fits the gateway."""
    said = getattr(loaded, "api_version", "")
    if said:
        return str(said)
    return API_VERSION if entry.value.startswith(f"{__name__.partition('.')[0]}.") else ""


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else ""


def _named(entry: EntryPoint) -> str:
    package = _package(entry)
    return f"{entry.value} of {package}" if package else entry.value


def _lacks_of_bridge(loaded: Any) -> str:
    if not isinstance(loaded, type):
        return "is no class"
    missing = [name for name in ("Settings", "start", "stop") if not hasattr(loaded, name)]
    if missing:
        return f"has no {' and no '.join(missing)}"
    settings = getattr(loaded, "Settings")  # noqa: B009 - a type has none
    if not (isinstance(settings, type) and issubclass(settings, BridgeSettings)):
        return "has Settings that are no BridgeSettings"
    return ""


BRIDGE: Final = Kind("bridge", "bridge type", GROUP, _lacks_of_bridge)


def found(kind: Kind) -> Registry[Any]:
    """Return the registry of what is installed of a kind."""
    return Registry(entry_points(group=kind.group), kind)


@cache
def installed() -> Registry[type[Bridge]]:
    """Return the registry of bridges that are installed."""
    return found(BRIDGE)
