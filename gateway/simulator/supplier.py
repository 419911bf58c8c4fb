"""The Real-Time Data API's answers: for whitelisted numbers alone, and a refusal for each of the others."""

from typing import Final
from zoneinfo import ZoneInfo

from gateway.core.model import Value
from gateway.sems.catalogue import Catalogue, Interface, Json, SemsError
from gateway.simulator.answers import Record
from gateway.simulator.controls import Tasks
from gateway.simulator.queries import Queries, Thing, alarm_record, page_of, record_of, texts_of
from gateway.simulator.requests import Args, Refusal, RefusedError, code_of
from gateway.simulator.world import World

UTC: Final = ZoneInfo("UTC")


class Grants:
    """What a third-party supplier may read."""

    def __init__(self, whitelist: tuple[str, ...] | None) -> None:
        self.licensed = True
        self.refused: frozenset[str] = frozenset()
        """Numbers whose owners do not agree."""
        self._whitelist = None if whitelist is None else frozenset(whitelist)

    def include(self, serial: str) -> bool:
        """Return whether a device is whitelisted, and its owner agrees."""
        return serial not in self.refused and (self._whitelist is None or serial in self._whitelist)


class SupplierQueries(Queries):
    """Answers the calls of the Real-Time Data API."""

    def __init__(self, world: World, tasks: Tasks, catalogue: Catalogue, grants: Grants) -> None:
        super().__init__(world, tasks, catalogue)
        self._grants = grants

    def answer(self, interface: Interface, args: Args) -> Json:
        """See `Queries.answer`."""
        if not self._grants.licensed:
            raise RefusedError(Refusal.NO_AUTHORITY, "the licence agreement of this account is not in force")
        return super().answer(interface, args)

    def _devices(self, interface: Interface, args: Args) -> Json:
        """List the whitelisted devices, page by page."""
        granted = [serial for serial in self._world.serials if self._grants.include(serial)]
        things = [self._thing(serial) for serial in granted[page_of(args)]]
        return self._encoders[interface.name].answer([_described(thing) for thing in things if thing is not None])

    def _live(self, interface: Interface, args: Args) -> Json:
        records = []
        for serial in texts_of(args["serials"]):
            thing = self._thing(serial)
            record = self._refusal(interface, serial, thing)
            if record is None and thing is not None:
                reported = self._reported(thing)
                record = reported._replace(attributes={**reported.attributes, **self._said("", "success")})
            records += [record] if record is not None else []
        return self._encoders[interface.name].answer(records)

    def _alarms(self, interface: Interface, args: Args) -> Json:
        granted, refused = [], []
        for serial in texts_of(args["serials"]):
            thing = self._thing(serial)
            if record := self._refusal(interface, serial, thing):
                refused.append(record)
            elif thing is not None:
                granted.append(thing)
        listed = [
            alarm_record(alarm, thing.home.zone) for thing in granted for alarm in self._world.alarms(thing.serial)
        ]
        return self._encoders[interface.name].answer([*refused, *listed])

    def _refusal(self, interface: Interface, serial: str, thing: Thing | None) -> Record | None:
        """Return what is said of a number that gets no data; None for one that does."""
        if not self._grants.include(serial):
            said = self._said(code_of(self._catalogue, SemsError.UNAUTHORISED), "not in the whitelist")
        elif thing is None:
            said = self._said(code_of(self._catalogue, Refusal.NOT_FOUND), "there is no such device")
        elif thing.type not in interface.of:
            said = self._said(code_of(self._catalogue, Refusal.NOT_SUPPORTED), f"it is of type {thing.type}")
        else:
            return None
        return Record(serial, UTC, {"serial": serial, **said})

    def _said(self, code: str, text: str) -> dict[str, Value]:
        return {"said": code or self._catalogue.success[0], "detail": text}


def _described(thing: Thing) -> Record:
    described = record_of(thing)
    return described._replace(attributes={**described.attributes, "time_zone": thing.home.site.zone})
