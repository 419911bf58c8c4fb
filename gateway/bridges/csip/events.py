"""What is in force, and what is to be answered: a pure function of programs, what was known before, and the time.

Times are the server's, in seconds since 1970. The rules, of IEEE 2030.5-2018 (12.1.3) as this gateway takes them:

- An event lasts from its start to its end, both moved by what was drawn for it; what is over is never begun.
- One that is to begin as another with the same mode ends begins when that really ends: what was drawn leaves no gap
  between them. And where only what was drawn has them overlap, the earlier one is over when the later one begins.
- Of events with the same mode the one of the program with the lowest primacy counts, then the one made last, then (of
  which the standard says nothing) the one that begins last. Who loses a mode has lost it for good: it does not come
  back when the other ends. Who has lost all its modes is superseded.
- Without an event the DefaultDERControl of the program with the lowest primacy counts, mode by mode; where the server
  has been silent for too long, the fallback instead.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import StrEnum
from typing import Final

import msgspec

from gateway.bridges.csip.resources import Control, EventStatus, Modes, Program, ResponseStatus

ON_RECEIPT: Final = 1
"""Bit of responseRequired: say that it was received."""
ON_STEPS: Final = 2
"""Bit of responseRequired: say what becomes of it."""


APART: Final = 5.0
"""Seconds that our idea of the server's time may be off: it tells whole seconds, and an answer takes its way."""


class Stage(StrEnum):
    """How far an event has come."""

    NEW = "new"
    RECEIVED = "received"
    STARTED = "started"
    ENDED = "ended"


class Signal(StrEnum):
    """What is to be said of an event now. The first that fits counts, in this order."""

    INVALID = "invalid"
    NOT_APPLICABLE = "not_applicable"
    CANCELLED = "cancelled"
    """Also where the server does not list it any more."""
    SUPERSEDED = "superseded"
    """The server says so, or all its modes are lost to events of its own program."""
    OTHER_PROGRAM = "other_program"
    """All its modes are lost, the last one to an event of another program."""
    OVER = "over"
    DUE = "due"
    AHEAD = "ahead"


class Step(msgspec.Struct, frozen=True):
    """What a signal makes of an event."""

    stage: Stage
    answer: ResponseStatus | None = None


def _end(answer: ResponseStatus) -> Step:
    return Step(Stage.ENDED, answer)


_ENDINGS: Final = {
    Signal.INVALID: _end(ResponseStatus.INVALID),
    Signal.NOT_APPLICABLE: _end(ResponseStatus.NOT_APPLICABLE),
    Signal.CANCELLED: _end(ResponseStatus.CANCELLED),
    Signal.SUPERSEDED: _end(ResponseStatus.SUPERSEDED),
    Signal.OTHER_PROGRAM: _end(ResponseStatus.OTHER_PROGRAM),
}
_RECEIVED: Final = Step(Stage.RECEIVED, ResponseStatus.RECEIVED)
STEPS: Final[Mapping[Stage, Mapping[Signal, Step]]] = {
    Stage.NEW: {
        **_ENDINGS,
        Signal.OVER: _end(ResponseStatus.TOO_LATE),
        Signal.DUE: _RECEIVED,
        Signal.AHEAD: _RECEIVED,
    },
    Stage.RECEIVED: {
        **_ENDINGS,
        Signal.OVER: _end(ResponseStatus.NONE_OF_IT),
        Signal.DUE: Step(Stage.STARTED, ResponseStatus.STARTED),
        Signal.AHEAD: Step(Stage.RECEIVED),
    },
    Stage.STARTED: {
        **_ENDINGS,
        Signal.OVER: _end(ResponseStatus.COMPLETED),
        Signal.DUE: Step(Stage.STARTED),
        # The clock was put back, or the event is another one under the same name: it goes on when it is due.
        Signal.AHEAD: Step(Stage.RECEIVED),
    },
    Stage.ENDED: {signal: Step(Stage.ENDED) for signal in Signal},
}
"""The whole life of an event."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of an event."""

    stage: Stage = Stage.NEW
    ends: float = 0.0
    lost: frozenset[str] = frozenset()
    """Modes that another event has taken."""
    follows: float | None = None
    """When the one before it ends, where it follows one: the server may list that no more."""
    done: bool = False
    """Something of it was carried out."""
    missed: bool = False
    """Something of it was not."""
    reply_to: str = ""
    required: int = 0


class Reply(msgspec.Struct, frozen=True):
    """A Response that is to be posted."""

    mrid: str
    status: ResponseStatus
    reply_to: str


class Held(msgspec.Struct, frozen=True):
    """A value that is in force for a mode."""

    value: float | bool
    event: str = ""
    """mRID of the event; "" for a default."""
    until: float | None = None
    """When that event ends; None for a default."""


class Plan(msgspec.Struct, frozen=True):
    """What comes of it."""

    in_force: Mapping[str, Held]
    """By mode."""
    baseline: Modes
    """What would be without any event."""
    records: Mapping[str, Record]
    replies: Sequence[Reply]


class _Event(msgspec.Struct):
    """An event of a program, with what was drawn for it."""

    control: Control
    primacy: int
    program: str
    start: float
    end: float
    modes: frozenset[str]
    """Those that can be carried out here."""
    follows: float | None = None

    @property
    def rank(self) -> tuple[int, int, int, str]:
        """The lowest counts."""
        return self.primacy, -self.control.created, -self.control.start, self.control.mrid

    def holds(self, now: float) -> bool:
        return self.start <= now < self.end


def with_tails(before: Sequence[Program], found: Sequence[Program], now: float) -> tuple[Program, ...]:
    """Return programs as the server lists them now, with the events that it lists no more and that last on.

    A server should list an event as long as it may last by what can be drawn. Some take it off the list when its time
    is over by the letter: that cancels nothing. Nor does it where the clocks are a little apart.
    """
    listed = {control.mrid for program in found for control in program.controls}
    tails = {
        program.mrid: tuple(each for each in program.controls if each.mrid not in listed and _lasts_on(each, now))
        for program in before
    }
    return tuple(
        msgspec.structs.replace(program, controls=program.controls + tails.get(program.mrid, ())) for program in found
    )


def _lasts_on(control: Control, now: float) -> bool:
    longest = max(0, control.random_start) + max(0, control.random_duration)
    return control.ends - APART <= now < control.ends + longest + APART


def plan(
    programs: Sequence[Program],
    records: Mapping[str, Record],
    now: float,
    draws: Callable[[str], tuple[float, float]],
    applicable: AbstractSet[str],
    fallback: Modes | None = None,
) -> Plan:
    """Return what is in force now, and what that means for each event.

    `draws` gives two numbers of [0, 1) for an mRID; `applicable` are the modes that can be carried out here; `fallback`
    counts before the programs' defaults, where it is given.
    """
    events = _events(programs, draws, applicable)
    _follow(events.values(), records)
    _give_way(events.values(), now)
    lost = _losses(events, records, now)
    after: dict[str, Record] = {}
    replies: list[Reply] = []
    for mrid, event in events.items():
        record = records.get(mrid, Record())
        taken, by = lost.get(mrid, (record.lost, ""))
        signal = _signal(event, record, taken, by, now)
        after[mrid] = _moved(mrid, record, signal, event, taken, replies)
    for mrid, record in records.items():
        if mrid not in events:
            # Who keeps to the standard lists an event, cancelled ones too, until its time is over.
            signal = Signal.OVER if now >= record.ends else Signal.CANCELLED
            after[mrid] = _moved(mrid, record, signal, None, record.lost, replies)
    baseline = _baseline(programs, applicable, fallback or {})
    in_force = {mode: Held(value) for mode, value in baseline.items()}
    for event in sorted(events.values(), key=lambda each: each.rank, reverse=True):
        record = after[event.control.mrid]
        if record.stage is Stage.STARTED and event.holds(now):
            for mode in event.modes - record.lost:
                in_force[mode] = Held(event.control.modes[mode], event.control.mrid, event.end)
    return Plan(in_force, baseline, after, replies)


def _events(
    programs: Sequence[Program], draws: Callable[[str], tuple[float, float]], applicable: AbstractSet[str]
) -> dict[str, _Event]:
    """Return the events by mRID. One that two programs list is of the one that counts more."""
    found: dict[str, _Event] = {}
    for program in sorted(programs, key=lambda each: (each.primacy, each.mrid)):
        for control in program.controls:
            if control.mrid in found:
                continue
            first, second = draws(control.mrid)
            start = control.start + first * control.random_start
            end = start + max(0.0, control.duration + second * control.random_duration)
            if control.status is EventStatus.CANCELLED_AT_RANDOM:
                most = max(abs(control.random_start), abs(control.random_duration))
                end = min(end, control.status_time + second * most)
            found[control.mrid] = _Event(
                control, program.primacy, program.mrid, start, end, frozenset(control.modes.keys() & applicable)
            )
    return found


def _follow(events: Iterable[_Event], records: Mapping[str, Record]) -> None:
    """Have each event that is to begin as another with the same mode ends begin when that really ends."""
    ends: dict[tuple[int, str], float] = {}
    for event in sorted(events, key=lambda each: each.control.start):
        control = event.control
        before = [ends[control.start, mode] for mode in event.modes if (control.start, mode) in ends]
        event.follows = max(before) if before else records.get(control.mrid, Record()).follows
        if event.follows is not None:
            event.start = event.follows
            event.end = max(event.start, event.end)
        if control.valid and control.duration > 0 and control.status in {EventStatus.SCHEDULED, EventStatus.ACTIVE}:
            ends.update({(control.ends, mode): event.end for mode in event.modes})


def _give_way(events: Iterable[_Event], now: float) -> None:
    """End what lasts on by what was drawn alone, where an event that was to come behind it has begun."""
    holding = [each for each in events if each.control.status <= EventStatus.ACTIVE and each.holds(now)]
    newest: dict[str, _Event] = {}
    for event in sorted(holding, key=lambda each: each.control.start):
        newest |= dict.fromkeys(event.modes, event)
    for event in holding:
        for mode in event.modes:
            if newest[mode].control.start >= event.control.ends:
                event.end = min(event.end, max(event.start, newest[mode].start))


def _losses(
    events: Mapping[str, _Event], records: Mapping[str, Record], now: float
) -> dict[str, tuple[frozenset[str], str]]:
    """Return, of each event that holds, the modes it has lost, and the program that took the last of them."""
    found: dict[str, tuple[frozenset[str], str]] = {}
    owners: dict[str, _Event] = {}
    for event in sorted(events.values(), key=lambda each: each.rank):
        record = records.get(event.control.mrid, Record())
        if record.stage is Stage.ENDED or not event.holds(now) or _said(event, record, now) is not None:
            continue
        taken = {mode for mode in event.modes if mode in owners}
        by = next((owners[mode].program for mode in sorted(taken, reverse=True)), event.program)
        lost = record.lost | taken
        found[event.control.mrid] = lost, by
        for mode in event.modes - lost:
            owners[mode] = event
    return found


def _said(event: _Event, record: Record, now: float) -> Signal | None:
    """Return what ends an event whatever the others do."""
    control = event.control
    if not control.valid or control.duration <= 0:
        return Signal.INVALID
    if not event.modes:
        return Signal.NOT_APPLICABLE
    if control.status is EventStatus.CANCELLED:
        return Signal.CANCELLED
    if control.status is EventStatus.CANCELLED_AT_RANDOM and not (record.stage is Stage.STARTED and event.holds(now)):
        return Signal.CANCELLED
    if control.status is EventStatus.SUPERSEDED:
        return Signal.SUPERSEDED
    return None


def _signal(event: _Event, record: Record, lost: frozenset[str], by: str, now: float) -> Signal:
    if (said := _said(event, record, now)) is not None:
        return said
    if event.holds(now) and event.modes <= lost:
        return Signal.SUPERSEDED if by in {"", event.program} else Signal.OTHER_PROGRAM
    if now >= event.end:
        return Signal.OVER
    return Signal.DUE if now >= event.start else Signal.AHEAD


def _moved(
    mrid: str, record: Record, signal: Signal, event: _Event | None, lost: frozenset[str], replies: list[Reply]
) -> Record:
    """Return a record as a signal leaves it, and add the replies. A new event that is due is received and started."""
    if event is not None:
        record = msgspec.structs.replace(
            record,
            ends=event.end,
            follows=event.follows,
            reply_to=event.control.reply_to,
            required=event.control.required,
        )
    record = msgspec.structs.replace(record, lost=lost)
    while True:
        step = STEPS[record.stage][signal]
        answer = step.answer
        if answer is ResponseStatus.COMPLETED and record.missed:
            answer = ResponseStatus.PARTIAL if record.done else ResponseStatus.NONE_OF_IT
        asked = record.required & (ON_RECEIPT if answer is ResponseStatus.RECEIVED else ON_STEPS)
        if answer is not None and asked and record.reply_to:
            replies.append(Reply(mrid, answer, record.reply_to))
        moved = msgspec.structs.replace(record, stage=step.stage)
        if moved.stage is record.stage:
            return moved
        record = moved


def _baseline(programs: Sequence[Program], applicable: AbstractSet[str], fallback: Modes) -> dict[str, float | bool]:
    found: dict[str, float | bool] = {}
    for program in sorted(programs, key=lambda each: (each.primacy, each.mrid), reverse=True):
        found.update(program.default)
    found.update(fallback)
    return {mode: value for mode, value in found.items() if mode in applicable}
