"""How late reverts of dead-man's timers leave, by a run's records: when each was due, when the cloud had its call.

Time in which nobody could have sent them does not count: while no gateway was up, and while the cloud was spoilt on
purpose. What counts is the time between due and done in which both were well, over all lives.
"""

import math
from bisect import bisect_left
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from tests.reliability.checker import key_of

EDGES = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0)
AIM = 2.0
"""Seconds, for 99.9 % of them."""
WIDTH = 40


@dataclass(frozen=True)
class Timer:
    """One that ran out, and was not replaced by a newer command."""

    id: str
    """Of the command that it is of."""
    due: float
    """POSIX seconds."""
    left: float | None
    """When the first call for its revert came in, spoilt or not; None for never."""
    done: float | None
    """When the call that the device obeyed came in."""
    late: float
    """Seconds until it left in which a gateway was up and the cloud well; of one that never left, all until the end."""
    late_done: float
    """The same until it was obeyed."""
    why: str = ""
    """What it had to wait for, as far as the records tell, where it was later than `AIM`."""


@dataclass
class Lateness:
    timers: list[Timer] = field(default_factory=list)
    replaced: int = 0
    """A newer command for the setpoint came before it fired."""

    def lines(self):
        if not self.timers:
            return
        yield f"  {len(self.timers):7} timers ran out; {self.replaced} more had a newer command take their place"
        if never := sum(timer.left is None for timer in self.timers):
            yield f"  {never:7} of them never left"
        for name, unsorted in (("left", [t.late for t in self.timers]), ("obeyed", [t.late_done for t in self.timers])):
            late = sorted(unsorted)
            share = sum(seconds <= AIM for seconds in late) / len(late)
            at = ", ".join(f"{100 * part:g} % {quantile(late, part):.3f} s" for part in (0.5, 0.99, 0.999, 1.0))
            yield f"  {name}: {share:.2%} within {AIM:g} s in which a gateway was up and the cloud well; {at}"
            yield from histogram(late)
        for why, count in Counter(timer.why for timer in self.timers if timer.late > AIM).most_common():
            yield f"  {count:7} left later than {AIM:g} s: {why}"


def quantile(ordered, share):
    """Return the smallest value that so many are not above."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def histogram(late):
    """Yield a line for each range that has any."""
    counts = Counter(bisect_left(EDGES, seconds) for seconds in late)
    most = max(counts.values())
    for place in range(max(counts) + 1):
        low = EDGES[place - 1] if place else 0
        name = f"{low:g} to {EDGES[place]:g} s" if place < len(EDGES) else f"over {low:g} s"
        yield f"  {name:>14} {counts[place]:7} {'#' * -(-WIDTH * counts[place] // most)}"


def lateness(records):
    """Return what is to be said of a run that has come to rest."""
    well = _well(records)
    lanes = defaultdict(list)
    for command in records.journal.values():
        lanes[command.lane].append(command)
    calls, obeyed = _arrivals(records.calls), _arrivals(records.executed)
    found = Lateness()
    for commands in lanes.values():
        commands.sort(key=lambda command: command.steps[0].seq)
        for place, command in enumerate(commands):
            if command.revert_after is None or command.end not in {"succeeded", "unknown"}:
                continue
            timer = _timer(command, commands[place + 1 :], calls, obeyed, well, records.lives)
            if timer is None:
                found.replaced += 1
            else:
                found.timers.append(timer)
    return found


def _timer(command, after, calls, obeyed, well, lives):
    """Return what became of a command's timer; None where a newer command took its place."""
    accepted = command.steps[0].time
    # One that was sent again after a restart counts from then on. Of a call that was lost in a kill nobody knows when
    # it was made; not before the command was accepted.
    made = calls.get((command.lane, key_of(command.value)), [])
    sent = max((at for at in made if accepted <= at <= command.steps[-1].time), default=accepted)
    due = sent + command.revert_after
    left = _first(calls, command.lane, command.revert_value, accepted)
    done = _first(obeyed, command.lane, command.revert_value, accepted)
    newer = min((c.steps[0].time for c in after if c.origin != "revert"), default=None)
    if newer is not None and (left is None or newer < left):
        return None
    late, late_done = (_between(well, due, moment) for moment in (left, done))
    why = _why(command, after, due, left, lives) if late > AIM else ""
    return Timer(command.id, due, left, done, late, late_done, why)


def _why(command, after, due, left, lives):
    reverts = [c for c in after if c.origin == "revert" and key_of(c.value) == key_of(command.revert_value)]
    if not reverts:
        return "no revert was accepted"
    if command.steps[-1].time > due + AIM:
        return "its own command had no end before"
    accepted = reverts[0].steps[0].time
    if any(ended is not None and accepted < ended and (left is None or ended < left) for _, ended in lives):
        return "accepted right before a kill; after the restart the cloud was asked about it first"
    if accepted > due + AIM:
        return "accepted late"
    return "accepted in time, then waited for its call"


def _well(records):
    """Return the stretches of time in which a gateway was up and nothing was spoilt, in order."""
    found = []
    for up, ended in records.lives:
        if up is None:
            continue
        begin, end = up, float("inf") if ended is None else ended
        for since, over in records.troubles:
            until = float("inf") if over is None else over
            if until <= begin or since >= end:
                continue
            if since > begin:
                found.append((begin, since))
            begin = min(until, end)
        if begin < end:
            found.append((begin, end))
    return found


def _between(well, due, moment):
    """Return how much of these stretches lies between two times; `moment` None is the end of the run."""
    end = max((end for _, end in well), default=due) if moment is None else moment
    return sum(max(0.0, min(end, until) - max(due, since)) for since, until in well)


def _arrivals(deeds):
    """Return lane and value → when calls for it came in, in order."""
    found = defaultdict(list)
    for action in deeds:
        found[action.lane, key_of(action.value)].append(action.asked)
    return {key: sorted(times) for key, times in found.items()}


def _first(arrivals, lane, value, since):
    times = arrivals.get((lane, key_of(value)), [])
    place = bisect_left(times, since)
    return times[place] if place < len(times) else None
