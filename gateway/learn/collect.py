"""Asks an account each reading interface; about whom, the answers themselves say, whatever their fields are called."""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Final, Protocol

import msgspec

from gateway.learn.envelope import unwrap
from gateway.learn.infer import READING
from gateway.learn.matching import find, near
from gateway.learn.observed import by_interface, data_of
from gateway.learn.values import is_nothing
from gateway.sems.catalogue import Catalogue, Interface, Use
from gateway.sems.plants import PLANT
from gateway.sems.recording import Answer

PAGE_SIZE: Final = 100
MAX_PLANTS: Final = 3
"""So many plants are looked into: others are alike, and calls are counted."""
MAX_SERIALS_A_CALL: Final = 20
"""Serials in one call, where it takes several."""
MAX_DEVICES: Final = 2_000
AGAIN: Final = (Use.DETAIL, Use.DEVICES, Use.LIVE)
"""What is asked a second time, for what grows."""
UNKNOWN_ARGS: Final = "receipt"


class NotAReadingCallError(Exception):
    """A call that might set something was about to be made. It is a fault of the gateway's, and nothing was sent."""


class Thing(msgspec.Struct, frozen=True):
    """A plant or a device that the account has."""

    serial: str
    type: str
    plant: str


class Call(msgspec.Struct, frozen=True):
    """One call to make."""

    interface: Interface
    args: Mapping[str, object]


class Ask(Protocol):
    """Makes one call."""

    async def __call__(self, interface: Interface, args: Mapping[str, object]) -> Answer | None:
        """Return the answer, whatever it says; None where there was none. Raises what ends it all."""
        ...


Progress = Callable[[int, int, str], None]
"""Called with how many calls are done, how many there are as far as that is known, and what is asked."""


class Collector:
    """Makes the calls of one account."""

    def __init__(
        self, catalogue: Catalogue, ask: Ask, today: date, serials: Sequence[str] = (), progress: Progress | None = None
    ) -> None:
        """`today` is a local day of the plants, about; `serials` are those the configuration names."""
        self.answers: Final[list[Answer]] = []
        self._catalogue = catalogue
        self._ask = ask
        self._noon = datetime(today.year, today.month, today.day, 12)  # noqa: DTZ001 - local to the plant
        self._named = list(serials)
        self._progress = progress or (lambda *_: None)
        self._done = 0
        self._total = 0

    async def run(self, wait: Callable[[], Awaitable[None]] | None = None) -> list[Answer]:
        """Make all calls; between two rounds `wait` is awaited; without it there is one. Returns the answers."""
        calls = [Call(i, {"page": 1, "page_size": PAGE_SIZE}) for i in self._catalogue.using(Use.PLANTS)]
        calls += [
            Call(i, {"page": 1, "page_size": PAGE_SIZE}) for i in self._catalogue.using(Use.DEVICES) if "page" in i.args
        ]
        await self._make(calls, expect=20)
        plants = things(self._catalogue, self.answers, Use.PLANTS)[:MAX_PLANTS]
        first = [call for use in (Use.DETAIL, Use.DEVICES) for call in self._of_plants(use, plants)]
        await self._make(first, expect=20)
        devices = self._devices()
        described = list(self._described(devices))
        await self._make(described, expect=20)
        live = [*self._of_plants(Use.LIVE, plants), *self._of_devices(Use.LIVE, devices)]
        others = [
            call
            for use in (Use.ALARMS, Use.SERIES, Use.PARAMETERS)
            for call in (*self._of_plants(use, plants[:1]), *self._of_devices(use, devices))
        ]
        again = [call for call in [*first, *live] if call.interface.points] if wait is not None else []
        await self._make(live, expect=len(others) + len(again))
        await self._make(others, expect=len(again))
        if wait is not None:
            await wait()
            await self._make(again, expect=0)
        return self.answers

    async def _make(self, calls: Sequence[Call], expect: int) -> None:
        self._total = self._done + len(calls) + expect
        for call in calls:
            if call.interface.use not in READING:
                raise NotAReadingCallError(f"{call.interface.name} is no reading interface")
            self._progress(self._done, self._total, call.interface.name)
            answer = await self._ask(call.interface, call.args)
            if answer is not None:
                self.answers.append(answer)
            self._done += 1
        self._progress(self._done, self._total, "")

    def _devices(self) -> list[Thing]:
        found = things(self._catalogue, self.answers, Use.DEVICES)
        known = {thing.serial for thing in found}
        found += [Thing(serial, "", "") for serial in self._named if serial not in known]
        return found[:MAX_DEVICES]

    def _of_plants(self, use: Use, plants: Sequence[Thing]) -> Iterator[Call]:
        for interface in self._catalogue.using(use):
            if {"plant", "plants"} & interface.args and UNKNOWN_ARGS not in interface.args:
                for plant in plants:
                    yield Call(interface, self._args([plant]))

    def _described(self, devices: Sequence[Thing]) -> Iterator[Call]:
        for interface in self._catalogue.using(Use.DEVICES):
            if "serials" in interface.args and not {"plant", "plants"} & interface.args:
                some = [thing for thing in devices if not thing.type or thing.type in interface.of]
                if some:
                    yield Call(interface, self._args(some[: min(MAX_SERIALS_A_CALL, interface.batch)]))

    def _of_devices(self, use: Use, devices: Sequence[Thing]) -> Iterator[Call]:
        """Yield a call for each type of device that an interface is for."""
        by_plants = sorted(devices, key=lambda thing: -len({d.type for d in devices if d.plant == thing.plant}))
        for interface in self._catalogue.using(use):
            if not {"serial", "serials"} & interface.args or UNKNOWN_ARGS in interface.args:
                continue
            most = min(MAX_SERIALS_A_CALL, interface.batch) if "serials" in interface.args else 1
            if "type" in interface.args or most == 1:
                for type_ in interface.of:
                    if some := [thing for thing in by_plants if thing.type == type_]:
                        yield Call(interface, self._args(some[:most]))
            elif some := [thing for thing in by_plants if thing.type in interface.of or not thing.type]:
                yield Call(interface, self._args(some[:most]))

    def _args(self, some: Sequence[Thing]) -> dict[str, object]:
        first = some[0]
        return {
            "plant": first.plant or first.serial,
            "plants": [thing.serial for thing in some],
            "serial": first.serial,
            "serials": [thing.serial for thing in some],
            "type": first.type,
            "day": self._noon,
            "start": self._noon,
            "end": self._noon,
        }


def things(catalogue: Catalogue, answers: Sequence[Answer], use: Use) -> list[Thing]:
    """Return the plants, or devices, that the lists among the answers name, each once."""
    wrapping = unwrap(catalogue, answers)
    asked = by_interface(catalogue, wrapping.good)
    found: dict[str, Thing] = {}
    for interface in catalogue.using(use):
        its = asked.get(interface.name)
        if not its:
            continue
        there = find(interface, its, wrapping.envelope, [data_of(answer, wrapping.envelope) for answer, _ in its])
        where = {
            row.attribute: there.matches[row.field].field for row in interface.response if row.field in there.matches
        }
        options = next((row.options for row in interface.response if row.attribute == "type"), {})
        if "serial" not in where:
            row = next((row for row in interface.response if row.attribute == "serial"), None)
            guesses = near(row, there.rest) if row is not None else []
            if not guesses:
                continue
            where["serial"] = guesses[0][0]
        for entry in there.entries:
            serial = entry.fields.get(where["serial"])
            if is_nothing(serial) or isinstance(serial, bool) or not isinstance(serial, (str, int)):
                continue
            said = str(entry.fields.get(where.get("type", ""), ""))
            type_ = str(options.get(said, "")) if options else said
            if use is Use.PLANTS:
                found.setdefault(str(serial), Thing(str(serial), PLANT, str(serial)))
                continue
            plant = str(entry.fields.get(where.get("plant", ""), "") or entry.asked)
            known = found.get(str(serial))
            if known is None or not known.type:
                home = known.plant if known is not None else plant
                found[str(serial)] = Thing(
                    str(serial), type_ or (interface.of[0] if len(interface.of) == 1 else ""), home
                )
    return list(found.values())
