"""pv + battery + grid = load: right signs are never doubted, wrong ones are found within an hour; nothing is turned."""

import math
import random
from datetime import timedelta
from itertools import pairwise

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.balance import BATTERY, GRID, TERMS, BalanceWatch, Flows, Sign
from gateway.core.model import Device, DeviceKind
from tests.kit.clock import NOON

PLANT = Device(serial="P1", kind=DeviceKind.PLANT)
HOUR = 60
DAY = 24 * HOUR
SEEDS = st.integers(0, 2**32)
BESIDE = ("in the load", "beside it", "beside it and not measured")
"""Where an EV charger's power is."""


def turned(point):
    return {"bridges": {"sems": {point: "turned"}}}


class House:
    """Minutes of a house as its cloud has them: with losses, noise, and one value that is a minute late."""

    def __init__(self, seed, *, battery=None, charger=None):
        self.dice = dice = random.Random(seed)
        self.loss = dice.uniform(0.0, 0.10)
        self.noise = dice.uniform(0.0, 0.02)
        self.battery = dice.choice([0.0, 3000.0, 5000.0]) if battery is None else battery
        self.charger = dice.choice(["", *BESIDE]) if charger is None else charger
        self.late = dice.choice(["", *TERMS])
        self.every = dice.choice([1, 5])

    def day(self):
        """Sun, clouds, a fridge, a kettle, a stove, a car: a whole day from midnight."""
        dice, sky, stove, car = self.dice, 1.0, 0, 0
        peak, base = dice.choice([0.0, 3000.0, 6000.0, 12000.0]), dice.uniform(150, 900)
        for minute in range(DAY):
            sky = min(1.0, max(0.15, sky + dice.uniform(-0.15, 0.15)))
            sun = peak * sky * max(0.0, math.sin(math.pi * (minute - 6 * HOUR) / (12 * HOUR)))
            stove = dice.randint(5, 60) if not stove and dice.random() < 0.01 else max(0, stove - 1)
            car = dice.randint(60, 300) if not car and dice.random() < 0.002 else max(0, car - 1)
            yield self.minute(sun, base + 200 * (minute % 40 < 12) + 3000 * bool(stove), 7400.0 * bool(car))

    def hour(self):
        """One hour in which the grid and the battery go both ways, in turns of a quarter of an hour or more."""
        phases = [(12000.0, 600.0), (0.0, 9000.0)]
        self.dice.shuffle(phases)
        turn = self.dice.randint(15, 25)
        for minute in range(HOUR + 6):
            yield self.minute(*phases[minute // turn % 2], 0.0)

    def minute(self, sun, load, car):
        at_ac = sun * (1 - self.loss)
        car = car if self.charger else 0.0
        wanted = load + car - at_ac
        battery = max(-self.battery, min(self.battery, wanted * 0.7))
        gives = battery * (1 - self.loss) if battery > 0 else battery / (1 - self.loss)
        values = {"pv_power": sun, BATTERY: battery if self.battery else None, GRID: wanted - gives, "load_power": load}
        if self.charger == "in the load":
            values["load_power"] = load + car
        if self.charger and not self.charger.endswith("not measured"):
            values["ev_power"] = car
        return {k: v and v * (1 + self.dice.gauss(0, self.noise)) for k, v in values.items()}

    def told(self, minutes, wrong=()):
        """Yield minute and values, as often as the cloud has news; `wrong` are those with the other sign."""
        for number, (before, now) in enumerate(pairwise(minutes), 1):
            if number % self.every == 0:
                values = now | ({self.late: before.get(self.late)} if self.late else {})
                yield number, {k: -v if k in wrong and v else v for k, v in values.items()}


class Watched:
    """The watch, with answers of one source."""

    def __init__(self):
        self.watch = BalanceWatch()
        self.minute = 0
        self.found = None

    def take(self, values, device=PLANT, where="Flow", minute=None):
        self.minute = self.minute + 5 if minute is None else minute
        flows = Flows(
            serial=device.serial, where=where, time=NOON + timedelta(minutes=self.minute), values=values, turned=turned
        )
        if self.watch.take("sems", device, flows):
            self.found = self.watch.doubts("sems", device)
        return self.found

    def signs(self):
        (sheet,) = self.watch.sheets()
        return sheet.signs


def doubted(doubts):
    return set(yaml.safe_load(doubts.remedy)["bridges"]["sems"]) if doubts else set()


@settings(max_examples=25)
@given(SEEDS)
def test_right_signs_are_never_doubted_whatever_the_day_is_like(seed):
    house, watched = House(seed), Watched()
    for minute, values in house.told(house.day()):
        assert not watched.take(values, minute=minute)


@settings(max_examples=40)
@given(SEEDS, st.sampled_from([(GRID,), (BATTERY,), (GRID, BATTERY)]), st.sampled_from(["", "in the load"]))
def test_the_wrong_one_is_found_within_an_hour_in_which_it_goes_both_ways(seed, wrong, charger):
    house, watched = House(seed, battery=5000.0, charger=charger), Watched()
    found = set()
    for minute, values in house.told(house.hour(), wrong):
        found = doubted(watched.take(values, minute=minute))
        assert found <= set(wrong)
    assert found == set(wrong)


@settings(max_examples=40)
@given(SEEDS)
def test_a_wrong_day_never_has_the_doubt_at_the_wrong_point(seed):
    house, watched = House(seed, battery=5000.0, charger=""), Watched()
    for minute, values in house.told(house.day(), {GRID}):
        assert doubted(watched.take(values, minute=minute)) <= {GRID}


EXPORTS = {"pv_power": 8000.0, GRID: -6000.0, "load_power": 2000.0}
IMPORTS = {"pv_power": 0.0, GRID: 2337.0, "load_power": 2337.0}


def flipped(values):
    return values | {GRID: -values[GRID]}


def different(values, number):
    """Return the same flow, some watts larger: what repeats to the watt is no news."""
    return {k: v * (1 + number / 1000) for k, v in values.items()}


def run(watched, *measured, times=1, **options):
    doubts = None
    for number in range(times):
        for values in measured:
            doubts = watched.take(different(values, number), **options)
    return doubts


def test_the_doubt_names_the_point_and_how_to_turn_it_and_ends_when_it_fits():
    watched = Watched()
    doubts = run(watched, flipped(EXPORTS), flipped(IMPORTS), times=6)
    assert "grid_power of Flow" in doubts.text
    assert yaml.safe_load(doubts.remedy) == turned(GRID)
    assert watched.signs() == {GRID: Sign.DOUBTFUL}
    assert run(watched, EXPORTS, times=2), "two measurements are not enough to believe it"
    assert not run(watched, different(EXPORTS, 9), times=2)
    run(watched, EXPORTS, IMPORTS, times=4)
    assert watched.signs() == {GRID: Sign.FITS}


def test_one_direction_alone_tells_nothing():
    watched = Watched()
    assert not run(watched, flipped(EXPORTS), times=100)
    assert watched.signs() == {GRID: Sign.UNSEEN}


def test_a_few_minutes_are_not_enough():
    watched = Watched()
    for minute in range(30):
        values = different(flipped(EXPORTS if minute % 2 else IMPORTS), minute)
        assert not watched.take(values, minute=minute)


def test_what_repeats_to_the_watt_is_one_measurement():
    watched = Watched()
    run(watched, flipped(EXPORTS), times=12)
    for _ in range(50):
        assert not watched.take(flipped(IMPORTS))


@pytest.mark.parametrize("missing", ["load_power", "pv_power", GRID])
def test_without_one_of_them_there_is_no_sum(missing):
    watched = Watched()
    for number in range(20):
        values = different(flipped(EXPORTS if number % 2 else IMPORTS), number) | {missing: None}
        assert not watched.take(values)
    assert not list(watched.watch.sheets())


def test_a_sum_that_fits_neither_way_is_no_doubt():
    watched = Watched()
    hidden = {"load_power": 9000.0}
    assert not run(watched, flipped(EXPORTS) | hidden, flipped(IMPORTS) | hidden, times=12)
    (sheet,) = watched.watch.sheets()
    assert not sheet.balanced
    assert sheet.rest == pytest.approx(sheet.pv + sheet.grid - sheet.load)


METER = Device(serial="M1", kind=DeviceKind.METER, plant="P1")
ONE, TWO = (Device(serial=s, kind=DeviceKind.STORAGE, plant="P1") for s in ("I1", "I2"))


def test_a_meter_is_compared_with_what_its_plant_said_at_that_time():
    watched = Watched()
    for number in range(12):
        values = different(EXPORTS if number % 2 else IMPORTS, number)
        assert not watched.take(values)
        doubts = watched.take({GRID: -values[GRID]}, METER, "Meter", watched.minute)
        assert not watched.watch.doubts("sems", PLANT)
    assert "grid_power of Meter" in doubts.text


def test_what_was_measured_at_another_time_is_not_added_up():
    watched = Watched()
    for number in range(20):
        values = different(EXPORTS if number % 2 else IMPORTS, number)
        watched.take(values)
        assert not watched.take({GRID: -values[GRID]}, METER, "Meter", watched.minute + 2)


def test_inverters_of_a_plant_without_an_answer_of_its_own_are_added_up():
    watched = Watched()
    for number in range(14):
        values = different(flipped(EXPORTS if number % 2 else IMPORTS), number)
        half = values["pv_power"] / 2
        watched.take({"pv_power": half}, TWO, "Inverter")
        doubts = watched.take(values | {"pv_power": half}, ONE, "Inverter", watched.minute)
    assert doubted(doubts) == {GRID}
    assert not watched.watch.doubts("sems", TWO)


def test_panels_that_nothing_counts_are_no_reason_for_a_doubt():
    watched = Watched()
    for number in range(200):
        shown = 4000.0 * abs(math.sin(number / 9))
        load = 500.0 + 5000.0 * (number % 3 == 0)
        assert not watched.take({"pv_power": shown, GRID: load - 2.5 * shown, "load_power": load})


def test_a_meter_of_generation_is_no_reason_for_a_doubt():
    watched = Watched()
    for number in range(40):
        values = different(EXPORTS if number % 2 else IMPORTS, number)
        watched.take(values)
        assert not watched.take({GRID: -values["pv_power"]}, METER, "Meter", watched.minute)


def test_a_source_that_is_right_is_not_doubted_for_one_that_is_wrong():
    watched = Watched()
    for number in range(12):
        values = different(EXPORTS if number % 2 else IMPORTS, number)
        time = NOON + timedelta(minutes=5 * number)
        for source, said in (("right", values), ("wrong", flipped(values))):
            flows = Flows(serial="P1", where="Flow", time=time, values=said, turned=turned)
            watched.watch.take(source, PLANT, flows)
    assert not watched.watch.doubts("right", PLANT)
    assert watched.watch.doubts("wrong", PLANT)


def test_a_device_that_is_gone_takes_its_memory_along():
    watched = Watched()
    run(watched, flipped(EXPORTS), flipped(IMPORTS), times=8)
    watched.watch.forget("sems", PLANT)
    assert not watched.watch.doubts("sems", PLANT)
    assert not list(watched.watch.sheets())
