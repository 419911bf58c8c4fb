"""The states of a limit, by the scenarios that LPC's and LPP's public test specification names."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.steering.limits.machine import TABLE, Event, Machine, Rules, State

RULES = Rules(heartbeat=120, failsafe=4_200, failsafe_duration=7_200)
HOUR = 3_600


def machine():
    return Machine(RULES, 0.0)


def test_906_nobody_says_anything_after_a_start():
    one = machine()
    one.look(119)
    assert (one.state, one.limit) == (State.INIT, None)
    one.look(120)
    assert (one.state, one.limit) == (State.UNLIMITED_AUTONOMOUS, None)


@pytest.mark.parametrize(("limit", "state"), [(5_000.0, State.LIMITED), (None, State.UNLIMITED_CONTROLLED)])
@pytest.mark.parametrize("before", [0, 60, 500])
def test_913_the_first_word_decides(limit, state, before):
    one = machine()
    one.look(before)
    one.set(limit, before)
    assert (one.state, one.limit) == (state, limit)


def test_a_limit_without_a_duration_holds_as_long_as_somebody_is_there():
    one = machine()
    one.set(5_000.0, 0)
    for minute in range(1, 600):
        one.beat(60 * minute)
    assert one.limit == 5_000
    one.set(6_000.0, 36_000)
    assert one.limit == 6_000


def test_914_a_limit_ends_with_its_duration():
    one = machine()
    one.set(5_000.0, 0, duration=90)
    one.look(89)
    assert one.limit == 5_000
    one.look(90)
    assert (one.state, one.limit) == (State.UNLIMITED_CONTROLLED, None)


@pytest.mark.parametrize("limit", [9_000.0, None])
def test_911_silence_is_failsafe_limited_or_not(limit):
    one = machine()
    one.set(limit, 0)
    one.look(119)
    assert one.limit == limit
    one.look(120)
    assert (one.state, one.limit) == (State.FAILSAFE, 4_200)


def test_a_lower_limit_gives_way_to_the_failsafe_too():
    one = machine()
    one.set(0.0, 0)
    one.look(200)
    assert one.limit == 4_200


def silent():
    one = machine()
    one.set(9_000.0, 0)
    one.look(120)
    return one


def test_916_a_heartbeat_alone_does_not_end_the_failsafe_a_limit_does():
    one = silent()
    one.beat(500)
    one.look(600)
    assert (one.state, one.limit) == (State.FAILSAFE, 4_200)
    one.set(8_000.0, 610)
    assert (one.state, one.limit) == (State.LIMITED, 8_000)


def test_921_a_heartbeat_without_a_limit_within_its_time_sets_it_free():
    one = silent()
    for second in range(500, 620, 30):
        one.beat(second)
        one.look(second)
    assert one.state is State.FAILSAFE
    one.beat(619)
    one.look(620)
    assert (one.state, one.limit) == (State.UNLIMITED_AUTONOMOUS, None)


def test_a_heartbeat_that_came_and_went_begins_the_failsafe_no_sooner_to_end():
    one = silent()
    one.beat(500)
    one.look(619)
    one.look(620)  # silent again, in the same moment in which a limit was due
    assert one.state is State.FAILSAFE
    one.look(120 + 7_199)
    assert one.state is State.FAILSAFE
    one.look(120 + 7_200)
    assert one.state is State.UNLIMITED_AUTONOMOUS


def test_012_the_failsafe_holds_for_its_least_duration():
    one = silent()
    one.look(120 + 2 * HOUR - 1)
    assert one.state is State.FAILSAFE
    one.look(120 + 2 * HOUR)
    assert (one.state, one.limit) == (State.UNLIMITED_AUTONOMOUS, None)
    one.set(3_000.0, 10 * HOUR)
    assert one.limit == 3_000


def test_a_restart_takes_up_what_was_in_force():
    one = machine()
    one.restore(5_000.0, 0)
    assert one.limit == 5_000
    one.look(120)
    assert one.limit == 4_200, "and nobody was heard"


def test_the_table_has_a_way_out_of_every_state_and_silence_never_lifts_a_limit():
    assert {state for state, _ in TABLE} == set(State)
    assert TABLE[State.LIMITED, Event.SILENCE] is TABLE[State.UNLIMITED_CONTROLLED, Event.SILENCE] is State.FAILSAFE
    assert all(event in (Event.LIMIT, Event.LIFT, Event.NO_WORD, Event.SAFE_LONG_ENOUGH)
               for state, event in TABLE if state is State.FAILSAFE)  # fmt: skip


@example([("set", 0.0), ("beat", 120.0), ("beat", 10.0), ("look", 120.0)])
@given(st.lists(st.tuples(st.sampled_from(["set", "lift", "beat", "look"]), st.floats(0, 500)), max_size=60))
def test_a_machine_that_is_looked_at_often_is_where_one_is_that_is_looked_at_seldom(steps):
    """And it is never without a limit while a limit was set, nobody lifted it, and it did not run out by the rules."""
    often, seldom = machine(), machine()
    now, last, heard = 0.0, None, 0.0
    for what, seconds in steps:
        target = now + seconds
        while now + 10 < target:
            now += 10
            often.look(now)
        now = target
        if what != "look":
            heard = now
        for one in (often, seldom):
            match what:
                case "set":
                    one.set(1_000.0, now)
                case "lift":
                    one.set(None, now)
                case "beat":
                    one.beat(now)
                case _:
                    one.look(now)
        last = 1_000.0 if what == "set" else None if what == "lift" else last
        assert (often.state, often.limit) == (seldom.state, seldom.limit)
        if last is not None and now - heard < 120 and often.state is not State.UNLIMITED_AUTONOMOUS:
            assert often.limit in (1_000.0, 4_200)
