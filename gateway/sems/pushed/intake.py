"""From pushed objects to the router: states, histories and alarms, each once, and none older over a newer one."""

import asyncio
from datetime import UTC, datetime
from operator import itemgetter
from typing import Final

import msgspec

from gateway.api.contexts import SourceContext
from gateway.core.findings import FindingCode
from gateway.core.model import Alarm, Severity, Snapshot
from gateway.sems import signs
from gateway.sems.account_times import AccountTimes
from gateway.sems.catalogue import Json, Use
from gateway.sems.normalise import Reading, entries, has_list, read
from gateway.sems.pushed.fleet import Admit, Fleet, type_of
from gateway.sems.pushed.memory import STORED, Memory
from gateway.sems.pushed.message import Message, Reader
from gateway.sems.pushed.outcome import BadPushError, Outcome
from gateway.sems.pushed.settings import IntakeSettings
from gateway.sems.times import AHEAD
from gateway.sems.unknown_fields import UnknownFields
from gateway.sems.unreadable import Unreadable

YIELD_AFTER_ENTRIES: Final = 10
"""Entries after which others get their turn: about two milliseconds."""
ADDRESS: Final = frozenset({"sn", "plant_id", "plantId", "date", "code", "msg"})
"""Fields of a pushed object that say whose answer it is, and stand among the answer's own."""
SAME_WITHIN: Final = 0.5
"""Without a time, the same content is the same push when it comes again within this many intervals."""


class Taken(msgspec.Struct):
    """What became of one pushed object."""

    outcome: Outcome
    marks: list[bytes] = []
    """What it is known by, where it may not be stored yet."""
    first: int = STORED
    """Lowest of the numbers by which the router knows them; STORED where none waits."""
    dropped: list[str] = []
    """Why parts of it can't be used, in words for the sender."""


class Intake:
    """Takes pushes, one after another or several at a time."""

    def __init__(
        self, settings: IntakeSettings, context: SourceContext, *place: str, admit: Admit = lambda _: None
    ) -> None:
        """`place` is where the configuration of the bridge has the settings, but for the top.

        `admit` is asked before a device is announced for the first time; raises BadPushError where it may not be.
        """
        self._context = context
        self._place = ("bridges", context.name, *place)
        self._interval = settings.interval
        catalogue = self._catalogue = settings.catalogue
        self._reader = Reader(catalogue)
        self._times = AccountTimes(context, settings.date_format, settings.time_zone)
        self._fleet = Fleet(settings, catalogue, context, self._times, admit)
        self._memory = Memory()
        self._unreadable = Unreadable(context)
        self._unknown_fields = UnknownFields(context)
        self._handled = 0

    def begin(self) -> None:
        """Go by what was found out before, and keep what will be."""
        self._times.restore()
        self._context.spawn(self._times.run(), "times")

    async def take(self, pushed: Json) -> Taken:
        """Hand an object's data to the router. Raises BadPushError when nothing of it can be used."""
        message = self._reader.read(pushed)
        self._unknown_fields.look(message.interface, message.data, ADDRESS)
        match message.interface.use:
            case Use.ALARMS:
                return self._alarms(message)
            case Use.SERIES:
                return await self._series(message)
            case _:
                return await self._live(message)

    def stored(self, marks: list[bytes]) -> None:
        """Remember that these are where nothing is lost any more."""
        for mark in marks:
            self._memory.stored(mark)

    def lost(self, marks: list[bytes]) -> None:
        """Remember that these were lost, so that they are taken when they come again."""
        for mark in marks:
            self._memory.forget(mark)

    # live values

    async def _live(self, message: Message) -> Taken:
        found = entries(message.interface, message.data)
        if not found:
            raise BadPushError(f"empty {message.interface.name}", f"{message.interface.name} holds nothing")
        outcomes: set[Outcome] = set()
        taken = Taken(Outcome.BAD, [], STORED, [])
        for entry in found:
            await self._breathe()
            try:
                outcomes.add(self._entry(message, entry, taken))
            except BadPushError as error:
                if len(found) == 1:
                    raise
                taken.dropped.append(str(error))
        if not outcomes:
            raise BadPushError(f"unusable {message.interface.name}", taken.dropped[0])
        taken.outcome = next(o for o in (Outcome.TAKEN, Outcome.LATE, Outcome.DUPLICATE) if o in outcomes)
        return taken

    def _entry(self, message: Message, entry: dict[str, Json], taken: Taken) -> Outcome:
        interface, now = message.interface, self._context.clock.now()
        zone = self._fleet.zone(message.subject, message.plant) or UTC
        reading = read(interface, entry, zone, now, message.day, dates=self._times.dates)
        serial = reading.text("serial") or message.subject
        if reading.empty and interface.use in (Use.LIVE, Use.PARAMETERS):
            self._unreadable.note(interface.name, serial, reading.unreadable)
            self._fleet.says_nothing(serial, interface.name)
            raise BadPushError(f"unknown {interface.name}", f"{interface.name} has no value of a known field")
        self._fleet.announce(serial, message, reading)
        own = self._fleet.zone(serial, message.plant) or UTC
        if own is not zone:
            reading = read(interface, entry, own, now, message.day, dates=self._times.dates)
        self._times.dates.note(interface.name, serial, reading.unread)
        self._unreadable.note(interface.name, serial, reading.unreadable)
        if not _is_live(serial, message, reading):
            # What a device is was said, and nothing else.
            return Outcome.TAKEN
        mark = self._memory.mark(interface.name, serial, reading.time, entry)
        if self._is_known(mark, timed=reading.time is not None, taken=taken):
            return Outcome.DUPLICATE
        self._context.settle(FindingCode.NO_DATA, serial)
        device = self._fleet.device(serial, message.plant)
        time = self._times.measured(device, interface.name, reading, self._interval)
        composite = self._fleet.composite(serial)
        is_news = composite.put(interface.name, reading.values, time, self._interval)
        state = composite.snapshot(now) if is_news else None
        first = STORED
        if state is None or not _shows(state, reading, time):
            # Among what others said, its own time and values would not be found again.
            first = self._context.record(self._snapshot(serial, time, reading))
        if state is not None:
            number = self._context.publish(state)
            first = first or number
        if is_news and signs.has_powers(interface):
            self._context.weigh(signs.flows(self._catalogue, interface, serial, time, reading, self._place))
        self._note(mark, first, taken)
        return Outcome.TAKEN if is_news else Outcome.LATE

    def _snapshot(self, serial: str, time: datetime, reading: Reading) -> Snapshot:
        return Snapshot(
            serial=serial, time=time, source=self._context.name, interval=self._interval, values=reading.values
        )

    # histories

    async def _series(self, message: Message) -> Taken:
        interface, now = message.interface, self._context.clock.now()
        if interface.step != "minutes":
            raise BadPushError(
                f"statistics {interface.name}", f"{interface.name} are sums of days; only measurements are taken"
            )
        serial, zone = message.subject, self._fleet.zone(message.subject, message.plant) or UTC
        dates = self._times.dates
        found = [
            read(interface, entry, zone, now, message.day, dates=dates) for entry in entries(interface, message.data)
        ]
        unread = next((reading.unread for reading in found if reading.unread), {})
        dates.note(interface.name, serial, {} if any(reading.time for reading in found) else unread)
        samples = [(reading.time, reading) for reading in found if reading.time is not None and not reading.empty]
        samples = sorted((s for s in samples if s[0] <= now + AHEAD), key=itemgetter(0))
        if not samples:
            raise BadPushError(f"empty {interface.name}", f"{interface.name} holds no measurement with a time")
        self._fleet.announce(serial, message, _NOTHING)
        taken = Taken(Outcome.TAKEN, [], STORED, [])
        mark = self._memory.mark(interface.name, serial, samples[-1][0], message.data)
        if self._is_known(mark, timed=True, taken=taken):
            taken.outcome = Outcome.DUPLICATE
            return taken
        first = STORED
        for time, reading in samples:
            number = self._context.record(self._snapshot(serial, time, reading))
            first = first or number
            await self._breathe()
        self._note(mark, first, taken)
        return taken

    # alarms

    def _alarms(self, message: Message) -> Taken:
        interface, now = message.interface, self._context.clock.now()
        if not has_list(interface, message.data):
            raise BadPushError(f"empty {interface.name}", f"{interface.name} holds no list, so nothing is known")
        subject, of_plant = message.subject, "plant" in interface.of
        listed: dict[str, list[Alarm]] = {subject: []} if subject and not of_plant else {}
        for entry in entries(interface, message.data):
            serial = read(interface, entry, UTC, now).text("serial") or subject
            zone = self._fleet.zone(serial, message.plant) or UTC
            reading = read(interface, entry, zone, now, dates=self._times.dates)
            self._times.dates.note(interface.name, serial, reading.unread)
            listed.setdefault(serial, []).extend(_alarms_in(serial, reading, now))
        dropped: list[str] = []
        for serial in list(listed):
            try:
                self._fleet.announce(serial, message, _NOTHING)
            except BadPushError as error:
                dropped.append(str(error))
                del listed[serial]
        if dropped and not listed:
            raise BadPushError(f"unusable {interface.name}", dropped[0])
        for serial in self._fleet.of_plant(subject) if subject and of_plant else ():
            listed.setdefault(serial, [])
        mark = self._memory.mark(interface.name, subject, None, message.data)
        for serial, alarms in listed.items():
            self._context.alarms(serial, alarms)
        # The same list again may be news: others may have come between. To take it twice is harmless.
        known = self._memory.get(mark)
        self._memory.note(mark, STORED, self._context.clock.monotonic())
        again = known is not None and not self._is_old(known.came)
        return Taken(Outcome.DUPLICATE if again else Outcome.TAKEN, [], STORED, dropped)

    # what came before

    def _is_known(self, mark: bytes, *, timed: bool, taken: Taken) -> bool:
        """Return whether this push came before; if it may not be stored yet, it is waited for like a new one."""
        known = self._memory.get(mark)
        if known is None or (not timed and self._is_old(known.came)):
            return False
        if known.number != STORED:
            self._wait_for(mark, known.number, taken)
        return True

    def _note(self, mark: bytes, number: int, taken: Taken) -> None:
        self._memory.note(mark, number, self._context.clock.monotonic())
        self._wait_for(mark, number, taken)

    @staticmethod
    def _wait_for(mark: bytes, number: int, taken: Taken) -> None:
        taken.marks.append(mark)
        taken.first = min(taken.first or number, number)

    def _is_old(self, came: float) -> bool:
        return self._context.clock.monotonic() - came > SAME_WITHIN * self._interval

    async def _breathe(self) -> None:
        self._handled += 1
        if self._handled % YIELD_AFTER_ENTRIES == 0:
            await asyncio.sleep(0)


_NOTHING: Final = Reading({}, {})


def _alarms_in(serial: str, reading: Reading, now: datetime) -> list[Alarm]:
    """Return the alarm of an entry; nothing where the entry says nothing."""
    id_, code, text = reading.text("alarm"), reading.text("code"), reading.text("text")
    raised, cleared = reading.times.get("raised"), reading.times.get("cleared")
    if raised is not None and raised > now + AHEAD:
        raised = None
    if not (id_ or code or text):
        return []
    severity = next((severity for severity in Severity if severity == reading.text("severity")), Severity.FAULT)
    return [
        Alarm(
            serial=serial,
            # Without an id and a time, all there is to know it by is what it says.
            id=id_ or ("" if raised else code or text),
            code=code,
            text=text,
            severity=severity,
            raised=raised or now,
            cleared=cleared and min(cleared, now),
        )
    ]


def _is_live(serial: str, message: Message, reading: Reading) -> bool:
    """Return whether values are worth showing: a list of devices has those of some types alone."""
    if message.interface.use is Use.DEVICES:
        covered = message.interface.covers
        return (type_of(serial, message, reading) or "inverter") in covered and not reading.empty
    return not reading.empty


def _shows(state: Snapshot, reading: Reading, time: datetime) -> bool:
    """Return whether a state has all of a reading, at its own time."""
    return state.time == time and all(
        value is None or state.values.get(point) == value for point, value in reading.values.items()
    )
