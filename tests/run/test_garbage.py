"""Full collections look at what is new, not at the whole fleet; and what is garbage goes all the same."""

import gc
import weakref

from gateway.core.model import Range
from gateway.run.garbage import GROWING_FOR, short_collections
from tests.kit.bench import Bench


class Fleet:
    def __init__(self):
        self.devices = []
        self.now = 0.0

    def come(self, count):
        self.devices += [{"list": [n]} for n in range(count)]

    def looked_at(self):
        """How many containers the next full collection looks at."""
        return len(gc.get_objects())


def test_a_fleet_is_looked_at_once():
    fleet = Fleet()
    with short_collections(lambda: len(fleet.devices), lambda: fleet.now):
        fleet.come(20_000)
        gc.collect()
        assert fleet.looked_at() < 10_000
        # What a bridge gets to know of it a little later, too.
        fleet.now += GROWING_FOR / 2
        later = [[n] for n in range(20_000)]
        gc.collect()
        assert fleet.looked_at() < 10_000
        assert len(later) == 20_000
    assert fleet.looked_at() > 60_000


def test_while_it_comes_no_collection_looks_at_all_of_it():
    fleet, looked = Fleet(), []

    def note(phase, info):
        if phase == "start" and info["generation"] == 2:
            looked.append(fleet.looked_at())

    with short_collections(lambda: len(fleet.devices), lambda: fleet.now):
        gc.callbacks.append(note)
        fleet.come(500_000)
        gc.callbacks.remove(note)
    assert looked
    assert max(looked) < 200_000


def test_a_fleet_that_stays_the_same_freezes_nothing_so_that_no_cycle_is_kept_for_ever():
    class Cycle:
        def __init__(self):
            self.itself = self

    fleet = Fleet()
    with short_collections(lambda: len(fleet.devices), lambda: fleet.now):
        fleet.come(1)
        gc.collect()
        fleet.now += GROWING_FOR
        cycle = Cycle()
        gc.collect()
        gone = weakref.ref(cycle)
        del cycle
        gc.collect()
        assert gone() is None


def test_all_is_as_before_in_the_end():
    before = gc.get_threshold(), list(gc.callbacks)
    with short_collections(lambda: 0, lambda: 0.0):
        assert gc.get_freeze_count() > 0
    assert (gc.get_threshold(), list(gc.callbacks)) == before
    assert gc.get_freeze_count() == 0


async def test_a_device_is_few_containers_to_look_at(tmp_path):
    """Each state and snapshot is none: they are replaced every minute, so they can't be frozen."""
    async with Bench(tmp_path) as bench:
        bench.publish(bench.announce(serial="first").serial, ac_power=1.0)
        gc.collect()
        before = len(gc.get_objects())
        for n in range(1000):
            bench.publish(bench.announce(serial=f"SN{n}", setpoints={"running": Range()}).serial, ac_power=1.0)
        gc.collect()
        assert len(gc.get_objects()) - before < 3000
        assert len(bench.router.states()) == 1001
