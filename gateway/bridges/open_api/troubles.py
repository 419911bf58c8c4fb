"""What stands in the way of reading: devices that fail, those that spoil a batch, interfaces that SEMS refuses."""

from collections.abc import Collection
from typing import Final

from gateway.core.bridge import Context
from gateway.sems.catalogue import Catalogue, Interface, Use
from gateway.sems.plants import Plants, Target

SHELVED: Final = 86_400.0
"""Seconds for which an interface that SEMS refuses is not asked."""
SHELVE_AFTER: Final = 3
"""Refusals, without a single answer since the start."""

Key = tuple[str, str]
"""Interface, and a serial or a type of device."""


class ReadingTroubles:
    """The troubles of one bridge."""

    def __init__(self, catalogue: Catalogue, context: Context) -> None:
        self._catalogue = catalogue
        self._context = context
        self.failing: dict[Key, str] = {}
        """Live interface and serial → what is wrong."""
        self.alone: set[Key] = set()
        """Interface and serial that spoils a batch, and is asked alone."""
        self._answered: set[Key] = set()
        self._refusals: dict[Key, int] = {}
        self._shelved: dict[Key, float] = {}
        """Interface and type → until when it is not asked, on the monotonic clock."""

    @property
    def shelved(self) -> Collection[Key]:
        """Interfaces and types that are not asked now."""
        now = self._context.clock.monotonic()
        self._shelved = {key: until for key, until in self._shelved.items() if until > now}
        return self._shelved.keys()

    def keep(self, live: Collection[Key], plants: Plants) -> None:
        """Forget what is gone, or is not read by what is in `live` any more."""
        self.failing = {key: text for key, text in self.failing.items() if key in live}
        self.alone = {key for key in self.alone if plants.get(key[1])}

    def failed(self, interface: Interface, serial: str, error: str) -> None:
        """Note, and say once, that a device can't be read."""
        if (interface.name, serial) not in self.failing:
            self._context.log.warning("device can't be read", serial=serial, interface=interface.name, error=error)
        self.failing[interface.name, serial] = error

    def read(self, interface: Interface, serial: str) -> None:
        """Note that a device can be read."""
        if self.failing.pop((interface.name, serial), None) is not None:
            self._context.log.info("device can be read again", serial=serial, interface=interface.name)

    def isolate(self, interface: Interface, serial: str, *, alone: bool) -> bool:
        """Have a device asked about alone, or together with others again; True where that is news."""
        key = interface.name, serial
        if (key in self.alone) is alone:
            return False
        self.alone ^= {key}
        return True

    def answers(self, interface: Interface, type_: str) -> bool:
        """Return whether SEMS has ever answered an interface for a type of device."""
        return (interface.name, type_) in self._answered

    def answered(self, interface: Interface, type_: str) -> None:
        """Note that it has."""
        self._answered.add((interface.name, type_))
        self._refusals.pop((interface.name, type_), None)

    def refused(self, interface: Interface, type_: str, error: Exception) -> bool:
        """Note that SEMS refuses what it never answered; True where it is not asked any more from now on."""
        key = interface.name, type_
        self._refusals[key] = self._refusals.get(key, 0) + 1
        if self._refusals[key] < SHELVE_AFTER:
            return False
        until = self._context.clock.monotonic() + SHELVED
        types = interface.covers if interface.use is Use.DEVICES else (type_,)
        self._shelved |= {(interface.name, one): until for one in (*types, type_)}
        del self._refusals[key]
        self._context.log.warning(
            "SEMS does not answer an interface; it is not asked for a day",
            interface=interface.name, device_type=type_, error=str(error),
        )  # fmt: skip
        return True

    def dispensable(self, interface: Interface, target: Target, *, live: bool) -> bool:
        """Return whether something else reads what an interface reads, or it does not matter much."""
        if not live:
            return True
        if interface.use is Use.DEVICES:
            return all(any(self._catalogue.using(Use.LIVE, type_)) for type_ in interface.covers)
        lists = [i.name for i in self._catalogue.using(Use.DEVICES) if target.type in i.covers]
        return any((name, target.type) not in self._shelved for name in lists)
