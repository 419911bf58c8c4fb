"""A gateway under a stream of commands that is killed again and again; then everything is reconciled."""

import random
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.kit.process import eventually
from tests.reliability import streams
from tests.reliability.checker import Verdict, reconcile
from tests.reliability.lateness import Lateness, lateness
from tests.reliability.records import save

CONTROL = ["SetActivePowerLimit", "SetReactivePower", "SetExportLimit", "GetControlResult"]
"""Not the login: refused, it is tried again after a minute, and not by the lives in between."""
FAULTS = {
    "lost answer": {"answer": "cut", "executed": True, "interfaces": ["SetExportLimit", "SetActivePowerLimit"]},
    "call lost": {"answer": "cut", "interfaces": ["SetExportLimit", "SetActivePowerLimit"]},
    "HTTP 500": {"answer": "http_500"},
    "HTTP 503": {"answer": "http_503"},
    "web page": {"answer": "html"},
    "truncated answer": {"answer": "truncated"},
    "empty answer": {"answer": "empty"},
    "late answer": {"delay": 0.4},
    "no data": {"answer": "null_data", "interfaces": ["GetControlResult"]},
    "token expired": {"answer": "token_expired"},
}
"""What the cloud does to some of the next answers. Those with `executed` are carried out all the same."""


@dataclass
class Report:
    seed: int
    kills: int = 0
    kills_while_starting: int = 0
    faults: Counter = field(default_factory=Counter)
    said: int = 0
    seconds: float = 0.0
    verdict: Verdict = field(default_factory=Verdict)
    lateness: Lateness = field(default_factory=Lateness)

    def lines(self):
        figures = self.verdict.figures
        yield f"seed {self.seed}, {self.seconds:.0f} s"
        yield f"  {self.kills:7} kills survived"
        yield f"  {self.kills_while_starting:7} of them during the start"
        yield f"  {self.said:7} wishes said"
        for name in sorted(figures):
            yield f"  {figures[name]:7} {name}"
        for name, count in sorted(self.faults.items()):
            yield f"  {count:7} times injected: {name}"
        yield from self.lateness.lines()
        yield f"  {len(self.verdict.faults):7} faults found"
        for fault in self.verdict.faults[:40]:
            yield f"          {fault}"


def crash(rig, *, seed, kills, faults=True, tell=lambda _: None):
    """Kill `kills` times, let it come to rest, reconcile."""
    begun = time.monotonic()
    dice = random.Random(seed)
    report = Report(seed)
    sources = streams.all_of(rig, seed)
    for source in sources:
        source.start()
    try:
        for _ in range(kills):
            _one_life(rig, dice, report, faults=faults)
            tell(report)
        _until_all_were_heard(rig, sources)
    finally:
        for source in sources:
            source.end()
        rig.spoil(clear=True)
    report.said = sum(source.said for source in sources)
    restless = ""
    try:
        come_to_rest(rig, sources[0].values)
    except AssertionError as error:
        restless = str(error)
    records = rig.records([p for source in sources for p in source.promised])
    save(records, rig.directory / "records.json")
    report.verdict, report.lateness = reconcile(records, over=not restless), lateness(records)
    if restless:
        report.verdict.add("does not come to rest", restless)
    report.seconds = time.monotonic() - begun
    return report


def _one_life(rig, dice, report, *, faults):
    rig.spoil(clear=True, device_delay=dice.choice((0, 0, 0.05, 0.3)))
    rig.start()
    if dice.random() < 0.2:
        streams.wait(dice.uniform(0.0, 1.2))
        report.kills_while_starting += 1
    else:
        rig.wait_until_ready()
        if faults and dice.random() < 0.4:
            name = dice.choice(sorted(FAULTS))
            rig.spoil(answers=[{"interfaces": CONTROL} | FAULTS[name] | {"times": dice.randint(1, 3)}])
            report.faults[name] += 1
        # Most are killed in the midst of what a start brings along; some live long enough for timers to run out.
        streams.wait(dice.uniform(0.0, 1.2) if dice.random() < 0.8 else dice.uniform(1.5, 5.0))
    rig.kill()
    report.kills += 1
    # Some wishes come while nobody is there, and some of those expire.
    streams.wait(dice.choice((0, 0, 0.1, 0.8)))


def _until_all_were_heard(rig, sources):
    """Live on until each source that gets an answer was promised something: on a busy machine that takes long."""
    rig.spoil(clear=True)
    rig.start()
    rig.wait_until_ready()
    answered = [source for source in sources if not isinstance(source, streams.Mqtt)]
    eventually(lambda: all(source.promised for source in answered), otherwise="not all sources were heard")


def come_to_rest(rig, values):
    """Wait, in one more life unless it runs, until every command has ended, after a last word for every setpoint.

    One of them has a dead-man's timer, which fires; none is left then. It ends in good order.
    """
    if rig.gateway is None:
        rig.start()
        rig.wait_until_ready()
    guarded = streams.GUARDED[0]
    last = {lane: values.next(lane) for lane in (*streams.BUSY, guarded)}
    client = streams.Mqtt(rig, values, 0, 1)
    client.open()
    try:
        for lane, value in last.items():
            more = {"revert_after": 1.0, "revert_value": values.next(lane)} if lane == guarded else {}
            client.command(lane, value, ttl=600, **more)
        eventually(lambda: not _unfinished(rig, last), otherwise=lambda: f"this does not end: {_unfinished(rig, last)}")
    finally:
        client.close()
    rig.stop()
    rig.watcher.settle()
    ended = {(c.lane, c.value): c.end for c in rig.commands()}
    # On a busy machine the timer's own word may take the place of the guarded one before that is sent.
    said = {lane: ended[lane, value] for lane, value in last.items() if lane != guarded}
    assert set(said.values()) == {"succeeded"}, f"the last word of a setpoint did not succeed: {said}"


def _unfinished(rig, last):
    known = {(command.lane, command.value) for command in rig.commands()}
    return [*(item for item in last.items() if item not in known), *rig.unended(), *rig.timers()]
