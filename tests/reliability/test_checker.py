"""The checker can fail: each doctored record is found out, and a sound one is not."""

import hashlib
import json
from dataclasses import replace

import pytest

from tests.reliability.checker import reconcile
from tests.reliability.records import Executed, Journaled, Promised, Published, Records, Step

A, B, C = "a" * 8, "b" * 8, "c" * 8
LANE = ("9010KETU218W0001", "export_limit")
NOW = 1_800_000_000.0


def command(id_, value, *path, seq, expires=60.0, **more):
    steps = [Step(seq + n, state, NOW + seq + n) for n, state in enumerate(path)]
    return Journaled(id_, *LANE, value, more.pop("origin", "mqtt"), NOW + expires, steps=steps, **more)


def sound():
    """Two commands that were executed in turn, and between them one that was superseded."""
    journal = {
        A: command(A, 1.0, "accepted", "sent", "succeeded", seq=1),
        B: command(B, 2.0, "accepted", "superseded", seq=4),
        C: command(C, 3.0, "accepted", "sent", "succeeded", seq=6),
    }
    return Records(
        journal=journal,
        executed=[Executed(0, NOW + 2, *LANE, 1.0), Executed(1, NOW + 7, *LANE, 3)],
        published=[Published(c.id, *LANE, c.value, state) for c in journal.values() for state in c.path],
        promised=[Promised("Mqtt", *LANE, 2.0, B), Promised("Modbus", *LANE, 3.0)],
        in_force={LANE: 3.0},
    )


def guarded(*reverts, **more):
    """One with a dead-man's timer of 5 s, sent at NOW + 2, and what followed."""
    records = sound()
    one = command(A, 1.0, "accepted", "sent", "succeeded", seq=1, revert_after=5.0, revert_value=9.0, **more)
    records.journal = {A: one, **{c.id: c for c in reverts}}
    records.promised = []
    records.executed = [Executed(0, NOW + 2, *LANE, 1.0)]
    records.executed += [Executed(1, c.steps[1].time, *LANE, c.value) for c in reverts if "sent" in c.path]
    records.in_force = {LANE: records.executed[-1].value}
    records.published = [Published(c.id, *LANE, c.value, s) for c in records.journal.values() for s in c.path]
    return records


def test_sound_records_are_sound():
    verdict = reconcile(sound())
    assert verdict.faults == []
    assert verdict.figures["commands"] == 3
    assert verdict.figures["executions"] == 2


def lost(records):
    del records.journal[B]
    records.published = [p for p in records.published if p.id != B]


def lost_without_an_id(records):
    records.promised.append(Promised("Modbus", *LANE, 77.0))


def forgotten(records):
    records.journal[C].steps.pop()


def two_ends(records):
    records.journal[B].steps.append(Step(9, "expired", NOW + 9))


def late(records):
    records.executed[1] = replace(records.executed[1], asked=records.journal[C].expires + 1.5)


def stale(records):
    records.executed.append(Executed(2, NOW + 8, *LANE, 1.0))


def superseded_and_done_all_the_same(records):
    records.executed.insert(1, Executed(1, NOW + 5, *LANE, 2.0))


def made_up(records):
    records.executed.append(Executed(2, NOW + 8, *LANE, 55.0))


def only_said(records):
    records.executed.pop(0)


def not_told(records):
    records.published = [p for p in records.published if (p.id, p.state) != (A, "sent")]


def told_before_it_was_so(records):
    records.published.append(Published(B, *LANE, 2.0, "succeeded"))


def told_of_nothing(records):
    records.published.append(Published("d" * 8, *LANE, 2.0, "accepted"))


def told_backwards(records):
    records.published[:3] = records.published[2::-1]


def other_value_in_force(records):
    records.in_force[LANE] = 1.0


def expired_early(records):
    records.journal[B].steps[-1] = Step(5, "expired", NOW + 5)


def forged(records):
    fields = [1, "2026-06-21T12:00:00.000000Z", "accepted", *LANE, "1.0", "", "mqtt", "", A, 0, 0]
    text = json.dumps(fields, separators=(",", ":")).encode()
    records.audit = [(*fields, hashlib.sha256(bytes(32) + text + b" ").digest())]


@pytest.mark.parametrize(
    ("doctor", "kind"),
    [
        (lost, "lost"),
        (lost_without_an_id, "lost"),
        (forgotten, "not ended"),
        (two_ends, "impossible life"),
        (late, "late"),
        (stale, "stale"),
        (superseded_and_done_all_the_same, "executed though it ended unsent"),
        (made_up, "out of nothing"),
        (only_said, "not done"),
        (not_told, "not published"),
        (told_before_it_was_so, "published, not journaled"),
        (told_of_nothing, "published, not journaled"),
        (told_backwards, "published out of order"),
        (other_value_in_force, "not in force"),
        (expired_early, "expired too early"),
        (forged, "chain broken"),
    ],
)
def test_doctored_records_are_found_out(doctor, kind):
    records = sound()
    doctor(records)
    assert kind in reconcile(records).kinds


def test_the_same_effect_again_is_harmless():
    records = sound()
    records.executed.append(Executed(2, NOW + 8, *LANE, 3.0))
    verdict = reconcile(records)
    assert verdict.faults == []
    assert verdict.figures["executed again, with the same effect"] == 1


def test_a_timer_that_fires_in_time_is_sound():
    revert = command(B, 9.0, "accepted", "sent", "succeeded", seq=8, origin="revert")
    verdict = reconcile(guarded(revert))
    assert verdict.faults == []
    assert verdict.figures["reverts"] == 1


def test_of_two_reverts_to_the_same_value_the_one_that_was_alive_did_it():
    lost_on_the_way = command(B, 9.0, "accepted", "sent", "unknown", seq=8, origin="revert")
    again = command(C, 9.0, "accepted", "sent", "succeeded", seq=20, origin="revert")
    records = guarded(lost_on_the_way, again)
    del records.executed[1]
    assert reconcile(records).faults == []
    records.executed[1] = Executed(1, NOW + 9, *LANE, 9.0)
    assert reconcile(records).kinds == {"not done"}


def test_of_two_reverts_that_follow_within_milliseconds_the_second_may_have_done_it():
    """After a restart the timer fires in the instant in which the revert of the life before has ended as unknown."""
    lost_on_the_way = command(B, 9.0, "accepted", "sent", "unknown", seq=8, origin="revert")
    again = command(C, 9.0, "accepted", "sent", "succeeded", seq=20, origin="revert")
    again.steps = [replace(step, time=NOW + 10 + 0.004 * n) for n, step in enumerate(again.steps, 1)]
    records = guarded(lost_on_the_way, again)
    records.executed[1:] = [Executed(1, NOW + 10 + 0.006, *LANE, 9.0)]
    assert reconcile(records).faults == []
    records.executed[1:] = [Executed(1, NOW + 10 - 0.5, *LANE, 9.0)]
    assert reconcile(records).kinds == {"not done"}


def test_a_timer_that_never_fires_is_found_out():
    assert reconcile(guarded()).kinds == {"not reverted"}


NEXT = command(C, 3.0, "accepted", "sent", "succeeded", seq=20)
"""It comes 13 s after the time of the dead-man's timer."""


@pytest.mark.parametrize(
    ("lives", "kinds"),
    [
        ([[NOW, None]], {"not reverted in time"}),
        ([[NOW, NOW + 2], [NOW + 10, NOW + 10.5]], {"not reverted in time"}),  # it was over before that one was up
        ([[NOW, NOW + 5], [NOW + 8.5, None]], {"not reverted in time"}),
        ([[NOW, NOW + 2], [NOW + 25, None]], set()),  # nobody was there in time
        ([[NOW, NOW + 2], [None, NOW + 15], [NOW + 25, None]], set()),  # nor was one that never was up
        ([[NOW, NOW + 7.5], [NOW + 25, None]], set()),  # killed before its second was over
        ([], set()),  # nobody wrote down who was up
    ],
)
def test_a_timer_that_a_gateway_forgets_is_found_out_also_where_a_newer_command_came_later(lives, kinds):
    records = guarded(NEXT)
    records.lives = lives
    assert reconcile(records).kinds == kinds


def test_a_timer_that_fires_late_while_a_gateway_is_up_is_found_out():
    revert = command(B, 9.0, "accepted", "sent", "succeeded", seq=12, origin="revert")
    records = guarded(revert)
    records.lives = [[NOW, None]]
    assert reconcile(records).kinds == {"not reverted in time"}
    records.lives = [[NOW, NOW + 3], [NOW + 12, None]]
    assert reconcile(records).faults == []


def test_a_timer_of_a_command_that_was_sent_again_counts_from_then_on():
    revert = command(B, 9.0, "accepted", "sent", "succeeded", seq=15, origin="revert")
    records = guarded(revert)
    records.lives = [[NOW, None]]
    records.executed[0] = replace(records.executed[0], asked=NOW + 9.9)
    records.journal[A].steps[-1] = replace(records.journal[A].steps[-1], time=NOW + 10)
    assert reconcile(records).faults == []


def test_a_timer_waits_for_a_newer_command_under_way():
    records = guarded(command(C, 3.0, "accepted", "sent", "failed", seq=6),
                      command(B, 9.0, "accepted", "sent", "succeeded", seq=12, origin="revert"))  # fmt: skip
    records.journal[C].steps[-1] = replace(records.journal[C].steps[-1], time=NOW + 11.9)
    records.executed = [one for one in records.executed if one.value != 3.0]
    records.lives = [[NOW, None]]
    assert reconcile(records).faults == []


def test_a_timer_whose_revert_fails_for_good_is_found_out():
    assert "not reverted" in reconcile(guarded(command(B, 9.0, "accepted", "expired", seq=80, origin="revert"))).kinds


def test_a_timer_that_fires_too_early_is_found_out():
    early = command(B, 9.0, "accepted", "sent", "succeeded", seq=4, origin="revert")
    assert reconcile(guarded(early)).kinds == {"reverted too early"}


def test_a_timer_that_fires_though_a_newer_command_took_its_place_is_found_out():
    newer = command(C, 3.0, "accepted", "sent", "succeeded", seq=4)
    revert = command(B, 9.0, "accepted", "sent", "succeeded", seq=10, origin="revert")
    assert reconcile(guarded(newer, revert)).kinds == {"reverted though replaced"}


def test_what_is_under_way_need_not_have_ended():
    records = sound()
    forgotten(records)
    records.published.pop()
    assert reconcile(records, over=False).faults == []
