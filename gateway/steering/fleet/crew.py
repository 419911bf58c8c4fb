"""The members of a fleet: who they are, what became of what they were told, and who can't be counted on."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from itertools import islice
from typing import Final

import msgspec

from gateway.api.contexts import SteererContext
from gateway.core.findings import FindingCode
from gateway.core.model import Command, CommandEvent, CommandState, Device, DeviceState, Origin, Quality, Reason, day_of
from gateway.journal.journal import JournalError
from gateway.steering.fleet.learned import Learned
from gateway.steering.fleet.mate import LIMIT, MAY_CONTRADICT, POWER, SILENT, Mate
from gateway.steering.fleet.settings import FleetSettings

ASKED_AFTER: Final = 180.0
"""Seconds after which it is asked what became of a command that has not ended; and again after as long.

A step may never come: what waits for a bridge is bounded, and the oldest is dropped.
"""
ASKED_AT_ONCE: Final = 50
PASSING: Final = frozenset(
    {
        Reason.HALTED, Reason.NOT_STORED, Reason.RATE_LIMITED, Reason.RAMP_LIMITED, Reason.EXPIRED, Reason.DUPLICATE,
        Reason.BAD_REQUEST,
    }
)  # fmt: skip
"""Why the gateway itself does not pass a command on now: no member has refused it. BAD_REQUEST: another one's fault."""
MOST: Final = 0.95
"""Of the rated power of before a start: when as much is known again, nothing more is waited for."""
WAITS: Final = 30.0
"""Seconds after a start for which what is asked newly waits for them, too: till then most are only being looked at."""
HEARD_WITHIN: Final = 300.0
"""Seconds after a start within which members that were told something before it have to be heard of."""


class Told(msgspec.Struct):
    """A command to a member that has not ended."""

    mate: Mate
    ends: Counter[str] | None
    """Where its end is counted."""
    asked: datetime
    """When it was given, or it was asked last what became of it."""
    sent: bool = False
    """It has left, and is counted as a write."""


class Crew:
    """All members of one fleet."""

    def __init__(self, settings: FleetSettings, context: SteererContext, origin: Origin) -> None:
        self._settings = settings
        self._context = context
        self._origin = origin
        self.mates: dict[str, Mate] = {}
        """Serial number → member."""
        self.waiting: dict[str, Told] = {}
        """Id → a command that has not ended."""
        self._open: dict[str, list[Command]] = {}
        """Serial number → commands of before a restart that have not ended, of those that are no member yet."""
        self._day = 0
        self._today: Counter[str] = Counter()
        """Serial number → writes of the day as it was when it began, or the gateway started."""
        self._awaited: set[str] | None = None
        """Devices that were written before the start, and are not heard of yet; None: not looked up yet."""
        self._unfit_ones: set[str] = set()
        """Devices that are named, and can't be members."""
        self._began: datetime | None = None
        self._learned = Learned(context.data_dir, context.name, context.clock, context.log)

    async def start(self) -> None:
        """Begin anew: what there is comes again."""
        self.mates.clear()
        self.waiting.clear()
        self._open.clear()
        self._unfit_ones.clear()
        self._awaited = self._began = None
        self._day = 0
        await self._learned.start()

    async def keep(self, now: datetime, *, at_once: bool = False) -> None:
        """Keep over a restart what members refused."""
        if at_once or self._learned.is_due:
            await self._learned.keep(self.mates.values(), self.size, now)

    @property
    def size(self) -> tuple[float, float]:
        """What all can draw by their batteries, and feed in, W: as before the start, until all can have been found."""
        mates = self.mates.values()
        draws = sum(mate.most_of(POWER) for mate in mates if mate.stores)
        gives = sum(mate.rated for mate in mates)
        if self._is_young():
            return max(draws, self._learned.draws), max(gives, self._learned.gives)
        return draws, gives

    def begin(self, now: datetime) -> bool:
        """Take up what was told before the start; return whether that is known: a journal may have to be checked."""
        if self._awaited is None:
            if self._context.journal_trouble:
                return False
            self._awaited, self._began = {written.serial for written in self._context.writes()}, now
            self._awaited = {serial for serial in self._awaited if ":" not in serial}  # fleets, limits
            for command in self._context.underway(self._origin):
                if command.serial != self._context.name:
                    self._open.setdefault(command.serial, []).append(command)
            for mate in self.mates.values():
                self._recall(mate)
        return True

    def _recall(self, mate: Mate) -> None:
        """Take up what a member was told before the start, and what of it is still under way."""
        serial = mate.device.serial
        mate.writes = self._today[serial]
        self._learned.claim(mate)
        under_way = self._open.pop(serial, ())
        known = self._context.commanded(serial)
        times = [time for time, _ in known.values()] + [command.created for command in under_way]
        if not times:
            return
        state = self._context.state(serial)
        values = dict(state.values) if state is not None else {}
        values |= {setpoint: value for setpoint, (_, value) in known.items()}
        mate.recall(max(times), values | {command.setpoint: command.value for command in under_way})
        for command in under_way:
            self.waiting[command.id] = Told(mate, None, command.created)
        mate.pending |= {command.id for command in under_way}

    def gathers(self) -> bool:
        """Return whether members that were told something before the start are still to be heard of.

        What they give is not known, so nothing can be said of the sum of all.
        """
        if self._awaited:
            unheard = {serial for serial in self._awaited if not self._is_heard(serial)}
            self._awaited = unheard if self._is_young() else set()
        if self._awaited:
            return True
        return not self.has_waited(self._context.clock.now()) and self._lacks_many()

    def _lacks_many(self) -> bool:
        """Return whether the power of much of what was there before is not known yet: not all were told something."""
        known = sum(mate.rated for mate in self.mates.values() if mate.power is not None)
        return known < MOST * self._learned.gives

    def has_waited(self, now: datetime) -> bool:
        """Return whether what is asked newly waits no longer for those that are not heard of."""
        return self._began is None or (now - self._began).total_seconds() > WAITS

    def _is_young(self) -> bool:
        """Return whether the start is so little ago that what can be known is not yet."""
        now = self._context.clock.now()
        return self._began is None or (now - self._began).total_seconds() <= HEARD_WITHIN

    def _is_heard(self, serial: str) -> bool:
        """Return whether what a device gives is known here: the gateway may know more than was looked at yet."""
        state = self._context.state(serial)
        if state is None:
            return False
        if (mate := self.mates.get(serial)) is not None:  # data come in parts, and that of its power may be the last
            return mate.power is not None or state.quality is Quality.OFFLINE
        return serial in self._unfit_ones or not self.names(state.device)

    def names(self, device: Device) -> bool:
        """Return whether the configuration has a device as a member."""
        plant = self._context.state(device.plant) if device.plant else None
        return self._settings.members.names(device, plant.device.name if plant is not None else "")

    def look(self, state: DeviceState) -> None:
        """Take in what a device measures, where it is a member, or has become one."""
        device = state.device
        mate = self.mates.get(device.serial)
        if mate is None or mate.device is not device:
            if not self.names(device):
                return
            takes = self._context.permitted(device, self._origin)
            mate = mate or Mate(device, takes)
            mate.device, mate.takes = device, takes
            if not device.setpoints or (not device.rated_power and self._is_young()):
                return  # who could set anything of it has not found it yet, or who knows its rated power
            if trouble := self._unfit(mate):
                self._context.find(FindingCode.NOT_STEERABLE, device.serial, *trouble)
                self.mates.pop(device.serial, None)
                self._unfit_ones.add(device.serial)
                return
            self._unfit_ones.discard(device.serial)
            self._context.settle(FindingCode.NOT_STEERABLE, device.serial)
            is_new = device.serial not in self.mates
            self.mates[device.serial] = mate
            mate.look(state)
            if is_new and self._awaited is not None:
                self._recall(mate)
        mate.look(state)

    def _unfit(self, mate: Mate) -> tuple[str, str] | None:
        """Return why a device that is named can't be a member, and what to do; None where it can."""
        serial = mate.device.serial
        if not mate.stores and LIMIT not in mate.takes:
            rule = f'- {{devices: ["{serial}"], setpoints: [{LIMIT}], origins: ["{self._origin}"]}}'
            return f"{serial} is a member, and the fleet may set neither its battery nor its limit", (
                f"control.allow: {rule}; for a battery battery_mode and battery_power_target"
            )
        if not mate.rated:
            return f"{serial} is a member, and its rated power is not known", "have it put right in the portal"
        owner = self._context.claim(serial)
        if owner != self._context.name:
            return f"{serial} is steered by {owner} already", "leave it out of one of both"
        return None

    def step(self, event: CommandEvent) -> None:
        """Take in a step of a command, where it is one to a member."""
        told = self.waiting.get(event.command.id)
        if told is None:
            return
        mate, ends = told.mate, told.ends
        if event.state is CommandState.SENT and not told.sent:
            told.sent = True
            mate.writes += 1
        if not event.state.final or event.correction:
            return
        del self.waiting[event.command.id]
        mate.pending -= {event.command.id}
        mate.ended = event.time
        match event.state:
            case CommandState.REJECTED if event.reason in PASSING:
                word, mate.told, mate.is_free = "", None, True
            case CommandState.SUCCEEDED:
                word = "ok"
                if not mate.pending:
                    mate.done()
            case CommandState.FAILED | CommandState.REJECTED:
                word = "refused"
                if not mate.takes_less(event.command.setpoint):
                    mate.refused(event.time)
            case CommandState.UNKNOWN:
                word = mate.trouble = "doubtful"
            case _:
                word = "late"
                mate.told, mate.is_free = None, True
        if ends is not None and word:
            ends[word] += 1

    def rename(self, command: Command, id_: str) -> Command:
        """Return a command that was refused for another's sake, to be given again under another id."""
        if (told := self.waiting.pop(command.id, None)) is not None:
            self.waiting[id_] = told
            told.mate.pending = (told.mate.pending - {command.id}) | {id_}
        return msgspec.structs.replace(command, id=id_)

    async def ask_after(self, now: datetime) -> None:
        """Ask what became of commands whose end is long overdue, some at a time."""
        overdue = (id_ for id_, told in self.waiting.items() if (now - told.asked).total_seconds() > ASKED_AFTER)
        for id_ in list(islice(overdue, ASKED_AT_ONCE)):
            try:
                steps = await self._context.steps(id_)
            except JournalError:
                return
            for event in steps:
                self.step(event)
            if (told := self.waiting.get(id_)) is not None:
                told.asked = now

    def judge(self, mates: Iterable[Mate], now: datetime) -> None:
        """Find out who can't be counted on, by what is measured, and who has had its writes."""
        for mate in mates:
            mate.count(self._settings.writes_per_day, now)
            if mate.trouble in SILENT:
                mate.trouble = ""
            if not mate.good and not mate.trouble:
                is_offline = mate.state is not None and mate.state.quality is Quality.OFFLINE
                mate.trouble = "offline" if is_offline else "stale"
            if mate.trouble == "doubtful" and mate.shows_it:
                mate.trouble = ""
            if not mate.trouble and mate.contradicts(self._settings.reserve_soc, self._settings.max_soc):
                mate.contradictions += 1
                mate.told = None
                mate.refused(now)
                mate.trouble = "contradicted" if mate.contradictions >= MAY_CONTRADICT else "doubtful"

    def count_days(self, now: datetime) -> None:
        """Begin to count writes and contradictions anew where a day (UTC) has begun, or the gateway has started."""
        if day_of(now) == self._day:
            return
        if self._day:
            self._learned.forget()
        is_first, self._day = not self._day, day_of(now)
        self._today.clear()
        for written in self._context.writes():
            if written.day == self._day:
                self._today[written.serial] += written.today
        for mate in self.mates.values():
            if is_first:
                mate.writes = self._today[mate.device.serial]
            else:
                mate.begin_day(self._today[mate.device.serial])
