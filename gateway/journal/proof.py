"""What a fleet was told, what came of it, and what it gave, for whoever pays for it: with the audit's rows to check it.

Targets and ends follow from these rows, and are made anew when a proof is checked. Power does not stand in the audit:
it is what the gateway has kept, or what the cloud keeps, and whoever may read that can read it again.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Final

import msgspec

from gateway.core.model import FLEET, CommandState, Origin, Value
from gateway.core.points import NONE
from gateway.journal import audit
from gateway.journal.audit import AuditRow
from gateway.journal.chain import AuditReader

VERSION: Final = 2
PREFIX: Final = f"{FLEET}:"
MINUTE: Final = timedelta(minutes=1)
HELD: Final = timedelta(minutes=6)
"""How long a sample stands for what follows: the cloud keeps one every five minutes."""
TARGET, LIMIT = "power_target", "active_power_limit"
SHOWN: Final = 5
"""Rows that are named; of more is said how many there are."""


class Link(msgspec.Struct, frozen=True):
    """A row of the audit, and its hash, which covers all rows before it."""

    row: AuditRow
    hash: str


class Target(msgspec.Struct, frozen=True):
    """A command of the fleet. Times as in the audit, "" for what did not happen before the end."""

    id: str
    setpoint: str
    value: Value
    origin: str
    accepted: str
    sent: str
    ended: str
    state: str
    verified: bool
    detail: str


class Member(msgspec.Struct, frozen=True):
    """How the fleet's commands to one member ended."""

    serial: str
    ends: Mapping[str, int]
    """`verified`, or a state of commands → how many."""
    minutes: int
    """Of which its power was read from the cloud."""
    missing: str
    """Why there are none, where somebody said so."""


class Minute(msgspec.Struct, frozen=True, array_like=True):
    """Where the fleet stood at the begin of a minute."""

    time: str
    target: float | None
    """W; null where nothing was asked."""
    limit: float | None
    """% of its rated power."""
    power: float | None
    """W of the members of which it is known; null where it is known of none."""
    known: int
    """Of how many members."""
    source: str
    """`gateway`: as it was measured then; `cloud`: as it was read later; "" where nothing is known."""


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """One file."""

    version: int = VERSION
    fleet: str
    start: datetime
    end: datetime
    head: str
    """Number and hash of the audit's newest row when this was made."""
    completeness: float
    """Part of all members' minutes of which the power is known."""
    targets: list[Target]
    members: list[Member]
    minute_columns: tuple[str, ...] = Minute.__struct_fields__
    minutes: list[Minute]
    rows: list[Link]


def gathered(reader: AuditReader, fleet: str, start: datetime, end: datetime, noted: str = "") -> list[Link]:
    """Return the rows of a fleet and of its commands to members; of those before `start` what was in force then.

    Walks the whole audit; what does not fit is in the reader's `breaks`.
    """
    since, until, asker = audit.stamp(start), audit.stamp(end), Origin.of(FLEET, fleet.removeprefix(PREFIX))
    before: dict[str, Link] = {}
    found: list[Link] = []
    for row in reader.walk(noted):
        if row.time >= until or (row.serial != fleet and Origin(row.origin).who != asker):
            continue
        link = Link(row, reader.head.hash.hex())
        if row.time >= since:
            found.append(link)
        elif row.serial == fleet and row.state == CommandState.SENT:
            before[row.setpoint] = link
    return [*sorted(before.values(), key=lambda link: link.row.seq), *found]


def made(
    fleet: str,
    start: datetime,
    end: datetime,
    head: str,
    rows: list[Link],
    own: Mapping[int, tuple[float, int]],
    powers: Mapping[str, Sequence[tuple[datetime, float]]],
    missing: Mapping[str, str],
) -> Proof:
    """Return the proof.

    `own`: number of a minute after `start` → W of the fleet as the gateway measured it, and of how many members.
    `powers`: serial number of each member → what the cloud has of it, W, oldest first. Of a minute counts what is of
    more members.
    """
    filled = {serial: _by_minute(samples, start, end) for serial, samples in powers.items()}
    ends = _ends(fleet, rows)
    serials = sorted({*filled, *missing, *ends})
    members = [
        Member(
            serial,
            dict(sorted(ends.get(serial, Counter()).items())),
            len(filled.get(serial, ())),
            missing.get(serial, ""),
        )
        for serial in serials
    ]
    minutes = []
    for n, (time, target, limit) in enumerate(_asked(fleet, rows, start, end)):
        read = [power[n] for power in filled.values() if n in power]
        power, known = own.get(n, (0.0, 0))
        source = "gateway"
        if len(read) > known:
            power, known, source = sum(read), len(read), "cloud"
        minutes.append(
            Minute(time, target, limit, round(power, 1), known, source)
            if known
            else Minute(time, target, limit, None, 0, "")
        )
    return Proof(
        fleet=fleet,
        start=start,
        end=end,
        head=head,
        completeness=_completeness(minutes, len(members)),
        targets=_targets(fleet, rows),
        members=members,
        minutes=minutes,
        rows=rows,
    )


def wrong(proof: Proof, reader: AuditReader) -> list[str]:
    """Return what in a proof is not as the audit has it, in words; nothing where all is."""
    if proof.version != VERSION:
        return [f"its version is {proof.version}; this gateway reads version {VERSION}"]
    rows = gathered(reader, proof.fleet, proof.start, proof.end, proof.head)
    if reader.breaks:
        return [f"the audit: {each}" for each in reader.breaks]
    found: list[str] = []
    has = {link.row.seq: link for link in rows}
    said = {link.row.seq: link for link in proof.rows}
    for words, seqs in (
        ("not in the audit", said.keys() - has.keys()),
        ("left out", has.keys() - said.keys()),
        ("not as in the audit", {seq for seq in said.keys() & has.keys() if said[seq] != has[seq]}),
    ):
        if seqs:
            more = f" and {len(seqs) - SHOWN} more" if len(seqs) > SHOWN else ""
            found.append(f"rows {words}: {', '.join(map(str, sorted(seqs)[:SHOWN]))}{more}")
    if proof.targets != _targets(proof.fleet, rows):
        found.append("targets: they are not what follows from the audit")
    ends = _ends(proof.fleet, rows)
    if {m.serial: dict(m.ends) for m in proof.members if m.ends} != {
        serial: dict(each) for serial, each in ends.items()
    }:
        found.append("members: their ends are not what follows from the audit")
    asked = list(_asked(proof.fleet, rows, proof.start, proof.end))
    if [(minute.time, minute.target, minute.limit) for minute in proof.minutes] != asked:
        found.append("minutes: time, target or limit are not what follows from the audit")
    if proof.completeness != _completeness(proof.minutes, len(proof.members)):
        found.append("completeness: it is not what follows from the minutes")
    return found


def _targets(fleet: str, rows: Iterable[Link]) -> list[Target]:
    own = sorted((link.row for link in rows if link.row.serial == fleet and link.row.id), key=lambda row: row.id)
    found = []
    for id_, steps in groupby(own, key=lambda row: row.id):
        by_state = {row.state: row for row in sorted(steps, key=lambda row: row.seq)}
        first = next(iter(by_state.values()))
        end = next((row for state, row in by_state.items() if state in _ENDS and not row.correction), None)
        found.append(
            Target(
                id=id_,
                setpoint=first.setpoint,
                value=first.plain_value,
                origin=first.origin,
                accepted=_time(by_state, CommandState.ACCEPTED),
                sent=_time(by_state, CommandState.SENT),
                ended=end.time if end is not None else "",
                state=end.state if end is not None else list(by_state)[-1],
                verified=end is not None and bool(end.verified),
                detail=end.detail if end is not None else "",
            )
        )
    return sorted(found, key=lambda target: (target.accepted or target.sent or target.ended, target.id))


_ENDS: Final = frozenset(state.value for state in CommandState if state.final)


def _time(by_state: Mapping[str, AuditRow], state: CommandState) -> str:
    row = by_state.get(state.value)
    return row.time if row is not None else ""


def _ends(fleet: str, rows: Iterable[Link]) -> dict[str, Counter[str]]:
    """Return how commands to members ended: serial number → how → how many."""
    found: dict[str, Counter[str]] = {}
    for row in (link.row for link in rows):
        if row.serial != fleet and row.state in _ENDS and not row.correction:
            found.setdefault(row.serial, Counter())["verified" if row.verified else row.state] += 1
    return found


def _asked(
    fleet: str, rows: Iterable[Link], start: datetime, end: datetime
) -> Iterable[tuple[str, float | None, float | None]]:
    """Yield what was asked of the fleet at each minute: time, W, %."""
    sent = [link.row for link in rows if link.row.serial == fleet and link.row.state == CommandState.SENT]
    sent.sort(key=lambda row: row.seq)
    asked: dict[str, float | None] = {}
    at, time = 0, start
    while time < end:
        stamp = audit.stamp(time)
        while at < len(sent) and sent[at].time <= stamp:
            value = sent[at].plain_value
            asked[sent[at].setpoint] = float(value) if value != NONE and isinstance(value, (int, float)) else None
            at += 1
        yield stamp, asked.get(TARGET), asked.get(LIMIT)
        time += MINUTE


def _by_minute(samples: Sequence[tuple[datetime, float]], start: datetime, end: datetime) -> dict[int, float]:
    """Return the newest sample that stands for each minute: its number → W."""
    found: dict[int, float] = {}
    at, newest = 0, None
    for n in range(int((end - start) / MINUTE)):
        time = start + n * MINUTE
        while at < len(samples) and samples[at][0] <= time:
            newest = samples[at]
            at += 1
        if newest is not None and time - newest[0] < HELD:
            found[n] = newest[1]
    return found


def _completeness(minutes: Sequence[Minute], members: int) -> float:
    whole = len(minutes) * members
    return round(sum(minute.known for minute in minutes) / whole, 4) if whole else 0.0
