"""Finds out what numbers are whose type is unknown: each data type is asked, until one has data of them."""

from collections.abc import Iterator

from gateway.bridges.realtime.plan import reading
from gateway.bridges.realtime.roster import Roster, State
from gateway.sems.allowance import Allowance
from gateway.sems.catalogue import Catalogue, Interface, Use
from gateway.sems.schedule import Job, batched


class Seeker:
    """Asks about numbers out of turn, within calls that are kept for it."""

    def __init__(self, catalogue: Catalogue, roster: Roster, allowance: Allowance) -> None:
        self._catalogue = catalogue
        self._roster = roster
        self._allowance = allowance
        self._under_way: set[str] = set()
        """Numbers that are being asked about."""

    @property
    def busy(self) -> bool:
        """Whether there is something left to find out now."""
        return bool(self._under_way) or any(self._roster.state(s) is State.SOUGHT for s in self._roster.due())

    def jobs(self) -> Iterator[Job]:
        """Yield the calls that there are to make now, as far as some are left."""
        wanted: dict[str, tuple[Interface, list[str]]] = {}
        for serial in self._roster.due():
            interface = None if serial in self._under_way else self._next(serial)
            if interface is not None:
                wanted.setdefault(interface.name, (interface, []))[1].append(serial)
        for interface, serials in wanted.values():
            for batch in batched(serials, interface.batch):
                if self._allowance.wait() > 0:
                    return
                self._allowance.take()
                self._under_way.update(batch)
                yield Job(interface, batch)

    def done(self, job: Job) -> None:
        """Say that a call has come to its end; what it has not found out goes on with the next data type."""
        self._under_way.difference_update(job.unit)
        for serial in job.unit:
            if serial in self._roster and not self._roster.type_of(serial) and self._next(serial) is None:
                self._roster.refuse(serial, State.UNKNOWN, "no data type has data of it")

    def _next(self, serial: str) -> Interface | None:
        """Return the data type to ask next; None where all were asked."""
        type_ = self._roster.type_of(serial)
        if type_:
            return reading(self._catalogue, type_)
        vain = self._roster.vain(serial)
        return next((i for i in self._catalogue.using(Use.LIVE) if i.name not in vain), None)
