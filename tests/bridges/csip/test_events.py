"""Which event counts when, and what is answered: scenarios by hand, and rules that hold for any events."""

import random
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.bridges.csip.events import STEPS, Held, Record, Signal, Stage, plan, with_tails
from gateway.bridges.csip.identity import draws_of
from gateway.bridges.csip.resources import MODES, Control, EventStatus, Program, ResponseStatus

ALL = frozenset(MODES)
T = 1_800_000_000
EXPORT = "opModExpLimW"


def event(name="A", start=0, duration=600, created=0, value=1000.0, **more):
    fields = {"modes": {EXPORT: value}, "reply_to": "/rsp", "required": 3} | more
    return Control(mrid=name, created=T + created, start=T + start, duration=duration, **fields)


def program(*controls, primacy=1, default=None, name=None):
    return Program(mrid=name or f"P{primacy}", primacy=primacy, default=default or {}, controls=controls)


class Server:
    """What is asked at one time after another, with what is remembered in between."""

    def __init__(self, draws=lambda _: (0.0, 0.0), applicable=ALL):
        self.records = {}
        self.said = []
        self._draws = draws
        self._applicable = applicable

    def at(self, seconds, *programs, fallback=None):
        """Return the values in force by mode."""
        found = plan(programs, self.records, T + seconds, self._draws, self._applicable, fallback)
        self.records = dict(found.records)
        self.said += [(reply.mrid, reply.status.name) for reply in found.replies]
        return {mode: held.value for mode, held in found.in_force.items()}

    def carried(self, name, *, done=False, missed=False):
        self.records[name] = msgspec.structs.replace(self.records[name], done=done, missed=missed)


def test_an_event_from_its_receipt_to_its_end():
    server, programs = Server(), program(event(start=60), default={EXPORT: 500.0})
    assert server.at(0, programs) == {EXPORT: 500.0}
    assert server.at(59, programs) == {EXPORT: 500.0}
    assert server.at(60, programs) == {EXPORT: 1000.0}
    assert server.at(659, programs) == {EXPORT: 1000.0}
    assert server.at(660, programs) == {EXPORT: 500.0}
    assert server.at(661) == {}
    assert server.said == [("A", "RECEIVED"), ("A", "STARTED"), ("A", "COMPLETED")]


def test_what_is_over_is_never_begun():
    server = Server()
    assert server.at(600, program(event())) == {}
    assert server.said == [("A", "TOO_LATE")]
    slept = Server()
    slept.at(0, program(event(start=60)))
    assert slept.at(700, program(event(start=60))) == {}
    assert slept.said == [("A", "RECEIVED"), ("A", "NONE_OF_IT")]


def test_one_that_is_late_is_begun_for_the_rest_of_its_time():
    server = Server()
    assert server.at(599, program(event())) == {EXPORT: 1000.0}
    assert server.said == [("A", "RECEIVED"), ("A", "STARTED")]


@pytest.mark.parametrize("when", [-10, 10])
def test_it_is_cancelled(when):
    server = Server()
    server.at(when, program(event()))
    assert server.at(20, program(event(status=EventStatus.CANCELLED))) == {}
    assert server.at(21, program(event())) == {}, "what was cancelled does not come back"
    assert server.said[-1] == ("A", "CANCELLED")
    assert len([said for said in server.said if said[1] == "CANCELLED"]) == 1


def test_one_that_the_server_lists_no_more_is_cancelled():
    server = Server()
    server.at(10, program(event()))
    assert server.at(20, program()) == {}
    assert server.said[-1] == ("A", "CANCELLED")


def test_cancelled_at_random_goes_on_for_what_was_drawn():
    server = Server(lambda _: (0.0, 0.5))
    server.at(0, program(event(random_duration=60, duration=1000)))
    cancelled = event(random_duration=60, duration=1000, status=EventStatus.CANCELLED_AT_RANDOM, status_time=T + 100)
    assert server.at(129, program(cancelled)) == {EXPORT: 1000.0}
    assert server.at(130, program(cancelled)) == {}
    assert server.said[-1] == ("A", "CANCELLED")


@pytest.mark.parametrize("seen_before", [True, False])
def test_cancelled_at_random_before_it_has_begun_it_never_does(seen_before):
    server = Server(lambda _: (0.0, 1.0))
    if seen_before:
        server.at(-50, program(event(random_duration=3600)))
    cancelled = program(event(random_duration=3600, status=EventStatus.CANCELLED_AT_RANDOM, status_time=T - 10))
    assert server.at(-5, cancelled) == {}
    assert server.at(5, cancelled) == {}
    assert server.said[-1] == ("A", "CANCELLED")


def test_start_and_duration_are_moved_by_what_was_drawn():
    moved = event(start=100, duration=100, random_start=-50, random_duration=40)
    server = Server(lambda _: (0.5, 0.25))
    assert server.at(74, program(moved)) == {}
    assert server.at(75, program(moved)) == {EXPORT: 1000.0}
    assert server.at(184, program(moved)) == {EXPORT: 1000.0}
    assert server.at(185, program(moved)) == {}


def test_an_event_behind_another_begins_when_that_really_ends():
    """Three in a row, drawn so that there would be an overlap, and then a gap."""
    row = [
        event(name, start=100 * n, duration=100, value=n + 1.0, random_start=60, random_duration=30)
        for n, name in enumerate("ABC")
    ]
    draws = {"A": (0.0, 1.0), "B": (0.0, 0.0), "C": (1.0, 0.0)}
    server = Server(draws.get)
    seen = [(now, server.at(now, program(*row)).get(EXPORT)) for now in range(0, 400, 5)]
    changes = [(now, value) for (_, before), (now, value) in pairwise(seen) if value != before]
    assert changes == [(130, 2.0), (200, 3.0), (360, None)]
    assert [status for _, status in server.said].count("COMPLETED") == 3


def test_one_that_has_begun_behind_another_goes_on_when_that_is_listed_no_more():
    first = event("A", duration=100)
    second = event("B", start=100, duration=100, random_start=90, value=2.0)
    server = Server(lambda _: (0.99, 0.0))
    server.at(0, program(first, second))
    assert server.at(105, program(first, second)) == {EXPORT: 2.0}
    assert server.at(110, program(second)) == {EXPORT: 2.0}
    assert [status for name, status in server.said if name == "B"] == ["RECEIVED", "STARTED"]


def test_where_only_draws_overlap_the_earlier_one_is_over_and_none_is_superseded():
    first = event("A", duration=100, random_duration=60)
    second = event("B", start=120, duration=100, value=2.0)
    server = Server(lambda _: (0.0, 1.0))
    programs = program(first, primacy=1), program(second, primacy=5)
    assert server.at(119, *programs) == {EXPORT: 1000.0}
    assert server.at(125, *programs) == {EXPORT: 2.0}
    assert server.at(159, *programs) == {EXPORT: 2.0}
    assert ("A", "COMPLETED") in server.said
    server.at(220, *programs)
    assert ("B", "COMPLETED") in server.said


@pytest.mark.parametrize("names", ["AB", "BA"])
def test_of_two_made_in_the_same_second_the_one_that_begins_last_counts(names):
    long, short = event(names[0], value=1.0), event(names[1], start=100, duration=100, value=2.0)
    server = Server()
    assert server.at(50, program(long, short)) == {EXPORT: 1.0}
    assert server.at(150, program(long, short)) == {EXPORT: 2.0}
    assert (names[0], "SUPERSEDED") in server.said
    assert server.at(250, program(long, short)) == {}
    assert (names[1], "COMPLETED") in server.said


@pytest.mark.parametrize(
    ("now", "is_kept"), [(50, False), (94, False), (96, True), (100, True), (150, True), (164, True), (166, False)]
)
def test_an_event_that_a_server_lists_no_more_lasts_as_long_as_it_may(now, is_kept):
    drawn = event("A", duration=100, random_start=-30, random_duration=60)
    before, found = program(drawn, name="P"), program(event("B"), name="P")
    [kept] = with_tails([before], [found], T + now)
    assert [each.mrid for each in kept.controls] == (["B", "A"] if is_kept else ["B"])
    assert with_tails([before], [before], T + now) == (before,)
    assert with_tails([before], [], T + now) == (), "whose program is gone is gone too"


def test_a_lower_primacy_counts_and_the_other_does_not_come_back():
    low, high = event("LOW", value=3000.0), event("HIGH", start=100, duration=100, value=2000.0)
    programs = program(low, primacy=5, default={EXPORT: 500.0}), program(high, primacy=1)
    server = Server()
    assert server.at(99, *programs) == {EXPORT: 3000.0}
    assert server.at(100, *programs) == {EXPORT: 2000.0}
    assert server.at(250, *programs) == {EXPORT: 500.0}
    assert [status for name, status in server.said if name == "LOW"] == ["RECEIVED", "STARTED", "OTHER_PROGRAM"]
    assert [status for name, status in server.said if name == "HIGH"] == ["RECEIVED", "STARTED", "COMPLETED"]


def test_of_one_program_the_newer_event_counts():
    programs = program(event("OLD", created=1, value=3000.0), event("NEW", created=2, start=50, value=2000.0))
    server = Server()
    assert server.at(49, programs) == {EXPORT: 3000.0}
    assert server.at(50, programs) == {EXPORT: 2000.0}
    assert ("OLD", "SUPERSEDED") in server.said
    assert server.at(51, program(event("OLD", created=1, value=3000.0))) == {}, "not when the newer one is gone, either"


def test_what_the_server_says_is_superseded_is_not_begun():
    server = Server()
    assert server.at(0, program(event(status=EventStatus.SUPERSEDED))) == {}
    assert server.said == [("A", "SUPERSEDED")]


def test_events_for_different_modes_run_side_by_side_and_lose_only_what_is_taken():
    both = event("BOTH", modes={EXPORT: 3000.0, "opModGenLimW": 4000.0})
    one = event("ONE", start=10, duration=10, value=2000.0)
    programs = program(both, primacy=2), program(one, primacy=1)
    server = Server()
    assert server.at(5, *programs) == {EXPORT: 3000.0, "opModGenLimW": 4000.0}
    assert server.at(15, *programs) == {EXPORT: 2000.0, "opModGenLimW": 4000.0}
    assert server.at(25, *programs) == {"opModGenLimW": 4000.0}
    assert server.at(600, *programs) == {}
    assert ("BOTH", "COMPLETED") in server.said


def test_the_default_of_the_lowest_primacy_counts_mode_by_mode_and_the_fallback_before_it():
    programs = (
        program(primacy=3, default={EXPORT: 1.0, "opModImpLimW": 2.0}),
        program(primacy=1, default={EXPORT: 3.0}),
    )
    assert Server().at(0, *programs) == {EXPORT: 3.0, "opModImpLimW": 2.0}
    assert Server().at(0, *programs, fallback={EXPORT: 4.0}) == {EXPORT: 4.0, "opModImpLimW": 2.0}
    running = program(event(value=9.0), default={EXPORT: 3.0})
    assert Server().at(0, running, fallback={EXPORT: 4.0}) == {EXPORT: 9.0}, "an event that is known goes on"


@pytest.mark.parametrize(
    ("control", "said"),
    [
        (event(modes={"opModImpLimW": 5.0}), "NOT_APPLICABLE"),
        (event(modes={}), "NOT_APPLICABLE"),
        (event(duration=0), "INVALID"),
        (event(valid=False), "INVALID"),
    ],
)
def test_what_can_not_be_carried_out_is_said(control, said):
    server = Server(applicable=frozenset({EXPORT}))
    assert server.at(0, program(control)) == {}
    assert server.said == [("A", said)]


@pytest.mark.parametrize(
    ("carried", "said"),
    [({"done": True}, "COMPLETED"), ({"done": True, "missed": True}, "PARTIAL"), ({"missed": True}, "NONE_OF_IT")],
)
def test_at_its_end_it_is_said_how_much_of_it_was_carried_out(carried, said):
    server = Server()
    server.at(0, program(event()))
    server.carried("A", **carried)
    server.at(600, program(event()))
    assert server.said[-1] == ("A", said)


@pytest.mark.parametrize(
    ("required", "said"),
    [(0, []), (1, ["RECEIVED"]), (2, ["STARTED", "COMPLETED"]), (3, ["RECEIVED", "STARTED", "COMPLETED"])],
)
def test_only_what_is_asked_for_is_answered(required, said):
    server = Server()
    server.at(0, program(event(required=required)))
    server.at(600, program(event(required=required)))
    assert [status for _, status in server.said] == said
    unheard = Server()
    unheard.at(0, program(event(reply_to="")))
    assert unheard.said == []


def test_the_table_has_every_stage_and_signal():
    assert set(STEPS) == set(Stage)
    assert all(set(row) == set(Signal) for row in STEPS.values())


modes = st.dictionaries(st.sampled_from(sorted(MODES)), st.floats(0, 1e5), min_size=1, max_size=3)
controls = st.builds(
    Control,
    mrid=st.sampled_from("ABCDEFGH"),
    created=st.integers(T - 1000, T),
    start=st.integers(T - 500, T + 500),
    duration=st.integers(0, 600),
    random_start=st.integers(-100, 100),
    random_duration=st.integers(-100, 100),
    status=st.sampled_from(EventStatus),
    status_time=st.integers(T - 500, T + 500),
    reply_to=st.just("/rsp"),
    required=st.just(3),
    modes=modes,
)
programs = st.builds(
    Program,
    mrid=st.sampled_from("PQR"),
    primacy=st.integers(0, 3),
    default=modes,
    controls=st.lists(controls, max_size=5).map(tuple),
)
FINAL = {status.name for status in ResponseStatus} - {"RECEIVED", "STARTED"}


@settings(max_examples=40)
@given(st.lists(st.lists(programs, max_size=3), min_size=1, max_size=8), st.integers(0, 2**32))
def test_whatever_a_server_lists(rounds, seed):
    """Any lists, one after another: the rules hold at every moment."""
    moments = random.Random(seed)
    server = Server(lambda mrid: draws_of("00", mrid))
    now = -600
    for listed in rounds:
        now += moments.randrange(0, 300)
        before = dict(server.records)
        found = plan(listed, before, T + now, lambda mrid: draws_of("00", mrid), ALL)
        held = {each.event for each in found.in_force.values() if each.event}
        for mrid in held:
            record = found.records[mrid]
            assert record.stage is Stage.STARTED
            assert T + now < record.ends, "nothing is in force whose end is over"
            assert before.get(mrid, Record()).stage is not Stage.ENDED, "what has ended does not come back"
        for mrid, record in before.items():
            assert found.records[mrid].lost >= record.lost
        assert set(found.in_force) >= set(found.baseline)
        counting = {
            each.mrid: (p.primacy, -each.created, -each.start, each.mrid) for p in listed for each in p.controls
        }
        known = {
            each.mrid
            for p in listed
            for each in p.controls
            if sum(each.mrid == c.mrid for q in listed for c in q.controls) == 1
        }
        for mode, value in found.in_force.items():
            rivals = [
                each.mrid
                for p in listed
                for each in p.controls
                if each.mrid in known
                and mode in each.modes
                and found.records[each.mrid].stage is Stage.STARTED
                and mode not in found.records[each.mrid].lost
            ]
            if value.event in known:
                assert min(rivals, key=counting.get) == value.event
            elif not value.event:
                assert not rivals, "a default holds only what no event does"
        again = plan(listed, found.records, T + now, lambda mrid: draws_of("00", mrid), ALL)
        assert not again.replies, "nothing is said twice"
        assert again.in_force == found.in_force
        server.said += [(reply.mrid, reply.status.name) for reply in found.replies]
        server.records = dict(found.records)
    for mrid in "ABCDEFGH":
        mine = [status for name, status in server.said if name == mrid]
        assert len([status for status in mine if status in FINAL]) <= 1
        assert mine.count("RECEIVED") <= 1


def test_a_draw_is_the_same_again_and_another_for_another_device():
    assert draws_of("A1", "M") == draws_of("A1", "M") != draws_of("A2", "M")
    some = [draw for n in range(500) for draw in draws_of("A1", str(n))]
    assert all(0 <= each < 1 for each in some)
    assert 0.4 < sum(some) / len(some) < 0.6


def test_of_two_limits_held_says_which_event_and_until_when():
    found = plan([program(event(duration=60), default={EXPORT: 1.0})], {}, T + 1, lambda _: (0.0, 0.0), ALL)
    assert found.in_force == {EXPORT: Held(1000.0, "A", T + 60)}
