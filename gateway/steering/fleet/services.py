"""Which services a fleet can serve, by what was measured of it. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Final

import msgspec

from gateway.core.model import FLEET, CommandState, Origin
from gateway.journal.audit import AuditRow
from gateway.steering.fleet.goals import SUPERSEDED
from gateway.steering.fleet.settings import PREFIX

LEAST: Final = 5
"""Targets without which nothing is said: what two of them took says little of the next."""
HELD: Final = 0.95
"""Part of the targets that have to hold: 95 % is what demand response asks (ERCOT ERS)."""
DAY, HOUR = 86_400, 3_600


class Service(msgspec.Struct, frozen=True):
    """What somebody may want of a fleet."""

    name: str
    within: float
    """Seconds in which a new target has to hold."""
    every: float
    """Seconds between targets."""
    why_never: str = ""
    """What no way by a cloud can promise, whatever was measured."""


SERVICES: Final = (
    Service("dispatch each 15 minutes", 450, 900),
    Service("dispatch each 5 minutes", 150, 300),
    Service("demand response, curtailment", 600, HOUR),
    Service("peak shaving on 15-minute demand", 300, 300),
    Service("operating envelope each 5 minutes", 300, 300),
    Service(
        "secondary reserve (aFRR, 4 s)", 4, 4, "a cloud tells and takes in seconds to minutes, and nobody times it"
    ),
    Service("export limit that holds in 5 s (G100)", 5, 5, "this takes the inverter's own meter: its export_limit"),
)
"""A target has to hold in half of its step; what shaves peaks needs three looks in a quarter of an hour."""


class Measured(msgspec.Struct, frozen=True):
    """What was measured, seconds; None where it was not."""

    targets: int
    held: int
    """Of these, how many held."""
    hold: float | None
    """From accepted to holding: 95 % took no longer."""
    member: float | None
    """From accepted to the end of a command to a member, the same."""
    told: float
    """Commands to members that a target took: 95 % took no more."""
    data_age: float | None
    """How old the data of 95 % of the members are at most."""


class Verdict(msgspec.Struct, frozen=True):
    """Whether a service can be served."""

    service: Service
    able: bool | None
    """None: nobody knows."""
    why: str


def measured(fleet: str, rows: Iterable[AuditRow], data_age: float | None) -> Measured:
    """Reckon up what rows of the audit tell of a fleet's targets, and of its commands to members."""
    who = Origin.of(FLEET, fleet.removeprefix(PREFIX))
    begun: dict[str, datetime] = {}
    children: defaultdict[str, int] = defaultdict(int)
    holds: list[float] = []
    members: list[float] = []
    ended: set[str] = set()
    for row in rows:
        of_member = Origin(row.origin).who == who and row.serial != fleet
        if row.correction or not (of_member or (row.serial == fleet and row.setpoint == "power_target")):
            continue
        if row.state == CommandState.ACCEPTED:
            begun[row.id] = row.moment
            if of_member and row.parent in begun and row.parent not in ended:  # later ones follow sun and clouds
                children[row.parent] += 1
        elif row.id in begun and row.state in _ENDS:
            took = (row.moment - begun[row.id]).total_seconds()
            if of_member:
                members.append(took)
            elif row.detail == SUPERSEDED:
                continue  # it had no time to hold
            else:
                ended.add(row.id)
                if row.verified:
                    holds.append(took)
    told = [float(children[id_]) for id_ in ended]
    return Measured(len(ended), len(holds), _most(holds), _most(members), _most(told) or 0.0, data_age)


_ENDS: Final = frozenset(state.value for state in CommandState if state.final)


def _most(values: Sequence[float]) -> float | None:
    """Return what 95 % are not above."""
    return sorted(values)[min(len(values) - 1, int(0.95 * len(values)))] if values else None


def verdicts(found: Measured, members: int, writes_per_day: int, calls: int | None) -> Iterator[Verdict]:
    """Yield each service, whether it can be served, and why not. `calls`: an hour, for control; None: no limit."""
    for service in SERVICES:
        if service.why_never:
            yield Verdict(service, able=False, why=service.why_never)
        elif found.targets < LEAST:
            yield Verdict(service, able=None, why=f"{found.targets} targets were measured; it takes {LEAST}")
        else:
            lacking = list(_lacking(service, found, members, writes_per_day, calls))
            yield Verdict(service, able=not lacking, why="; ".join(lacking))


def _lacking(service: Service, found: Measured, members: int, writes_per_day: int, calls: int | None) -> Iterator[str]:
    if found.held < HELD * found.targets:
        yield f"{found.held} of {found.targets} targets held, and {HELD:.0%} have to"
    if found.hold is not None and found.hold > service.within:
        yield f"a target takes {found.hold:.0f} s to hold, and has {service.within:.0f} s"
    if found.data_age is not None and found.data_age > service.every:
        yield f"data are {found.data_age:.0f} s old, and a target comes each {service.every:.0f} s"
    needed = found.told * HOUR / service.every
    if calls is not None and needed > calls:
        yield f"it takes {needed:.0f} calls an hour, and {calls} are kept for control"
    writes = found.told / max(1, members) * DAY / service.every
    if writes > writes_per_day:
        yield f"it takes {writes:.0f} writes of a member a day, and writes_per_day is {writes_per_day}"
