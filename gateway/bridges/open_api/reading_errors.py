"""What stands in the way of reading: devices that spoil a batch, interfaces that SEMS refuses."""

from collections.abc import Collection
from typing import Final

from gateway.api.contexts import BaseContext
from gateway.core.errors import RefusedError
from gateway.sems.catalogue import Catalogue, Interface, Use
from gateway.sems.plants import Plants, Target
from gateway.sems.refusals import Refusals

SHELVED: Final = 86_400.0
"""Seconds for which an interface that SEMS refuses is not asked."""
SHELVE_AFTER: Final = 3
"""Refusals, without a single answer since the start."""

Key = tuple[str, str]
"""Interface, and a serial or a type of device."""


class ReadingErrors:
    """The troubles of one bridge."""

    def __init__(self, catalogue: Catalogue, context: BaseContext, refusals: Refusals) -> None:
        self._catalogue = catalogue
        self._context = context
        self._said = refusals
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

    def keep(self, plants: Plants) -> None:
        """Forget what is gone."""
        self.alone = {key for key in self.alone if plants.get(key[1])}

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
        self._said.answered(interface)
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

    def never_answered(self, interface: Interface, type_: str, error: Exception) -> None:
        """Say that SEMS refuses what it never answered for this type, with the line of configuration that helps."""
        if isinstance(error, RefusedError) and not self.answers(interface, type_):
            self._said.refused(interface, error)

    def dispensable(self, interface: Interface, target: Target, *, live: bool) -> bool:
        """Return whether something else reads what an interface reads, or it does not matter much."""
        if not live:
            return True
        if interface.use is Use.DEVICES:
            return all(any(self._catalogue.using(Use.LIVE, type_)) for type_ in interface.covers)
        lists = [i.name for i in self._catalogue.using(Use.DEVICES) if target.type in i.covers]
        return any((name, target.type) not in self._shelved for name in lists)
