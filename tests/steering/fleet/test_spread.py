"""Batteries of unlike states of charge come nearer to each other, whichever way they are driven: `share: soc`."""

from datetime import UTC, datetime
from statistics import pstdev

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.core.model import Device, DeviceKind, DeviceState, Quality, Range
from gateway.steering.fleet.mate import Mate
from gateway.steering.fleet.planner import Ask, Planner
from gateway.steering.fleet.settings import FleetSettings

NOW = datetime(2026, 6, 21, 12, tzinfo=UTC)
HOURS = 0.1
RESERVE = 10.0


class Battery:
    """An inverter with a battery, and the sun that shines on it."""

    def __init__(self, number, soc, rated, capacity, sun):
        takes = {"battery_mode": Range(), "battery_power_target": Range(0, rated)}
        self.mate = Mate(_device(number, DeviceKind.STORAGE, rated, takes), takes)
        self.soc, self.capacity, self.sun = soc, capacity, sun
        self.gives = sun
        self.show()

    def show(self):
        values = {
            "ac_power": self.gives,
            "pv_power": self.sun,
            "battery_soc": self.soc,
            "battery_capacity": self.capacity,
        }
        self.mate.look(_state(self.mate, values))

    def give(self, power, hours):
        """Have it give W at its terminals."""
        self.gives = power
        self.soc -= (power - self.sun) / 1000 * hours / self.capacity * 100
        self.show()


def _device(number, kind, rated, takes):
    return Device(serial=f"{kind}{number}", kind=kind, plant="P1", rated_power=rated, setpoints=takes)


def _state(mate, values):
    return DeviceState(device=mate.device, quality=Quality.GOOD, time=NOW, source="test", values=values)


def a_planner(share):
    return Planner(
        FleetSettings.model_validate({"members": {"devices": ["*"]}, "share": share, "reserve_soc": RESERVE})
    )


def follow(planner, batteries, power, others=()):
    """Share a power of all batteries out, a tenth of an hour at a time, until some are full, empty or at a bound.

    Return how many times that was done, and what the others gave last.
    """
    mates = [*(each.mate for each in batteries), *others]
    times = 0
    while times < 20:
        suns = sum(each.sun for each in batteries) + sum(each.power for each in others)
        sights = planner.see(mates, {}, NOW, capped=False)
        found = planner.share_out(Ask(power + suns), sights)
        told = {part.mate.device.serial: part.power for part in found.parts}
        powers = [told.get(sight.mate.device.serial, sight.believed) for sight in sights]
        members = [sight.member for sight in sights[: len(batteries)]]
        at_bound = any(not m.low < its < m.high for m, its in zip(members, powers, strict=False))
        if at_bound or any(not RESERVE + 5 < each.soc < 95 for each in batteries):
            break
        for each, its in zip(batteries, powers, strict=False):
            each.give(its, HOURS)
        times += 1
    return times, powers[len(batteries) :]


@st.composite
def unlike(draw):
    """Return batteries between 20 and 90 % that are not all alike; they last two to four hours."""
    batteries = []
    for number in range(draw(st.integers(2, 25))):
        rated = draw(st.sampled_from([5_000.0, 10_000.0, 29_900.0]))
        capacity = rated / 1000 * draw(st.floats(2, 4))
        sun = rated * draw(st.sampled_from([0.0, 0.0, 0.1, 0.4]))
        batteries.append(Battery(number, draw(st.floats(20, 90)), rated, capacity, sun))
    socs = [battery.soc for battery in batteries]
    assume(max(socs) - min(socs) > 10)
    return batteries


@given(unlike(), st.sampled_from([-0.2, -0.05, 0.05, 0.2]))
def test_the_spread_of_states_of_charge_falls_while_none_is_at_its_bound(batteries, part):
    before = pstdev(battery.soc for battery in batteries)
    times, _ = follow(a_planner("soc"), batteries, part * sum(battery.mate.rated for battery in batteries))
    assume(times)
    assert pstdev(battery.soc for battery in batteries) < before


@pytest.mark.parametrize("part", [-0.2, 0.2])
def test_the_sun_is_not_held_back_for_it(part):
    takes = {"active_power_limit": Range(0, 100)}
    plain = [Mate(_device(n, DeviceKind.INVERTER, 10_000.0, takes), takes) for n in range(3)]
    for mate in plain:
        mate.look(_state(mate, {"ac_power": 4_000.0}))
    batteries = [Battery(n, 30.0 + 20 * n, 10_000.0, 20.0, 2_000.0) for n in range(3)]
    times, given_by_sun = follow(a_planner("soc"), batteries, part * 30_000, plain)
    assert times > 3
    assert given_by_sun == [4_000.0] * 3
    assert batteries[2].soc - batteries[0].soc < 35


@pytest.mark.parametrize("share", ["headroom", "rating", "equal"])
def test_with_any_other_share_it_stays(share):
    """All of the same kind get the same, whatever they hold."""
    batteries = [Battery(n, 30.0 + 10 * n, 10_000.0, 20.0, 0.0) for n in range(5)]
    times, _ = follow(a_planner(share), batteries, 10_000.0)
    assert times > 3
    assert batteries[4].soc - batteries[0].soc == pytest.approx(40)


SLOT = 0.25
"""Hours."""


def live(batteries, others, powers, rounds):
    """Ask for W beyond what the sun gives, one power each slot; correct so often in each, as the sun comes and goes.

    Return how many members were told by a correction, and how many corrections told somebody.
    """
    planner = a_planner("soc")
    mates = [*(each.mate for each in batteries), *others]
    told = corrections = 0
    for power in powers:
        suns = sum(each.sun for each in batteries) + sum(mate.sun for mate in others)
        for number in range(rounds):
            for mate in others:  # what is asked stays, and what the sun gives does not
                can = mate.rated * (0.5 + 0.1 * (number % 3 - 1))
                _shine(mate, can if mate.is_free else min(can, mate.told), can)
            sights = planner.see(mates, {}, NOW, capped=False)
            found = (planner.correct if number else planner.share_out)(Ask(power + suns), sights)
            told += len(found.parts) if number else 0
            corrections += bool(found.parts) if number else 0
            for part in found.parts:
                part.mate.told, part.mate.told_sun, part.mate.is_free = part.power, part.mate.sun, part.free
            for battery in batteries:
                power_now = battery.mate.told if battery.mate.told is not None else battery.sun
                battery.give(power_now, SLOT / rounds)
    return told, corrections


def _shine(mate, power, can):
    values = {"ac_power": power, "pv_power": power, "active_power_limit": min(100.0, mate.told / mate.rated * 100)}
    mate.look(_state(mate, {**values, "active_power_limit": 100.0 if mate.is_free else values["active_power_limit"]}))


def a_solar_park(count, rated=10_000.0):
    takes = {"active_power_limit": Range(0, 100)}
    plain = [Mate(_device(n, DeviceKind.INVERTER, rated, takes), takes) for n in range(count)]
    for mate in plain:
        mate.told = rated
        _shine(mate, rated / 2, rated / 2)
    return plain


@pytest.mark.parametrize("order", [1, -1])
def test_it_falls_by_corrections_too(order):
    """As many are charged as discharged, so that nothing else brings them nearer to each other."""
    batteries = [Battery(n, 25.0 + 5 * n, 10_000.0, 20.0, 0.0) for n in range(11)][::order]
    before = pstdev(battery.soc for battery in batteries)
    told, corrections = live(batteries, a_solar_park(10), [4_000, -4_000] * 6, 5)
    assert corrections > 20
    assert told <= 1.5 * corrections
    assert pstdev(battery.soc for battery in batteries) < 0.75 * before


def settled(batteries, power, others=()):
    """Have all told by a first target, and do it."""
    planner = a_planner("soc")
    mates = [*(each.mate for each in batteries), *others]
    for part in planner.share_out(Ask(power), planner.see(mates, {}, NOW, capped=False)).parts:
        part.mate.told, part.mate.told_sun, part.mate.is_free = part.power, part.mate.sun, part.free
    for battery in batteries:
        battery.give(battery.mate.told, 0)
    return planner, mates


def test_who_is_near_its_share_is_not_told_anew():
    """An order costs two writes."""
    batteries = [Battery(n, 30.0 + 5 * n, 10_000.0, 20.0, 0.0) for n in range(10)]
    planner, mates = settled(batteries, 10_000)
    batteries[7].give(batteries[7].mate.told + 1_000, 0)
    batteries[7].mate.told += 1_000
    found = planner.share_out(Ask(10_500), planner.see(mates, {}, NOW, capped=False))
    assert [part.mate.device.serial for part in found.parts] == [batteries[7].mate.device.serial]
    assert sum(part.power for part in found.parts) == pytest.approx(batteries[7].gives - 500)


def test_what_no_battery_takes_is_held_back_at_as_few_as_can_be():
    batteries = [Battery(n, 100.0, 10_000.0, 20.0, 0.0) for n in range(3)]
    park = a_solar_park(10)
    planner, mates = settled(batteries, 50_000, park)
    found = planner.share_out(Ask(47_000), planner.see(mates, {}, NOW, capped=False))
    held = [part.power for part in found.parts if part.mate in park and not part.free]
    assert held == [2_000]
    assert found.unplaced == 0


def corrected(batteries, park, error):
    """Return who is told by a correction of so many W beyond what all give now."""
    planner = a_planner("soc")
    sights = planner.see([*(each.mate for each in batteries), *park], {}, NOW, capped=False)
    found = planner.correct(Ask(sum(sight.believed for sight in sights) + error), sights)
    assert found.unplaced == 0
    return {part.mate.device.serial: part.power for part in found.parts}


def test_a_sun_that_is_held_back_is_freed_before_a_battery_is_discharged():
    batteries, (held, free) = [Battery(n, 80.0, 10_000.0, 20.0, 0.0) for n in range(3)], a_solar_park(2)
    held.free = NOW, 5_000.0
    held.told, held.is_free = 2_000.0, False
    _shine(held, 2_000.0, 5_000.0)
    assert corrected(batteries, [held, free], 3_000.0) == {held.device.serial: 5_000.0}


def test_a_battery_that_spares_its_writes_is_charged_before_the_sun_is_held_back():
    batteries = [Battery(n, 20.0 + 30 * n, 10_000.0, 20.0, 0.0) for n in range(3)]
    for battery in batteries:
        battery.mate.rests = True
    assert corrected(batteries, a_solar_park(2), -3_000.0) == {batteries[0].mate.device.serial: -3_000.0}
