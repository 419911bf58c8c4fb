"""No slot is lost, whatever the order of grant, time-out, cancellation and release. On both loops."""

import asyncio
import os
from contextlib import suppress
from itertools import permutations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.limiter import Limiter, NoSlotError
from tests.kit.loops import BOTH_LOOPS, run_on

MS = 0.001
URGENT = 3


class Watched:
    """A limiter, and who is in it."""

    def __init__(self, slots, reserve=0):
        self.limiter = Limiter(slots, reserve=reserve, urgent=URGENT)
        self.slots, self.reserve = slots, reserve
        self.inside = {}
        """Name → rank."""
        self.entered = []
        self.fates = {}

    async def use(self, name, hold, rank=0, timeout=None):
        """Hold a slot for so long: seconds, or until an event."""
        try:
            async with self.limiter.slot(rank, timeout):
                assert len(self.inside) < self.slots + self.reserve
                assert rank >= URGENT or sum(other < URGENT for other in self.inside.values()) < self.slots
                self.inside[name] = rank
                self.entered.append(name)
                self.check()
                try:
                    await (hold.wait() if isinstance(hold, asyncio.Event) else asyncio.sleep(hold))
                finally:
                    del self.inside[name]
            self.fates[name] = "held"
        except NoSlotError:
            self.fates[name] = "too late"
        except asyncio.CancelledError:
            self.fates[name] = "cancelled"
            raise
        finally:
            self.check()

    def check(self):
        taken, waiting = self.limiter.taken, self.limiter.waiting
        assert len(self.inside) <= taken <= self.slots + self.reserve
        assert not waiting or taken >= self.slots, "somebody waits though there is room"

    async def whole(self):
        """Show that every slot is there: as many as there are may be held at a time, and none more."""
        assert (self.limiter.taken, self.limiter.waiting, self.inside) == (0, 0, {})
        leave = asyncio.Event()
        total = self.slots + self.reserve
        names = [f"again {n}" for n in range(total + 1)]
        users = [asyncio.create_task(self.use(name, leave, URGENT, 10)) for name in names]
        while len(self.inside) < total:
            await asyncio.sleep(0)
        assert self.limiter.waiting <= 1
        leave.set()
        await asyncio.gather(*users)
        assert {self.fates[name] for name in names} == {"held"}
        assert (self.limiter.taken, self.limiter.waiting) == (0, 0)


# one slot, one who waits, and all that can come in one turn of the loop

DUE = 5 * MS


def leave(slot):
    """Give a slot back within this turn of the loop."""
    with suppress(StopIteration):
        slot.__aexit__(None, None, None).send(None)


@BOTH_LOOPS
@pytest.mark.parametrize("gap", [0, 2 * MS], ids=["in one turn", "one after the other"])
@pytest.mark.parametrize("events", [p for n in (1, 2, 3) for p in permutations(["release", "time-out", "cancel"], n)])
def test_whatever_comes_first_the_slot_is_there_afterwards(loop, events, gap):
    async def test():
        running, watched = asyncio.get_running_loop(), Watched(1)
        slot = watched.limiter.slot()
        await slot.__aenter__()
        times = {event: DUE + n * gap for n, event in enumerate(events)}

        def act(event):
            if event == "release":
                leave(slot)
            else:
                waiter.cancel()

        def plan(some):
            for event in some:
                running.call_later(times[event], act, event)

        # Of what is due at a time, a loop calls first what was set first.
        place = events.index("time-out") if "time-out" in events else len(events)
        plan(events[:place])
        waiter = asyncio.create_task(watched.use("waiter", MS, timeout=times.get("time-out")))
        await asyncio.sleep(0)
        plan(events[place + 1 :])
        await asyncio.sleep(4 * DUE)
        if "release" not in events:
            leave(slot)
        await asyncio.gather(waiter, return_exceptions=True)
        if gap and loop == "virtual" and events[0] != "release":  # else a busy machine has a say
            assert watched.fates["waiter"] == {"time-out": "too late", "cancel": "cancelled"}[events[0]]
        if events == ("release",):
            assert watched.fates["waiter"] == "held"
        await watched.whole()

    run_on(loop, test())


@BOTH_LOOPS
@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("first", ["release", "cancel"])
def test_cancelled_while_a_slot_is_on_its_way_it_is_handed_on(loop, first, turns):
    async def test():
        watched = Watched(1)
        slot = watched.limiter.slot()
        await slot.__aenter__()
        waiter = asyncio.create_task(watched.use("waiter", 60))
        behind = asyncio.create_task(watched.use("behind", 0))
        await asyncio.sleep(0)
        acts = [lambda: leave(slot), waiter.cancel]
        for act in acts if first == "release" else acts[::-1]:
            act()
            for _ in range(turns):
                await asyncio.sleep(0)
        await asyncio.gather(waiter, behind, return_exceptions=True)
        assert watched.fates == {"waiter": "cancelled", "behind": "held"}
        await watched.whole()

    run_on(loop, test())


@BOTH_LOOPS
def test_one_that_is_closed_without_the_loop_hands_its_slot_on(loop):
    async def test():
        limiter = Limiter(1)
        slot = limiter.slot()
        await slot.__aenter__()
        waiting = limiter.slot().__aenter__()
        waiting.send(None)
        assert (limiter.taken, limiter.waiting) == (1, 1)
        leave(slot)
        assert (limiter.taken, limiter.waiting) == (1, 0)
        waiting.close()
        assert (limiter.taken, limiter.waiting) == (0, 0)

    run_on(loop, test())


# who is next


@BOTH_LOOPS
def test_the_highest_rank_goes_first_and_of_one_rank_whoever_came_first(loop):
    async def test():
        watched = Watched(1, reserve=1)
        gate = asyncio.Event()
        users = [asyncio.create_task(watched.use(name, gate, URGENT)) for name in ("first", "second")]
        await asyncio.sleep(0)
        ranks = [0, 2, URGENT, 1, 2, URGENT, 0]
        users += [asyncio.create_task(watched.use((rank, n), 0, rank)) for n, rank in enumerate(ranks)]
        await asyncio.sleep(MS)
        assert watched.limiter.waiting == len(ranks)
        gate.set()
        await asyncio.gather(*users)
        assert watched.entered[2:] == [(3, 2), (3, 5), (2, 1), (2, 4), (1, 3), (0, 0), (0, 6)]

    run_on(loop, test())


@BOTH_LOOPS
def test_the_reserve_is_for_the_urgent_alone(loop):
    async def test():
        watched, gate = Watched(2, reserve=2), asyncio.Event()
        users = [asyncio.create_task(watched.use(n, gate, URGENT - 1)) for n in range(3)]
        await asyncio.sleep(MS)
        assert (len(watched.inside), watched.limiter.waiting) == (2, 1)
        users += [asyncio.create_task(watched.use(("urgent", n), gate, URGENT + n)) for n in range(3)]
        await asyncio.sleep(MS)
        assert (len(watched.inside), watched.limiter.waiting) == (4, 2)
        gate.set()
        await asyncio.gather(*users)
        await watched.whole()

    run_on(loop, test())


@BOTH_LOOPS
def test_no_slot_in_time_is_an_error_of_its_own_and_one_that_is_free_needs_no_time(loop):
    async def test():
        limiter = Limiter(1)
        async with limiter.slot(timeout=0):
            for timeout in (-1, 0, 2 * MS):
                with pytest.raises(NoSlotError):
                    async with limiter.slot(timeout=timeout):
                        pytest.fail("there is only one")
        assert (limiter.taken, limiter.waiting) == (0, 0)
        with pytest.raises(TimeoutError) as met:  # what is raised inside is not the limiter's
            async with limiter.slot(timeout=1):
                raise TimeoutError
        assert not isinstance(met.value, NoSlotError)
        assert limiter.taken == 0

    run_on(loop, test())


def test_whose_time_is_over_gets_no_slot_though_the_loop_was_too_busy_to_say_so():
    async def test():
        watched = Watched(1)
        slot = watched.limiter.slot()
        await slot.__aenter__()
        users = [
            asyncio.create_task(watched.use(name, 0, timeout=timeout))
            for name, timeout in (("late", MS), ("behind", 1))
        ]
        await asyncio.sleep(0)
        asyncio.get_running_loop()._virtual += 2 * MS
        leave(slot)
        await asyncio.gather(*users)
        assert watched.fates == {"late": "too late", "behind": "held"}
        await watched.whole()

    run_on("virtual", test())


# anything, at any time

MOMENTS = st.sampled_from([0, 2 * MS, 4 * MS, 6 * MS])
USERS = st.lists(
    st.tuples(
        MOMENTS,  # comes
        st.sampled_from([0, 1, URGENT]),  # its rank
        st.sampled_from([None, 0, 2 * MS, 4 * MS]),  # waits no longer than
        st.sampled_from([0, 2 * MS, 4 * MS]),  # holds it
        st.one_of(st.none(), MOMENTS),  # is cancelled
        st.integers(0, 3),  # so many turns of the loop later
    ),
    min_size=1,
    max_size=8,
)


async def anything(watched, users):
    """Have users come, wait, hold, and be cancelled."""

    async def live(name, comes, rank, timeout, hold, cancelled, turns):
        await asyncio.sleep(comes)
        user = asyncio.create_task(watched.use(name, hold, rank, timeout))
        if cancelled is not None:
            await asyncio.sleep(cancelled)
            for _ in range(turns):
                await asyncio.sleep(0)
            user.cancel()
        await asyncio.gather(user, return_exceptions=True)
        if not user.cancelled() and user.exception() is not None:
            raise user.exception()

    await asyncio.gather(*(live(n, *user) for n, user in enumerate(users)))
    await watched.whole()


@BOTH_LOOPS
@settings(max_examples=150)
@given(slots=st.integers(1, 3), reserve=st.integers(0, 2), users=USERS)
def test_whoever_comes_whenever_and_goes_however_every_slot_is_there_afterwards(loop, slots, reserve, users):
    run_on(loop, anything(Watched(slots, reserve), users))


def test_every_pair_of_users_of_one_slot():
    """All of them, on the virtual loop, where what is due at a time is due in one turn.

    `make soak` has them cancelled after all has ended, too.
    """
    moments = (0, 2 * MS, 4 * MS) if "SEMS_GATEWAY_SOAK_PAIRS" in os.environ else (0, 2 * MS)
    fates = [
        (comes, rank, timeout, 2 * MS, cancelled, turns)
        for comes, rank, timeout, cancelled in product((0, 2 * MS), (0, URGENT), (None, 0, 2 * MS), (None, *moments))
        for turns in ((0,) if cancelled is None else (0, 1))
    ]

    async def test(one):
        for other in fates:
            await anything(Watched(1), [(0, 0, None, 2 * MS, None, 0), one, other])

    for one in fates:
        run_on("virtual", test(one))
