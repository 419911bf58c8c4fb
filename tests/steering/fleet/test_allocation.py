"""How a power is shared out: against a solver that we did not write, and by what the best shares must look like."""

import math
import os
import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.steering.fleet.allocation import Member, allocate
from tests.steering.fleet.solver import GAP, least_missed

FLEETS = int(os.environ.get("SEMS_GATEWAY_FLEETS", "2000"))
"""How many random fleets are looked at; 100,000 take some minutes."""
HAIR = 1e-3
"""W."""


def a_fleet(chance):
    """Return a random target and fleet: inverters that only give, batteries, minima, steps, such as must run."""
    members = []
    for _ in range(chance.choice([1, 2, 3, 5, 8, 12])):
        rated = chance.choice([3_000.0, 5_000.0, 10_000.0, 29_900.0])
        high = chance.choice([rated, rated * chance.random(), 0.0])
        low = chance.choice([0.0, 0.0, -rated, -rated * chance.random(), high * chance.random() * 0.5])
        minimum = chance.choice([0.0, 0.0, 0.0, rated * 0.1, rated * 0.5])
        step = chance.choice([0.0, 1.0, 50.0, 100.0, rated / 100])
        weight = chance.choice([1.0, rated, max(high, 1.0)])
        members.append(Member(low, max(low, high), weight=weight, step=step, minimum=minimum))
    least, most = sum(m.low for m in members), sum(m.high for m in members)
    return chance.uniform(least * 1.1 - 500, most * 1.1 + 500), members


def takes(member, power):
    """Say why a member can't have this power; "" where it can."""
    if not member.low - HAIR <= power <= member.high + HAIR:
        return f"{power} is not from {member.low} to {member.high}"
    if member.low <= 0 <= member.high and HAIR < abs(power) < member.minimum - HAIR:
        return f"{power} is below its minimum of {member.minimum}"
    steps = power / member.step if member.step else 0.0
    has_steps = member.step and math.ceil(member.low / member.step) <= math.floor(member.high / member.step)
    return f"{power} is no step of {member.step}" if has_steps and abs(steps - round(steps)) > HAIR else ""


def test_no_solver_comes_nearer_by_more_than_a_step():
    chance = random.Random(18)
    for n in range(FLEETS):
        target, members = a_fleet(chance)
        share = allocate(target, members)
        for member, power in zip(members, share.powers, strict=True):
            assert not takes(member, power), (n, takes(member, power), target, members)
        missed = abs(target - sum(share.powers))
        step = max(member.step for member in members)
        if missed > step:  # else nobody comes nearer by more than one, and a solver may take for ever to prove it
            assert missed <= least_missed(target, members) + step + GAP, (n, missed, target, members)
        assert share.unplaced == pytest.approx(0 if missed <= step / 2 + HAIR else target - sum(share.powers), abs=HAIR)


POWERS = st.floats(-30_000, 30_000).map(lambda power: round(power, 1))


@st.composite
def smooth(draw):
    """Return a member that takes any power within its bounds."""
    low, high = sorted((draw(POWERS), draw(POWERS)))
    return Member(low, high, weight=draw(st.floats(1, 50_000)), wish=draw(POWERS))


@given(st.floats(-200_000, 200_000), st.lists(smooth(), min_size=1, max_size=30))
@example(0.0, [Member(0.0, 0.0)])
@example(5_000.0, [Member(5_000.0, 5_000.0), Member(0.0, 0.0), Member(0.0, 1.0)])
def test_shares_are_the_best_there_are(target, members):
    """Karush-Kuhn-Tucker: one price for all who are free; at the lower bound it is too low, at the upper too high."""
    share = allocate(target, members)
    least, most = sum(m.low for m in members), sum(m.high for m in members)
    assert sum(share.powers) == pytest.approx(min(max(target, least), most), abs=HAIR)
    prices = [(power - m.wish) / m.weight for power, m in zip(share.powers, members, strict=True)]
    below = [p for p, power, m in zip(prices, share.powers, members, strict=True) if power < m.high - HAIR]
    above = [p for p, power, m in zip(prices, share.powers, members, strict=True) if power > m.low + HAIR]
    assert max(above, default=-math.inf) <= min(below, default=math.inf) + HAIR


def powers(target, *members):
    return allocate(target, members).powers


def test_cases_of_others():
    # OpenEMS' PvInverterCluster gives 13 kW of 15 to inverters of 3, 10 and 10 kW: it shares equally and cuts.
    assert powers(15_000, Member(0, 3_000), Member(0, 10_000), Member(0, 10_000)) == [3_000, 6_000, 6_000]
    # OpenEMS' TreeSolver gives 4.33 kW where 4 are asked for and one of three has a minimum of 3 kW.
    three = [Member(0, 10_000, minimum=3_000), Member(0, 10_000), Member(0, 10_000)]
    assert powers(4_000, *three) == [0, 2_000, 2_000]
    assert powers(-4_000, *(Member(-m.high, 0, minimum=m.minimum) for m in three)) == [0, -2_000, -2_000]


def test_what_can_not_be_placed_is_said():
    share = allocate(30_000, [Member(0, 10_000), Member(0, 12_000)])
    assert (share.powers, share.unplaced) == ([10_000, 12_000], 8_000)
    share = allocate(-5_000, [Member(-1_000, 10_000), Member(0, 12_000)])
    assert (share.powers, share.unplaced) == ([-1_000, 0], -4_000)
    share = allocate(500, [Member(0, 10_000, minimum=2_000)])
    assert (share.powers, share.unplaced) == ([0], 500), "half on is not on"
    assert allocate(7.0, []).unplaced == 7.0


def test_minima_that_do_not_fit_one_beside_the_other_are_tried_in_other_ways():
    exact = [Member(0, 3_000, minimum=3_000), Member(0, 5_000, minimum=5_000), Member(0, 7_000, minimum=7_000)]
    for target, wanted in ((8_000, [3_000, 5_000, 0]), (12_000, [0, 5_000, 7_000]), (10_000, [3_000, 0, 7_000])):
        assert powers(target, *exact) == wanted


def test_ten_thousand_members_of_every_kind_are_met_to_half_a_step():
    chance = random.Random(1)
    members = [
        Member(chance.choice([0.0, -5_000.0]), chance.uniform(0, 10_000), weight=chance.uniform(1, 10), step=50.0,
               minimum=chance.choice([0.0, 500.0]))
        for _ in range(10_000)
    ]  # fmt: skip
    for part in (-0.4, -0.01, 0.0, 0.01, 0.5, 0.99):
        target = part * sum(m.high for m in members)
        assert abs(target - sum(allocate(target, members).powers)) <= 25.0 + HAIR
