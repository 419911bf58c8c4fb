"""Lists that lose much: when they are believed, and what is said meanwhile."""

import pytest

from gateway.sems.doubts import ListDoubts
from tests.bridges.open_api.kit import Desk
from tests.sems.kit import Clock

TEN = [f"d{n}" for n in range(10)]


@pytest.fixture
def desk():
    return Desk(Clock())


@pytest.mark.parametrize(
    ("had", "left", "believed"),
    [
        (0, 0, True),
        (1, 1, True),
        (1, 0, False),
        (2, 1, False),
        (3, 2, True),
        (3, 1, False),
        (10, 7, True),
        (10, 6, False),
    ],
)
def test_more_than_a_third_is_much(desk, had, left, believed):
    assert ListDoubts(desk).believe("p", "list", TEN[:had], TEN[:left]) is believed
    assert desk.found("list_doubted") == (set() if believed else {"p"})


def test_rounds_in_quick_succession_are_one(desk):
    doubts = ListDoubts(desk)
    assert not any(doubts.believe("p", "list", TEN, []) for _ in range(10))


def test_three_that_agree_a_minute_apart_are_believed_and_one_that_differs_begins_anew(desk):
    doubts = ListDoubts(desk)
    for listed, believed in (([], 0), ([], 0), (TEN[:2], 0), ([*TEN[:2], "new"], 0), (TEN[:2], 1), ([], 0), (TEN, 1)):
        assert doubts.believe("p", "list", TEN, listed) is bool(believed), listed
        assert bool(doubts) is not bool(believed)
        assert desk.found("list_doubted") == (set() if believed else {"p"})
        desk.clock.pass_time(60)


def test_two_lists_of_one_plant_are_one_finding_until_both_are_settled(desk):
    doubts = ListDoubts(desk)
    doubts.believe("p", "a", TEN, [])
    doubts.believe("p", "b", TEN, [])
    doubts.believe("q", "a", TEN, [])
    doubts.believe("p", "a", TEN, TEN)
    assert desk.found("list_doubted") == {"p", "q"}
    assert "a lists" not in desk.findings["list_doubted", "p"]
    doubts.believe("p", "b", TEN, TEN)
    assert desk.found("list_doubted") == {"q"}
    doubts.keep({"p"})
    assert not doubts
    assert not desk.found("list_doubted")
