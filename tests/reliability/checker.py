"""Reconciles the records of a run. Independent: it shares no code with the gateway, only the words of DESIGN.

Values are unique within a setpoint of a device, so what a device was told names the command it came from.
"""

import hashlib
import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from tests.reliability.records import FINAL

SLACK = 1.0
"""Seconds between the gateway's last look at its clock and the simulator's note that the call came in."""
PROMPT = 2.5
"""Seconds in which a gateway that is up accepts a revert whose time has come, on a busy machine."""
PATHS = {
    ("accepted", "sent", "succeeded"), ("accepted", "sent", "failed"), ("accepted", "sent", "unknown"),
    ("accepted", "expired"), ("accepted", "superseded"),
}  # fmt: skip
UNSENT = {"expired", "superseded"}
REVERT = "revert"


@dataclass(frozen=True)
class Fault:
    """Something that must not be."""

    kind: str
    text: str

    def __str__(self):
        return f"{self.kind}: {self.text}"


@dataclass
class Verdict:
    """What came of it."""

    faults: list[Fault] = field(default_factory=list)
    figures: Counter = field(default_factory=Counter)

    def add(self, kind, text):
        self.faults.append(Fault(kind, text))

    @property
    def kinds(self):
        return {fault.kind for fault in self.faults}


def reconcile(records, *, over=True, slack=SLACK):
    """Compare the records; with `over`, also what only holds once the run has come to rest."""
    verdict = Verdict()
    lanes = defaultdict(list)
    for command in records.journal.values():
        if command.steps:
            lanes[command.lane].append(command)
    for commands in lanes.values():
        commands.sort(key=lambda command: command.steps[0].seq)
    _chain(records, verdict)
    _lives(records, verdict, over)
    _promises(records, verdict)
    _executions(records, lanes, verdict, slack)
    _publications(records, verdict, over)
    _timers(lanes, verdict, slack, over)
    _forgotten_timers(records, lanes, verdict)
    if over:
        _in_force(records, lanes, verdict)
    return verdict


def _chain(records, verdict):
    """Each row of the audit has the hash of the one before in its own, and none is missing."""
    before = None
    for *fields, digest in records.audit:
        text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
        if before is None and fields[0] == 1:
            before = 0, bytes(32)
        if before and (fields[0] != before[0] + 1 or hashlib.sha256(before[1] + text.encode()).digest() != digest):
            verdict.add("chain broken", f"row {fields[0]}")
        before = fields[0], digest
    verdict.figures["audit rows"] = len(records.audit)


def _lives(records, verdict, over):
    """Every command goes one of the allowed ways, and all of it."""
    for command in records.journal.values():
        path = tuple(command.path)
        verdict.figures["commands"] += 1
        verdict.figures[f"ended {command.end}" if command.end else "open"] += 1
        if path not in PATHS and (over or not any(allowed[: len(path)] == path for allowed in PATHS)):
            kind = "not ended" if command.end is None else "impossible life"
            verdict.add(kind, f"{command.id} {command.lane}: {' → '.join(path)}")
        last = command.steps[-1]
        early = command.end == "expired" and last.time < command.expires - 0.1
        if early and not last.detail.startswith("cancelled"):
            verdict.add("expired too early", f"{command.id} at {last.time}, not {command.expires}")


def _promises(records, verdict):
    """Nothing that a client was told is accepted is forgotten."""
    by_value = {(*c.lane, key_of(c.value)) for c in records.journal.values() if "accepted" in c.path}
    for promise in records.promised:
        verdict.figures[f"promised by {promise.by}"] += 1
        known = records.journal.get(promise.id) if promise.id else None
        found = (promise.serial, promise.setpoint, key_of(promise.value)) in by_value
        if not found or (promise.id and (known is None or "accepted" not in known.path)):
            verdict.add("lost", f"{promise.by} was told that {promise} is accepted; the journal has nothing of it")


def _executions(records, lanes, verdict, slack):
    """What devices did: each by a command that was in time, and never an older one after a newer one."""
    origin = defaultdict(list)
    for commands in lanes.values():
        for place, command in enumerate(commands):
            origin[(*command.lane, key_of(command.value))].append((place, command))
    newest = {}
    times = Counter()
    for action in records.executed:
        verdict.figures["executions"] += 1
        candidates = origin[(*action.lane, key_of(action.value))]
        if not candidates:
            verdict.add("out of nothing", f"{action} stems from no accepted command")
            continue
        # Only reverts have a value that came before; of those, the one that was alive then is it.
        place, command = min(candidates, key=lambda one: (not _alive(one[1], action.asked), times[one[1].id]))
        times[command.id] += 1
        if command.end in UNSENT:
            verdict.add("executed though it ended unsent", f"{action}: {command.id} {command.end}")
        if action.asked > command.expires + slack:
            verdict.add("late", f"{action} came {action.asked - command.expires:.3f} s after {command.id} had expired")
        if place < newest.get(action.lane, -1):
            verdict.add("stale", f"{action} of {command.id} came after that of a newer command")
        newest[action.lane] = max(place, newest.get(action.lane, -1))
    verdict.figures["executed again, with the same effect"] += sum(n - 1 for n in times.values())
    for commands in lanes.values():
        for command in commands:
            done = command.end == "succeeded" and "not sent again" not in command.steps[-1].detail
            if done and not times[command.id]:
                verdict.add("not done", f"{command.id} succeeded, and no device was told {command.value}")


def _alive(command, moment):
    """Return whether a command was between its first step and its last.

    Nothing is allowed for the way: the clock is the same one, the call comes after the first step and, but for one that
    was given up, before the last. With an allowance, the deed of a revert that follows another within milliseconds, as
    after a restart, would be taken for that of the one before.
    """
    return command.steps[0].time <= moment <= command.steps[-1].time


def _publications(records, verdict, over):
    """Every step is published at least once, in order; nothing is published that did not happen."""
    seen = defaultdict(list)
    for message in records.published:
        if message.id is not None:
            seen[message.id].append(message.state)
    for id_, all_states in seen.items():
        command = records.journal.get(id_)
        states = [state for state in all_states if state != "rejected"]  # Of a wish whose id belongs to another.
        path = command.path if command else []
        invented = set(states) - {step.state for step in command.steps} if command else set(states)
        if invented:
            verdict.add("published, not journaled", f"{id_}: {invented} beside {path}")
        firsts = [states.index(state) for state in path if state in states]
        if firsts != sorted(firsts):
            verdict.add("published out of order", f"{id_}: {states}")
        verdict.figures["steps published again"] += len(states) - len(set(states))
    if not over:
        return
    for command in records.journal.values():
        for state in command.path:
            verdict.figures["steps"] += 1
            if state not in seen[command.id]:
                verdict.add("not published", f"{command.id} {command.lane}: {state} of {command.path}")


def _timers(lanes, verdict, slack, over):
    """A dead-man's timer fires once its time is over, unless a newer command has taken its place; never before."""
    for commands in lanes.values():
        armed = [(place, c) for place, c in enumerate(commands)
                 if c.revert_after is not None and c.end in {"succeeded", "unknown"}]  # fmt: skip
        for place, command in armed:
            later = [c for c in commands[place + 1 :] if c.origin != REVERT and c.end in {"succeeded", "unknown"}]
            fired = [c for c in commands[place + 1 :]
                     if c.origin == REVERT and key_of(c.value) == key_of(command.revert_value)]  # fmt: skip
            begun = command.at("sent").time
            for revert in fired:
                verdict.figures["reverts"] += 1
                at = revert.steps[0].time
                if at < command.steps[0].time + command.revert_after - slack:
                    verdict.add("reverted too early", f"{revert.id} {at - begun:.3f} s after {command.id} was sent")
                replaced = [c for c in later if c.end == "succeeded" and c.steps[-1].seq < revert.steps[0].seq]
                if replaced:
                    verdict.add("reverted though replaced", f"{revert.id} of {command.id}, by then {replaced[0].id}")
            # One that ends as unknown starts no timer where one that ran already fires earlier: its value counts.
            earlier = command.end == "unknown" and any(
                c.origin == REVERT and c.end == "succeeded" for c in commands[place + 1 :]
            )
            if over and not fired and not later and not earlier:
                verdict.add("not reverted", f"{command.id} {command.lane}: {command.revert_value}")
            if fired and over and not any(c.end == "succeeded" for c in fired) and not later:
                verdict.add("not reverted", f"{command.id}: {[(c.id, c.end) for c in fired]}")


def _forgotten_timers(records, lanes, verdict):
    """A gateway that is up fires a timer whose time is over, unless a newer command for the setpoint is under way.

    One that was sent again after a restart counts from then on.

    One that is up has looked at its timers. So in each life that was up, and by then, a revert must have been accepted
    before the next command was.
    """
    came_in = {(*action.lane, key_of(action.value)): action.asked for action in records.executed}
    for commands in lanes.values():
        for place, command in enumerate(commands):
            if command.revert_after is None or command.end not in {"succeeded", "unknown"}:
                continue
            after = commands[place + 1 :]
            sent = max(command.at("sent").time, came_in.get((*command.lane, key_of(command.value)), 0.0))
            due = max(sent + command.revert_after, command.steps[-1].time)
            moment = next(_moments(records.lives, due), None)
            if moment is None:
                continue
            first = min((c.steps[0].time for c in after), default=None)
            if first is None or first > moment:
                verdict.add("not reverted in time", f"{command.id} {command.lane}, due at {due}: nothing by {moment}")


def _moments(lives, due):
    """When, in each life, a timer that was due has certainly been fired; only lives that lasted until then."""
    for up, ended in lives:
        if up is not None:
            moment = max(up, due + PROMPT)
            if ended is None or moment < ended:
                yield moment


def _in_force(records, lanes, verdict):
    """At the end devices have what was accepted last of what could be done."""
    for lane, commands in lanes.items():
        ends = [c.end for c in commands]
        if "succeeded" not in ends:
            continue
        last = len(ends) - 1 - ends[::-1].index("succeeded")
        # What is unknown, or failed with a message that may be wrong, may have been done as well.
        possible = {key_of(c.value) for c in commands[last:] if c.end in {"succeeded", "unknown"}}
        verdict.figures["lanes"] += 1
        if key_of(records.in_force.get(lane)) not in possible:
            verdict.add("not in force", f"{lane}: {records.in_force.get(lane)}, not {possible}")
        for place, command in enumerate(commands):
            if command.end == "superseded" and not any(c.end in FINAL for c in commands[place + 1 :]):
                verdict.add("superseded by nothing", command.id)


def key_of(value):
    """Numbers that are the same number are the same value, whatever their type; texts and truths are themselves."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    return round(float(value), 4)
