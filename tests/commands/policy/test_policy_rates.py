"""How often, and how far within a minute: per device, per origin, per setpoint. No burst gets through."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.commands.policy.policy import Refusal, RequestBatch
from gateway.core.model import CommandState, Reason
from tests.commands.policy.test_policy_rules import LIMIT, Still, command, policy, reason, rule, state
from tests.kit.bench import EVERYTHING, INVERTER, Bench
from tests.kit.clock import FakeClock, virtual

ACCEPTED, REJECTED = CommandState.ACCEPTED, CommandState.REJECTED


class Fleet:
    """A policy with a clock, and a device that does, or does not do, what was accepted."""

    def __init__(self, *rules, in_force=100.0, **settings):
        self.clock = Still()
        self.known = {INVERTER.serial: state(INVERTER, **({} if in_force is None else {LIMIT: in_force}))}
        self.policy = policy(*rules, clock=self.clock, known=self.known, **settings)

    def ask(self, value, *, obeyed=True, **fields):
        asked = command(value, **fields)
        verdict = self.policy.judge(asked, INVERTER)
        if not isinstance(verdict, Refusal):
            self.policy.count(command(verdict, **fields))
            if obeyed:
                self.says(verdict)
        return verdict

    def says(self, value):
        self.known[INVERTER.serial] = state(INVERTER, **{LIMIT: value})


def test_a_ramp_says_what_is_permitted_now():
    fleet = Fleet(rule(ramp=10, min=20))
    refused = fleet.ask(50)
    assert refused.reason is Reason.RAMP_LIMITED
    assert refused.detail == (
        "active_power_limit: it may move by 10 % within a minute, so 90 to 100 % now, not 50; 90 % is permitted at once"
    )
    assert fleet.ask(90) == 90
    assert fleet.ask(80).reason is Reason.RAMP_LIMITED
    fleet.clock.passed = 59.9
    assert fleet.ask(85).reason is Reason.RAMP_LIMITED
    fleet.clock.passed = 60
    assert fleet.ask(80) == 80
    fleet.clock.passed = 60_000
    assert fleet.ask(60).reason is Reason.RAMP_LIMITED, "time that passes saves nothing up"
    assert fleet.ask(70) == 70
    assert fleet.ask(80) == 80
    assert fleet.ask(90).detail.endswith("so 70 to 80 % now, not 90; 80 % is permitted at once")


def test_a_ramp_goes_with_steps():
    fleet = Fleet(rule(ramp=25, step=10))
    assert "so 80 to 100 % now, not 70; 80 % is permitted" in fleet.ask(70).detail


def test_where_nobody_knows_what_is_in_force_the_neutral_value_is_taken_for_it():
    assert Fleet(rule(ramp=10), in_force=None).ask(50).reason is Reason.RAMP_LIMITED
    fleet = Fleet(rule(ramp=10, setpoints=["battery_target_soc"]), in_force=None)
    assert fleet.ask(50, setpoint="battery_target_soc") == 50, "it has no neutral value, so anything may be the first"
    assert fleet.ask(70, setpoint="battery_target_soc").reason is Reason.RAMP_LIMITED


def test_what_somebody_else_has_set_is_where_a_ramp_begins():
    fleet = Fleet(rule(ramp=10))
    fleet.ask(95)
    fleet.says(0.0)
    assert fleet.ask(20).reason is Reason.RAMP_LIMITED
    assert fleet.ask(10) == 10


def test_what_was_accepted_and_perhaps_not_done_counts_too():
    fleet = Fleet(rule(ramp=10))
    assert fleet.ask(90, obeyed=False) == 90
    fleet.clock.passed = 120
    assert fleet.ask(80).reason is Reason.RAMP_LIMITED, "100 may still be in force"
    assert fleet.ask(90) == 90
    fleet.clock.passed = 240
    assert fleet.ask(80) == 80


def test_a_ramp_begins_where_an_origin_without_one_has_put_the_value():
    fleet = Fleet(rule(ramp=10, origins=["mqtt"]), rule(origins=["cli"]))
    assert fleet.ask(50, origin="cli:me") == 50
    assert fleet.ask(70, origin="mqtt").reason is Reason.RAMP_LIMITED
    assert fleet.ask(60, origin="mqtt") == 60
    assert fleet.ask(70, origin="mqtt").reason is Reason.RAMP_LIMITED


WRITES = st.lists(st.tuples(st.sampled_from([0, 0.5, 5, 20, 59, 61, 400]), st.integers(0, 100)), max_size=40)


@given(WRITES, st.sampled_from([1, 7, 25, 60]))
@settings(max_examples=150)
def test_within_any_minute_a_value_moves_by_no_more_than_its_ramp(writes, ramp):
    fleet = Fleet(rule(ramp=ramp), max_per_minute=1_000_000)
    steps = [(0.0, 100.0)]
    for pause, value in writes:
        fleet.clock.passed += pause
        if fleet.ask(value) == value:
            steps.append((fleet.clock.passed, float(value)))
    ends = [begin for begin, _ in steps[1:]] + [float("inf")]
    for n, (begin, _) in enumerate(steps):
        in_force = [v for (_, v), end in zip(steps[: n + 1], ends, strict=False) if end > begin - 60]
        assert max(in_force) - min(in_force) <= ramp
    assert all(abs(b - a) <= ramp for (_, a), (_, b) in pairwise(steps))


@given(WRITES)
@settings(max_examples=50)
def test_every_value_is_reached_in_the_end(writes):
    fleet = Fleet(rule(ramp=30), max_per_minute=1_000_000)
    for pause, value in writes:
        fleet.clock.passed += pause
        fleet.ask(value, obeyed=value % 2 == 0)
    for goal in (0, 100, 50):
        for _ in range(12):
            fleet.clock.passed += 61
            verdict = fleet.ask(goal)
            if verdict == goal:
                break
            fleet.ask(float(verdict.detail.rpartition("; ")[2].partition(" %")[0]))
        assert verdict == goal


def test_a_rate_of_an_origin_is_over_all_that_it_names_together():
    fleet = Fleet(rule(), rates={"mqtt": 3, "*": 5, "web/slow": 1})
    assert [reason(fleet.ask(1, origin=f"mqtt/{who}")) for who in "abcd"] == [None, None, None, Reason.RATE_LIMITED]
    refused = fleet.ask(1, origin="mqtt/e")
    assert refused.detail == "mqtt has commanded 3 times within a minute (control.rates); again in 60 s"
    assert fleet.ask(1, origin="web/slow:1.2.3.4") == 1
    assert reason(fleet.ask(1, origin="web/slow:5.6.7.8")) is Reason.RATE_LIMITED
    assert fleet.ask(1, origin="cli") == 1
    assert reason(fleet.ask(1, origin="cli")) is Reason.RATE_LIMITED, "* is used up"
    fleet.clock.passed = 60
    assert fleet.ask(1, origin="mqtt/z") == 1


def test_a_refused_command_costs_nothing():
    fleet = Fleet(rule(max=50), max_per_minute=2)
    assert [reason(fleet.ask(60)) for _ in range(5)] == [Reason.OUT_OF_RANGE] * 5
    assert [reason(fleet.ask(1)) for _ in range(3)] == [None, None, Reason.RATE_LIMITED]


@given(st.lists(st.sampled_from([0, 0.5, 1, 10, 30, 59.5, 60]), max_size=80), st.integers(1, 6))
@settings(max_examples=100)
def test_no_burst_gets_more_through_than_a_minute_has(pauses, most):
    fleet = Fleet(rule(), max_per_minute=most)
    accepted = []
    for pause in pauses:
        fleet.clock.passed += pause
        if fleet.ask(1) == 1:
            accepted.append(fleet.clock.passed)
    for n, moment in enumerate(accepted):
        assert len([t for t in accepted[: n + 1] if t > moment - 60]) <= most


def test_commands_of_one_request_count_before_they_are_accepted():
    fleet = Fleet(rule(ramp=10), max_per_minute=2, rates={"test": 1})
    along = RequestBatch()
    first = fleet.policy.examine(command(90), INVERTER, along)
    assert first.refusal is None
    along.add(command(first.value))
    reasons = [check.reason for check in fleet.policy.examine(command(80), INVERTER, along).checks]
    assert Reason.RAMP_LIMITED in reasons
    assert Reason.RATE_LIMITED in reasons, "of the origin"
    along.add(command(90))
    refused = fleet.policy.examine(command(90), INVERTER, along).refusal
    assert refused.reason is Reason.RATE_LIMITED
    assert refused.detail.endswith("ask for less at a time")


@pytest.mark.parametrize("most", [1, 2])
@virtual
async def test_a_request_for_more_than_the_rate_is_refused_as_a_whole(tmp_path, most):
    control = EVERYTHING.model_copy(update={"max_per_minute": most})
    async with Bench(tmp_path, control, FakeClock()) as bench:
        bench.announce()
        asked = [bench.command(value=50), bench.command("battery_mode", "idle")]
        events = await bench.dispatcher.submit(*asked)
        assert {event.state for event in events} == {ACCEPTED if most == 2 else REJECTED}
