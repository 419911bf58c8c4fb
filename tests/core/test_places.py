"""Places: few of a fleet's commands are worked on at a time, in the order in which they came."""

import asyncio

from gateway.core.places import A_TURN, FEW, LATELY, LONGEST, MANY, Others, Places
from tests.kit.clock import virtual


@virtual
async def test_the_next_is_let_in_when_one_has_left():
    begun = []
    places = Places(begun.append, lambda: 2)
    for number in range(5):
        places.enter(number)
    assert begun == [0, 1]
    assert len(places) == 3
    places.leave(1)
    assert begun == [0, 1, 2]
    places.leave(1)  # it has none any more
    places.leave(4)  # nor has one that waits
    assert begun == [0, 1, 2]
    for number in (0, 2):
        places.leave(number)
    assert begun == [0, 1, 2, 3, 4]


@virtual
async def test_many_that_leave_as_soon_as_they_begin_are_all_let_in():
    begun = []

    def begin(number):
        begun.append(number)
        places.leave(number)

    places = Places(begin, lambda: 1)
    with places.held():
        for number in range(5_000):
            places.enter(number)
        assert not begun
    assert len(begun) == A_TURN
    while places:
        before = len(begun)
        await asyncio.sleep(0)
        assert len(begun) - before <= A_TURN
    assert begun == list(range(5_000))


@virtual
async def test_who_takes_long_holds_up_nobody():
    begun = []
    places = Places(begun.append, lambda: 1)
    places.enter("stuck")
    places.enter("next")
    await asyncio.sleep(LONGEST + 0.1)
    assert begun == ["stuck", "next"]
    places.leave("stuck")
    places.enter("third")
    assert begun == ["stuck", "next"]
    places.leave("next")
    assert begun == ["stuck", "next", "third"]


@virtual
async def test_once_closed_nobody_that_waited_is_let_in():
    begun = []
    places = Places(begun.append, lambda: 1)
    for number in range(3):
        places.enter(number)
    places.close()
    places.leave(0)
    await asyncio.sleep(LONGEST + 0.1)
    assert begun == [0]
    places.enter("new")
    assert begun == [0, "new"]


@virtual
async def test_there_are_few_places_while_others_come_and_many_while_none_do():
    begun, others = [], Others()
    places = Places(begun.append, others.room)
    for number in range(3 * MANY):
        places.enter(number)
    await asyncio.sleep(0.1)
    assert begun == list(range(MANY))
    others.came()
    for number in range(MANY - FEW):
        places.leave(number)
    await asyncio.sleep(0.1)
    assert len(begun) == MANY
    places.leave(MANY - 1)
    assert begun == list(range(MANY + 1))
    await asyncio.sleep(LATELY)
    places.leave(MANY)
    await asyncio.sleep(0.1)
    assert len(begun) == MANY - FEW + 2 + MANY
