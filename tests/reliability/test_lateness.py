"""How late reverts leave is reckoned by three records; time in which nobody could send them does not count."""

import pytest

from tests.reliability.lateness import Lateness, Timer, histogram, lateness, quantile
from tests.reliability.records import Arrived, Executed, Records, Step, load, save
from tests.reliability.test_checker import LANE, NOW, A, B, C, command

SENT, DUE = NOW + 2, NOW + 7
"""Of the timer of `records`: its call came in, and five seconds later."""


def records(*, left, lives=((NOW, None),), troubles=(), done=None, extra=()):
    one = command(A, 1.0, "accepted", "sent", "succeeded", seq=1, revert_after=5.0, revert_value=9.0)
    revert = command(B, 9.0, "accepted", "sent", "succeeded", seq=8, origin="revert")
    done = left if done is None else done
    return Records(
        journal={c.id: c for c in (one, revert, *extra)},
        calls=[Arrived(SENT, *LANE, 1.0), *([] if left is None else [Arrived(left, *LANE, 9.0)])],
        executed=[Executed(0, SENT, *LANE, 1.0), *([] if done is None else [Executed(1, done, *LANE, 9)])],
        lives=[list(life) for life in lives],
        troubles=[list(trouble) for trouble in troubles],
    )


@pytest.mark.parametrize(
    ("left", "lives", "troubles", "late"),
    [
        (DUE + 0.5, [(NOW, None)], [], 0.5),
        (DUE - 0.5, [(NOW, None)], [], 0.0),
        (DUE + 30, [(NOW, NOW + 6), (DUE + 29, None)], [], 1.0),  # nobody was up before
        (DUE + 30, [(NOW, DUE + 1), (None, DUE + 20), (DUE + 29, None)], [], 2.0),  # of both lives that were up
        (DUE + 30, [(NOW, None)], [(DUE - 1, DUE + 28)], 2.0),  # the cloud failed until then
        (DUE + 30, [(NOW, None)], [(DUE + 1, DUE + 28), (DUE + 29, None)], 2.0),
        (DUE + 30, [(NOW, DUE + 10), (DUE + 20, None)], [(DUE + 5, DUE + 25)], 10.0),
    ],
)
def test_only_time_counts_in_which_a_gateway_was_up_and_the_cloud_well(left, lives, troubles, late):
    (timer,) = lateness(records(left=left, lives=lives, troubles=troubles)).timers
    assert timer.late == pytest.approx(late)
    assert timer.late_done == pytest.approx(late)


def test_one_whose_first_call_was_lost_left_in_time_and_was_obeyed_late():
    (timer,) = lateness(records(left=DUE + 0.5, done=DUE + 61)).timers
    assert (timer.late, timer.late_done) == pytest.approx((0.5, 61.0))


def test_of_one_that_was_sent_again_the_last_call_counts():
    again = records(left=DUE + 20.5)
    again.calls.append(Arrived(SENT + 20, *LANE, 1.0))
    again.journal[A].steps[-1] = Step(3, "succeeded", SENT + 20.1)
    (timer,) = lateness(again).timers
    assert timer.due == DUE + 20
    assert timer.late == pytest.approx(0.5)


def test_one_that_never_left_is_late_until_the_end():
    found = lateness(records(left=None, lives=[(NOW, NOW + 100)]))
    assert found.timers[0].left is None
    assert found.timers[0].late == pytest.approx(93.0)
    assert "never left" in "\n".join(found.lines())


def test_one_whose_place_a_newer_command_takes_does_not_count():
    newer = command(C, 3.0, "accepted", "sent", "succeeded", seq=5)
    found = lateness(records(left=None, extra=[newer]))
    assert (found.timers, found.replaced) == ([], 1)


def test_what_is_said_of_thousands():
    late = [Timer(str(n), 0, 1, 1, seconds, seconds, "why") for n, seconds in enumerate([0.05] * 9_990 + [3.0] * 10)]
    text = "\n".join(Lateness(late).lines())
    assert "99.90% within 2 s" in text
    assert "10 left later than 2 s: why" in text


@pytest.mark.parametrize(("share", "value"), [(0.5, 2), (0.999, 4), (0.25, 1), (1.0, 4)])
def test_a_quantile_is_one_of_the_values(share, value):
    assert quantile([1, 2, 3, 4], share) == value


def test_a_histogram_counts_each_once():
    lines = [*histogram([0.0, 0.1, 0.2, 70.0])]
    assert [int(line.split(" s ")[1].split()[0]) for line in lines] == [2, 1, 0, 0, 0, 0, 0, 0, 1]


def test_records_that_a_run_has_left_are_the_same_when_they_are_read_again(tmp_path):
    before = records(left=DUE, troubles=[(DUE, None)])
    before.audit = [(1, "time", "accepted", b"\x00\xff")]
    before.in_force = {LANE: 9.0}
    save(before, tmp_path / "records.json")
    assert load(tmp_path / "records.json") == before
