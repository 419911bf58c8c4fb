"""A command to a plant stands where the worst of its inverters' commands does."""

from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest

from gateway.bridges.modbus.joint import WORST_FIRST, Joint
from gateway.core.model import Command, CommandEvent, CommandState, Reason

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
ACCEPTED, SENT, SUCCEEDED, FAILED, UNKNOWN, REJECTED, EXPIRED, SUPERSEDED = (
    CommandState.ACCEPTED, CommandState.SENT, CommandState.SUCCEEDED, CommandState.FAILED,
    CommandState.UNKNOWN, CommandState.REJECTED, CommandState.EXPIRED, CommandState.SUPERSEDED,
)  # fmt: skip


def command(id_, serial="plant-1"):
    return Command(
        id=id_, serial=serial, setpoint="active_power_limit", value=40.0, origin="modbus", created=NOW,
        expires=NOW + timedelta(seconds=60),
    )  # fmt: skip


def joined(joint, id_="whole", count=3):
    parts = [command(f"{id_}-{n}", f"inverter-{n}") for n in range(count)]
    joint.join(command(id_), parts)
    return parts


def steps(joint, *events, **fields):
    """The steps of the whole that follow from these of its parts."""
    found = []
    for part, state in events:
        found += joint.note(CommandEvent(command=part, state=state, time=NOW, **fields))
    return [(event.command.id, event.state) for event in found]


def test_each_step_is_said_once():
    joint = Joint()
    a, b, c = joined(joint)
    assert steps(joint, (a, ACCEPTED), (b, ACCEPTED), (c, ACCEPTED)) == [("whole", ACCEPTED)]
    assert steps(joint, (a, SENT), (a, SUCCEEDED), (b, SENT), (c, SENT), (c, SUCCEEDED)) == [("whole", SENT)]
    assert steps(joint, (b, SUCCEEDED)) == [("whole", SUCCEEDED)]
    assert steps(joint, (command("another"), SENT)) == []


@pytest.mark.parametrize(
    ("ends", "worst"),
    [
        ({SUCCEEDED, UNKNOWN, FAILED}, FAILED),
        ({SUCCEEDED, UNKNOWN, EXPIRED}, EXPIRED),
        ({SUCCEEDED, UNKNOWN, SUPERSEDED}, SUPERSEDED),
        ({SUCCEEDED, UNKNOWN}, UNKNOWN),
        ({SUCCEEDED}, SUCCEEDED),
    ],
)
def test_the_worst_end_is_that_of_the_whole_in_whatever_order_they_come(ends, worst):
    for order in permutations(ends):
        joint = Joint()
        parts = joined(joint, count=len(ends))
        steps(joint, *((part, SENT) for part in parts))
        *before, last = zip(parts, order, strict=True)
        assert steps(joint, *before) == []
        assert steps(joint, last) == [("whole", worst)]
        assert set(WORST_FIRST) == {state for state in CommandState if state.final}


def test_it_says_which_inverter_it_was():
    joint = Joint()
    a, b = joined(joint, count=2)
    (event,) = joint.note(CommandEvent(command=a, state=ACCEPTED, time=NOW))
    assert event.detail == ""
    assert joint.note(CommandEvent(command=a, state=FAILED, time=NOW, detail="not now"))[0].state == SENT
    (event,) = joint.note(CommandEvent(command=b, state=SUCCEEDED, time=NOW))
    assert (event.state, event.detail) == (FAILED, "inverter-0: not now")


def test_of_a_refused_request_the_culprit_speaks():
    joint = Joint()
    a, b = joined(joint, count=2)
    assert joint.note(CommandEvent(command=a, state=REJECTED, time=NOW, reason=Reason.BAD_REQUEST)) == []
    (event,) = joint.note(CommandEvent(command=b, state=REJECTED, time=NOW, reason=Reason.OUT_OF_RANGE))
    assert (event.state, event.reason) == (REJECTED, Reason.OUT_OF_RANGE)
    assert not joint._of, "nothing is kept of it"


def test_what_becomes_known_later_is_the_wholes_too():
    joint = Joint()
    a, b = joined(joint, count=2)
    assert steps(joint, (a, SUCCEEDED), (b, UNKNOWN)) == [("whole", SENT), ("whole", UNKNOWN)]
    assert steps(joint, (b, SUCCEEDED), correction=True) == [("whole", SUCCEEDED)]


def test_a_refused_one_leaves_the_one_before_and_an_accepted_one_displaces_it():
    joint = Joint()
    old = joined(joint, "old")
    steps(joint, *((part, ACCEPTED) for part in old))
    steps(joint, *((part, REJECTED) for part in joined(joint, "refused")), reason=Reason.OUT_OF_RANGE)
    assert steps(joint, (old[0], SENT)) == [("old", SENT)]
    for n in range(100):
        steps(joint, *((part, ACCEPTED) for part in joined(joint, f"new-{n}")))
    assert len(joint._of) == 3, "those of the newest alone"
    assert steps(joint, *((part, FAILED) for part in old)) == []


def test_done_is_when_the_far_side_says_so_of_each():
    joint = Joint()
    a, b = joined(joint, count=2)
    assert joint.done(a) == ([], [])
    assert joint.done(b) == ([], [command("whole")])
    assert joint.done(command("another")) == ([], [])


@pytest.mark.parametrize("done_first", [True, False])
def test_a_failure_waits_for_no_read_back_of_the_others(done_first):
    joint = Joint()
    a, b = joined(joint, count=2)
    steps(joint, (a, SENT), (b, SENT))
    if done_first:
        joint.done(a)
        assert steps(joint, (b, FAILED)) == [("whole", FAILED)]
    else:
        assert steps(joint, (b, FAILED)) == []
        (event,), _ = joint.done(a)
        assert (event.command.id, event.state) == ("whole", FAILED)
    assert steps(joint, (a, UNKNOWN)) == []
