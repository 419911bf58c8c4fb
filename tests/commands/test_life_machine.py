"""The life of a command against random interleavings of wishes, results, failures, crashes, clock steps and restarts.

Each invariant is a test of its own, over schedules of its own. `SEMS_GATEWAY_SCHEDULES` is how many there are
altogether; `make reliability` runs tens of thousands.
"""

import asyncio
import gc
import hashlib
import math
import os
import shutil
import sys
import tempfile
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from gateway.commands.executor import KEPT
from gateway.commands.state_machine import LIFE
from gateway.commands.timers import fallback
from gateway.core.controller import Outcome, ResultEffect
from gateway.core.model import Command, CommandState, Origin, Snapshot, new_command_id
from gateway.core.points import SETPOINTS
from gateway.journal.journal import JournalError
from tests.kit.clock import FakeClock, VirtualLoop
from tests.kit.life_world import DEVICES, MOST, PERMITTED, Core, World

# Who is killed leaves steps behind that had not begun.
pytestmark = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")

# In CI the schedules are always the same ones: whoever breaks something sees it, and nobody else.
CI = "SEMS_GATEWAY_SCHEDULES" not in os.environ
SCHEDULES = int(os.environ.get("SEMS_GATEWAY_SCHEDULES", "300"))
SHRINK = "SEMS_GATEWAY_NO_SHRINK" not in os.environ
"""Whether the shortest schedule is looked for that fails; it takes minutes."""
STEPS = 25
MEMORY = Path("/dev/shm")
"""No disk, for what a disk forgets is not the subject here."""
IN_TIME = 70.0
"""Seconds that a revert may take on a disk that is full or slow several times; less than what a mistake makes of it."""
QUIET = 100_000.0
"""Seconds after which, with everything well again, all has to have ended."""

KEYS = [(device.serial, setpoint) for device in DEVICES for setpoint in PERMITTED]
VALUES = {
    "active_power_limit": st.sampled_from([10.0, 20.0, 30.0, 90.0]),
    "battery_mode": st.sampled_from(["charge", "discharge", "idle"]),
    "battery_power_target": st.sampled_from([1000.0, 2000.0, 3000.0]),
    "running": st.sampled_from([True, False]),
}
HOW_SENT = ["obeys", "away", "busy", "refuses", "lost", "bug", "hangs", "deaf", "late", "dies", "obeys, then dies",
            "obeys, no answer", "obeys, then hangs", "obeys, no receipt"]  # fmt: skip
HOW_ASKED = ["says", "verified", "away", "unsure", "bug", "refuses", "hangs", "slow", "silent", "failed"]
HOW_WRITTEN = ["", "full", "slow", "dies before", "dies after"]
LIKELY = [["", "slow"], ["", "dies after"], ["", "", "dies before"], ["", "", "dies after"], ["", "", "", "dies after"]]
"""Between two moves of one command: accepted, handed over, sent, ended."""

tried = dict.fromkeys(("schedules", "moves", "crashes", "restarts", "commands", "executions", "timers"), 0)
outcomes = hashlib.sha256()
"""Over what came of every schedule; equal where all went the same way."""


class Gateway(RuleBasedStateMachine):
    """What can happen, in any order. `check` is called when all has ended."""

    check = None

    @initialize(threads=st.integers(0, 2**32 - 1))
    def begin(self, threads):
        """Begin a first life. `threads` is the seed by which the journal's two threads are played."""
        self.runner = asyncio.Runner(loop_factory=partial(VirtualLoop, threads))
        self.directory = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        self.accepted = {}
        """Id → command that somebody was told is accepted."""
        self.asked = {}
        self.deadlines = {}
        """Life and id → until when it may be executed, on the monotonic clock."""
        self.told = []
        """Every step that was published, with the life it was in."""
        self.unpublished = set()
        """Steps that the journal had when the gateway was killed before it could tell."""
        self.halts = []
        self.lives = {}
        self.number = 0
        self.run(self._begin())
        tried["schedules"] += 1

    async def _begin(self):
        self.clock = FakeClock()
        self.world = World(self.clock)
        await self._live()

    async def _live(self, *, enabled=True):
        """Begin a life. It may be over before it has begun."""
        while True:
            self.number += 1
            self.core = Core(self.world, self.directory, self.number, enabled=enabled, on_step=self._step)
            self.lives[self.number] = self.core
            if await self._race(self.core.start()):
                return
            await self._bury()

    async def _race(self, work):
        """Do something, unless the gateway dies of it; return whether it lives."""
        task = asyncio.ensure_future(work)
        died = asyncio.ensure_future(self.core.died.wait())
        await asyncio.wait([task, died], return_when=asyncio.FIRST_COMPLETED)
        lives = not self.core.dead
        for each in (task, died):
            each.cancel()
        found = (await asyncio.gather(task, died, return_exceptions=True))[0]
        if lives and isinstance(found, Exception):
            raise found
        self.found = found if lives else None
        return lives

    async def _bury(self):
        """Bury a killed gateway, and note what it had written down and not told."""
        tried["crashes"] += 1
        self.world.commits.clear()
        await self.core.bury(self._note_unpublished)

    def _step(self, event):
        self.told.append((self.core.number, event, self.clock.monotonic()))
        if event.state is CommandState.ACCEPTED:
            self._is_accepted(event.command)

    def _is_accepted(self, command):
        self.accepted.setdefault(command.id, command)

    def run(self, work):
        tried["moves"] += 1
        return self.runner.run(work)

    async def _do(self, work):
        """Do something the gateway may be killed in; go on with the next life if it was."""
        if not await self._race(work):
            await self._bury()
            await self._live()
        return self.found

    def _note_unpublished(self, history):
        known = {(event.command.id, event.state, event.correction) for _, event, _ in self.told}
        for event in history:
            self._is_accepted(event.command)
            step = event.command.id, event.state, event.correction
            if step not in known:
                self.unpublished.add(step)

    # what can happen

    @rule(
        serial=st.sampled_from([device.serial for device in DEVICES]),
        wishes=st.lists(st.sampled_from([*PERMITTED, "running"]).flatmap(
            lambda s: st.tuples(st.just(s), VALUES[s])), min_size=1, max_size=2, unique_by=lambda w: w[0]),
        ttl=st.sampled_from([5.0, 5.0, 60.0, 300.0]),
        revert_after=st.sampled_from([None, None, 10.0, 100.0]),
        origin=st.sampled_from(["test", "test", "test", "test", "stranger"]),
        bulk=st.booleans(),
        pause=st.sampled_from([0.0, 0.001, 0.5]),
        disk=st.sampled_from([None] * 5 + LIKELY),
        calls=st.sampled_from([None] * 10 + HOW_SENT),
    )  # fmt: skip
    def submit(self, serial, wishes, ttl, revert_after, origin, bulk, pause, disk, calls):
        if disk is not None:
            self.disk_does(disk)
        if calls is not None:
            self.calls_go([calls])
        self.run(self._submit(serial, wishes, ttl, revert_after, origin, pause, bulk))

    async def _submit(self, serial, wishes, ttl, revert_after, origin, pause, bulk):
        now = self.clock.now()
        commands = [
            Command(id=new_command_id(), serial=serial, setpoint=setpoint, value=value, origin=origin, created=now,
                    expires=now + timedelta(seconds=ttl), revert_after=revert_after, bulk=bulk)
            for setpoint, value in wishes
        ]  # fmt: skip
        tried["commands"] += len(commands)
        self.asked.update((command.id, command) for command in commands)
        for command in commands:
            self.deadlines[command.id] = self.core.number, self.clock.monotonic() + ttl
        self._answered(await self._do(self.core.dispatcher.submit(*commands)))
        await self._do(asyncio.sleep(pause))

    def _answered(self, events):
        for event in events or []:
            if event.state is CommandState.ACCEPTED:
                self._is_accepted(event.command)

    @precondition(lambda self: self.asked)
    @rule(which=st.integers(0, 5), other=st.booleans())
    def submit_again(self, which, other):
        """The same id once more: the same wish, or another."""
        self.run(self._submit_again(self._one(which), other))

    async def _submit_again(self, command, other):
        if other and command.setpoint == "active_power_limit":
            command = Command(**{f: getattr(command, f) for f in command.__struct_fields__} | {"value": 77.0})
        if command.id not in self.accepted:
            left = (command.expires - self.clock.now()).total_seconds()
            self.deadlines[command.id] = self.core.number, self.clock.monotonic() + left
        self._answered(await self._do(self.core.dispatcher.submit(command)))

    def _one(self, which):
        ids = list(self.asked)
        return self.asked[ids[max(0, len(ids) - 1 - which)]]

    @rule(hows=st.lists(st.sampled_from(HOW_SENT), min_size=1, max_size=3))
    def go(self, hows):
        self.calls_go(hows)

    def calls_go(self, hows):
        self.world.sends = type(self.world.sends)(hows)

    @rule(hows=st.lists(st.sampled_from(HOW_ASKED), min_size=1, max_size=3))
    def results_come(self, hows):
        self.world.results = type(self.world.results)(hows)

    @rule(hows=st.sampled_from(LIKELY) | st.lists(st.sampled_from(HOW_WRITTEN), min_size=1, max_size=4))
    def write(self, hows):
        self.disk_does(hows)

    def disk_does(self, hows):
        self.world.commits = type(self.world.commits)(hows)

    @precondition(lambda self: self.asked)
    @rule(which=st.integers(0, 5), honest=st.booleans(), verified=st.booleans(), twice=st.booleans(),
          lie=st.sampled_from([CommandState.SUCCEEDED, CommandState.FAILED, CommandState.UNKNOWN]))  # fmt: skip
    def tell(self, which, honest, verified, twice, lie):
        self.run(self._tell(self._one(which), honest, verified, twice, lie))

    async def _tell(self, command, honest, verified, twice, lie):
        executed = self.world.executed(command.id)
        state = lie
        if honest:
            if not executed and command.id in self.world.handed:
                return
            state = CommandState.SUCCEEDED if executed else CommandState.UNKNOWN
        if (state is CommandState.SUCCEEDED) != executed and state is not CommandState.UNKNOWN:
            self.world.lied.add(command.id)
        outcome = Outcome(state, "told", verified=verified)
        for _ in range(1 + twice):
            try:
                verdict = await self._do(self.core.dispatcher.result_came(command.id, outcome))
            except JournalError:
                continue
            if verdict is ResultEffect.UNMATCHED:
                assert command.id not in self.accepted

    @precondition(lambda self: self.asked)
    @rule(which=st.lists(st.integers(0, 5), min_size=1, max_size=3))
    def cancel(self, which):
        ids = [self._one(each).id for each in which]
        self.run(self._cancel(ids))

    async def _cancel(self, ids):
        with suppress(JournalError):
            await self._do(self.core.dispatcher.cancel(ids, "somebody"))

    @rule(serial=st.sampled_from([device.serial for device in DEVICES]), age=st.sampled_from([0.0, 5.0]))
    def read_back(self, serial, age):
        """A source tells what is in force."""
        self.run(self._read_back(serial, age))

    async def _read_back(self, serial, age):
        values = {setpoint: value for (s, setpoint), value in self.world.force.items() if s == serial}
        time = self.clock.now() - timedelta(seconds=age)
        self.core.router.publish(Snapshot(serial=serial, time=time, source="source", interval=600, values=values))
        await self._do(asyncio.sleep(0.001))

    @rule(key=st.sampled_from(KEYS))
    def somebody_uses_the_app(self, key):
        if key in self.world.force:
            self.world.force[key] = "idle" if key[1] == "battery_mode" else 55.0
            self.world.tampered.add(key)

    @rule(seconds=st.sampled_from([0.001, 1.0, 6.0, 30.0, 121.0, 500.0]))
    def time_passes(self, seconds):
        self.run(self._do(asyncio.sleep(seconds)))

    @rule(seconds=st.sampled_from([-3600.0, -60.0, 60.0, 3600.0]))
    def wall_clock_steps(self, seconds):
        self.run(self._clock_changes(partial(self.clock.jump, seconds)))

    @rule(seconds=st.sampled_from([1.0, 60.0, 7200.0]))
    def machine_sleeps(self, seconds):
        self.run(self._clock_changes(partial(self.clock.sleep, seconds)))

    async def _clock_changes(self, change):
        """The gateway looks at its clock all the time."""
        self.core.dispatcher.look_at_clock()
        change()
        self.core.dispatcher.look_at_clock()
        await self._do(asyncio.sleep(0.001))

    @rule(away=st.sampled_from([0.0, 10.0, 400.0]), enabled=st.sampled_from([True, True, False]))
    def crash(self, away, enabled):
        self.run(self._crash(away, enabled))

    async def _crash(self, away, enabled):
        self.core.die()
        await self._bury()
        await asyncio.sleep(away)
        await self._live(enabled=enabled)

    @rule(away=st.sampled_from([0.0, 10.0]), enabled=st.sampled_from([True, True, False]))
    def restart(self, away, enabled):
        self.run(self._restart(away, enabled))

    async def _restart(self, away, enabled):
        self.core.ended_at = self.clock.monotonic()
        await self._do(self.core.dispatcher.stop())
        self.world.commits.clear()
        if await self._race(self.core.stop()):
            await asyncio.sleep(away)
            await self._live(enabled=enabled)
        tried["restarts"] += 1

    @precondition(lambda self: self.accepted)
    @rule()
    def halt_or_resume(self):
        self.run(self._halt_or_resume())

    async def _halt_or_resume(self):
        halting = self.core.policy.halting
        if halting.current is None:
            await halting.halt("test", "because")
            self.halts.append([self.clock.monotonic(), None, self.core.number])
        else:
            await halting.resume(Origin("test"))
            self.halts[-1][1] = self.clock.monotonic()

    # when all has happened

    def teardown(self):
        if not hasattr(self, "runner"):
            return
        try:
            self.run(self._quiet_down())
            if self.check is not None:
                self.check(self)
        finally:
            self.run(self._end())
            self.runner.close()
            shutil.rmtree(self.directory)

    async def _quiet_down(self):
        """Let everything be well, and all that was promised come to its end."""
        for queue in (self.world.sends, self.world.results, self.world.commits):
            queue.clear()
        await self._do(asyncio.sleep(30.0))  # what was slow, or deadly, is over now
        if not self.core.enabled:
            await self.core.stop()
            await self._live()
        if self.core.policy.halting.current is not None:
            await self.core.policy.halting.resume(Origin("test"))
            self.halts[-1][1] = self.clock.monotonic()
        waited = 0.0
        while waited < QUIET:
            await self._do(asyncio.sleep(500.0))
            waited += 500.0
            if not await self.core.journal.open_commands() and not await self.core.journal.reverts():
                break
        self.order = await self.core.journal._read(
            lambda db: [row[0] for row in db.execute("SELECT id FROM audit WHERE state = 'accepted' ORDER BY seq")]
        )
        ids = {*self.asked, *self.accepted, *self.order}
        self.histories = {id_: await self.core.journal.history(id_) for id_ in ids}
        self.open = await self.core.journal.open_commands()
        self.reverts = await self.core.journal.reverts()
        tried["executions"] += len(self.world.executions)
        outcomes.update(repr(self.outcome()).encode())

    async def _end(self):
        await self.core.bury()

    def outcome(self):
        """Return who was told what, and what the plant did, and when; ids as numbers, for those are by chance."""
        numbers = {}

        def number(command):
            return numbers.setdefault(command.id, len(numbers)), command.setpoint, command.value

        steps = [(life, number(event.command), event.state, event.reason, event.correction, at)
                 for life, event, at in self.told]  # fmt: skip
        return steps, [(number(e.command), e.controller, e.at, e.life) for e in self.world.executions]

    def end_of(self, id_):
        ends = [event for event in self.histories[id_] if event.state.final and not event.correction]
        return ends[-1] if ends else None

    def executions_of(self, key):
        return [e for e in self.world.executions if (e.command.serial, e.command.setpoint) == key]


# the invariants


def no_command_is_executed_after_its_expiry(gateway):
    for execution in gateway.world.executions:
        command = execution.command
        life, deadline = gateway.deadlines.get(command.id, (0, 0.0))
        if command.is_revert:
            continue
        if life == execution.life:
            assert execution.at <= deadline, "executed after its expiry"
        else:
            # In another life only the wall clock tells, as it was when that life began.
            life = gateway.lives[execution.life]
            left = (command.expires - life.began_wall).total_seconds()
            assert execution.at <= life.began_at + left, "executed after its expiry, across a restart"


def nothing_that_policy_refuses_leaves_the_process(gateway):
    for execution in gateway.world.executions:
        command = execution.command
        if command.is_revert:
            continue
        assert command.origin in {"test", "gateway"}, "who may not has commanded"  # the gateway renews orders
        assert command.setpoint in PERMITTED
        assert command.setpoint != "active_power_limit" or command.value <= MOST
        assert gateway.lives[execution.life].enabled, "control is disabled"
        for began, ended, life in gateway.halts:
            over = ended is not None and execution.handed >= ended
            assert life != execution.life or execution.handed <= began or over, "control is halted"


def the_last_accepted_value_ends_up_in_force(gateway):
    place = {id_: number for number, id_ in enumerate(gateway.order)}
    for key in KEYS:
        done = gateway.executions_of(key)
        places = [place[execution.command.id] for execution in done]
        assert places == sorted(places), "an older command was executed after a newer one"
        mine = [id_ for id_ in gateway.order if _key(gateway, id_) == key]
        if not mine or mine[-1] in gateway.world.lied or key in gateway.world.tampered:
            continue
        last = gateway.histories[mine[-1]]
        if last[-1].detail == KEPT:
            continue
        if last[-1].state is CommandState.SUCCEEDED and not _ever_tampered_or_lied(gateway, key):
            assert gateway.world.force[key] == last[0].command.value


def every_command_has_one_end_and_every_step_is_told_once(gateway):
    published = [(event.command.id, event.state, event.correction) for _, event, _ in gateway.told
                 if event.state is not CommandState.REJECTED]  # fmt: skip
    assert len(published) == len(set(published)), "a step was told twice"
    for id_, history in gateway.histories.items():
        if not history:
            continue  # it was refused
        states = [event.state for event in history if not event.correction]
        ends = [state for state in states if state.final]
        assert len(ends) == 1, f"{len(ends)} ends"
        assert states[-1] is ends[0]
        if ends[0] in (CommandState.EXPIRED, CommandState.SUPERSEDED):
            assert not gateway.world.executed(id_), f"{ends[0]}, and was executed"
        for before, after in zip([None, *states], states, strict=False):
            assert any(b is before and a is after for (b, _), a in LIFE.items()), f"{before} to {after}"
        corrections = [event for event in history if event.correction]
        assert len(corrections) <= (ends[0] is CommandState.UNKNOWN)
        for event in history:
            step = (id_, event.state, event.correction)
            assert step in published or step in gateway.unpublished, f"{event.state} was not told"


def nothing_accepted_is_forgotten_by_a_crash(gateway):
    assert gateway.open == []
    for id_ in gateway.accepted:
        history = gateway.histories.get(id_, [])
        assert history, "an accepted command is gone"
        assert gateway.end_of(id_) is not None, "it never came to an end"
        if gateway.end_of(id_).state is CommandState.SUCCEEDED and id_ not in gateway.world.lied:
            detail = gateway.end_of(id_).detail
            assert "in force already" in detail or detail == KEPT or gateway.world.executed(id_), (
                "said to have succeeded, and was never sent"
            )


def a_dead_mans_timer_always_fires(gateway):
    assert gateway.reverts == [], "a timer still runs"
    for key in KEYS:
        done = gateway.executions_of(key)
        if not done:
            continue
        last = done[-1].command
        if last.revert_after is None or last.id in gateway.world.lied:
            continue
        back = key[0], fallback(last)[0]
        if {key, back} & gateway.world.tampered:
            continue
        if gateway.end_of(last.id).state in (CommandState.SUCCEEDED, CommandState.UNKNOWN):
            later = [i for i in gateway.order[gateway.order.index(last.id) :] if _key(gateway, i) == back]
            reverted = any(gateway.histories[i][0].command.is_revert and gateway.world.executed(i) for i in later)
            ended = any(gateway.histories[i][0].command.revert_after is None
                        and gateway.end_of(i).state is CommandState.SUCCEEDED for i in later)  # fmt: skip
            lied = any(i in gateway.world.lied for i in later)
            assert reverted or ended or lied, f"{last.value} is still in force, and was to go back to {fallback(last)}"


def a_dead_mans_timer_fires_in_time(gateway):
    """In the life in which its command ended, unless that life is over before, or another command is under way."""
    published = {}
    for life, event, at in gateway.told:
        if not event.correction:
            published.setdefault(event.command.id, {})[event.state] = life, at
    lanes = {}
    for id_ in gateway.order:
        lanes.setdefault(_lane(gateway, id_), []).append(id_)
    corrected = {_lane(gateway, event.command.id) for _, event, _ in gateway.told if event.correction}
    for lane, ids in lanes.items():
        spans = {id_: _span(published.get(id_, {})) for id_ in ids}
        for id_ in ids if lane not in corrected else ():
            command = gateway.histories[id_][0].command
            ends = published.get(id_, {})
            life, ended = ends.get(CommandState.SUCCEEDED) or ends.get(CommandState.UNKNOWN) or (0, 0.0)
            if command.revert_after is None or not life:
                continue
            late = ended + command.revert_after + IN_TIME
            others = [other for other in ids if other != id_]
            reverts = {o for o in others if gateway.histories[o][0].command.is_revert and spans[o][0] >= ended}
            hindered = any(spans[o][0] <= late and spans[o][1] >= ended for o in others if o not in reverts)
            if hindered or late >= gateway.lives[life].ended_at:
                continue
            tried["timers"] += 1
            back = command.serial, fallback(command)[0]
            assert any(_key(gateway, o) == back and spans[o][0] <= late for o in reverts), (
                f"{command.revert_after} s after {command.value}, and {IN_TIME} s more, nothing has set it back"
            )


def _span(states):
    """From when to when a command was under way, as far as was published; else always."""
    ends = [at for state, (_, at) in states.items() if state.final]
    accepted = states.get(CommandState.ACCEPTED)
    return (accepted[1] if accepted else -math.inf), (ends[0] if ends else math.inf)


def _lane(gateway, id_):
    serial, setpoint = _key(gateway, id_)
    return serial, SETPOINTS[setpoint].group or setpoint


def a_command_is_never_given_to_both_controllers(gateway):
    for id_, names in gateway.world.handed.items():
        assert len(set(names)) == 1, f"{id_} went to {names}"


def _key(gateway, id_):
    command = gateway.histories[id_][0].command
    return command.serial, command.setpoint


def _ever_tampered_or_lied(gateway, key):
    return any(_key(gateway, id_) == key for id_ in gateway.world.lied if gateway.histories.get(id_))


INVARIANTS = [
    no_command_is_executed_after_its_expiry,
    nothing_that_policy_refuses_leaves_the_process,
    the_last_accepted_value_ends_up_in_force,
    every_command_has_one_end_and_every_step_is_told_once,
    nothing_accepted_is_forgotten_by_a_crash,
    a_dead_mans_timer_always_fires,
    a_command_is_never_given_to_both_controllers,
    a_dead_mans_timer_fires_in_time,
]


@pytest.fixture(autouse=True)
def _quiet():
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    yield
    structlog.configure(**before)
    gc.collect()  # while `pytestmark` holds


@pytest.mark.parametrize("invariant", INVARIANTS, ids=lambda check: check.__name__)
def test_invariant(invariant):
    class Checked(Gateway):
        check = staticmethod(invariant)

    _run(seed(INVARIANTS.index(invariant))(Checked) if CI else Checked, max(1, SCHEDULES // len(INVARIANTS)))


def _run(machine, schedules):
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=schedules,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, *([Phase.shrink] if SHRINK else [])],
        ),
    )


def test_a_disk_that_is_slow_lets_nothing_out_after_its_expiry():
    """A schedule that chance seldom finds: the note that it is handed over takes longer than it lives."""

    class Checked(Gateway):
        check = staticmethod(no_command_is_executed_after_its_expiry)

    gateway = Checked()
    gateway.begin(threads=0)
    gateway.submit(
        serial="one",
        wishes=[("active_power_limit", 10.0)],
        ttl=5.0,
        revert_after=None,
        origin="test",
        bulk=False,
        pause=0.5,
        disk=["", "slow"],
        calls=None,
    )
    gateway.teardown()
    assert [event.state for _, event, _ in gateway.told] == [CommandState.ACCEPTED, CommandState.EXPIRED]


@pytest.mark.parametrize("bulk", [False, True])
def test_a_timer_whose_time_is_bounded_is_among_what_is_tried(bulk):
    """Another one that chance seldom finds: nothing hinders it, and the life is long enough."""

    class Checked(Gateway):
        check = staticmethod(a_dead_mans_timer_fires_in_time)

    before = tried["timers"]
    gateway = Checked()
    gateway.begin(threads=0)
    gateway.submit(
        serial="one",
        wishes=[("active_power_limit", 10.0)],
        ttl=60.0,
        revert_after=10.0,
        origin="test",
        bulk=bulk,
        pause=0.5,
        disk=None,
        calls=None,
    )
    gateway.time_passes(500.0)
    gateway.time_passes(500.0)
    gateway.teardown()
    assert tried["timers"] == before + 1


def test_a_schedule_ends_the_same_way_each_time():
    """Otherwise one that failed could not be looked at again."""
    ends = []

    class Noted(Gateway):
        @staticmethod
        def check(gateway):
            ends.append(gateway.outcome())

    for _ in range(2):
        _run(seed(7)(Noted), 25)
    first, again = ends[: len(ends) // 2], ends[len(ends) // 2 :]
    assert any(executions for _, executions in first)
    assert first == again


def test_as_many_schedules_were_tried_as_were_asked_for(capsys):
    with capsys.disabled():
        counts = ", ".join(f"{count:,} {what}" for what, count in tried.items())
        sys.stdout.write(f"\ntried: {counts}; outcomes {outcomes.hexdigest()[:12]}\n")
    assert tried["schedules"] >= SCHEDULES // len(INVARIANTS) * len(INVARIANTS)
    assert tried["crashes"]
    assert tried["executions"]
    assert tried["timers"], "none of those whose time is bounded"
