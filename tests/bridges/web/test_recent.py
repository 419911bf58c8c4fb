"""The last hours of devices: noted at each step while data are good, with gaps where they were not, and bounded."""

import asyncio
import sys
from datetime import timedelta
from types import SimpleNamespace

import pytest

from gateway.bridges.web import recent
from gateway.bridges.web.recent import STEPS, Recent
from gateway.core.model import Device, DeviceKind, DeviceState, Quality, iso
from tests.bridges.web.conftest import SN, served
from tests.kit.bench import until
from tests.kit.clock import NOON

STEP = 120.0


class World:
    """A clock and states."""

    def __init__(self):
        self.time = NOON
        self.devices = {}
        self.clock = SimpleNamespace(now=lambda: self.time)

    def states(self):
        return list(self.devices.values())

    def has(self, serial="A", quality=Quality.GOOD, kind=DeviceKind.INVERTER, **values):
        device = Device(serial=serial, kind=kind)
        state = DeviceState(device=device, quality=quality, time=self.time, source="x", values=values)
        self.devices[serial] = state
        return state

    async def steps(self, notes, count=1):
        for _ in range(count):
            self.time += timedelta(seconds=STEP)
            await notes.note()


@pytest.fixture
def world():
    return World()


@pytest.fixture
def notes(world):
    return Recent(world, STEP * STEPS)


def curve(notes, serial="A"):
    return notes.shape([serial])["curves"][serial]["values"]


async def test_good_values_are_noted_and_what_is_not_good_is_a_gap(world, notes):
    assert notes.shape(["A"]) == {"step": STEP, "end": None, "curves": {}}
    for quality, value in ((Quality.GOOD, 1.0), (Quality.STALE, 1.0), (Quality.OFFLINE, 1.0), (Quality.GOOD, 2.25)):
        world.has(quality=quality, ac_power=value)
        await world.steps(notes)
    world.has(pv_power=9.0)
    await world.steps(notes)
    assert len(curve(notes)) == STEPS
    assert curve(notes)[-6:] == [None, 1.0, None, None, 2.2, None]
    assert notes.shape(["A", "B"])["end"] == iso(world.time)
    assert notes.shape(["A", "B"])["curves"].keys() == {"A"}


async def test_what_is_older_than_it_reaches_is_gone(world, notes):
    for value in range(STEPS + 30):
        world.has(ac_power=float(value))
        await world.steps(notes)
    assert curve(notes) == [float(value) for value in range(30, STEPS + 30)]


async def test_steps_that_were_slept_through_are_gaps(world, notes):
    world.has(ac_power=1.0)
    await world.steps(notes, STEPS + 5)
    world.time += timedelta(seconds=9 * STEP)
    await world.steps(notes)
    assert curve(notes)[-12:] == [1.0, 1.0, *[None] * 9, 1.0]
    world.time += timedelta(days=3)
    await world.steps(notes)
    assert curve(notes) == [*[None] * (STEPS - 1), 1.0]


async def test_a_clock_that_is_set_back_begins_anew(world, notes):
    world.has(ac_power=1.0)
    await world.steps(notes, 5)
    world.time -= timedelta(hours=1)
    await world.steps(notes)
    assert curve(notes) == [*[None] * (STEPS - 1), 1.0]


async def test_a_step_is_noted_once(world, notes):
    world.has(ac_power=1.0)
    await world.steps(notes)
    world.has(ac_power=2.0)
    await notes.note()
    assert curve(notes)[-2:] == [None, 1.0]


@pytest.mark.parametrize(
    ("kind", "values", "point"),
    [
        ("plant", {"pv_power": 1.0, "grid_power": 2.0}, "pv_power"),
        ("battery", {"battery_power": -1.0, "ac_power": 2.0}, "battery_power"),
        ("meter", {"grid_power": 1.0}, "grid_power"),
        ("storage", {"pv_power": 1.0, "ac_power": 2.0}, "ac_power"),
        ("inverter", {"ac_power": None, "pv_power": 2.0}, "pv_power"),
        ("ev_charger", {"ev_power": 1.0}, "ev_power"),
        ("weather_station", {"irradiance": 1.0}, None),
    ],
)
async def test_the_main_power_is_that_of_its_kind(world, notes, kind, values, point):
    world.has(kind=DeviceKind(kind), **values)
    await world.steps(notes)
    found = notes.shape(["A"])["curves"]
    assert (found["A"]["point"] if found else None) == point


async def test_memory_is_bounded_by_device_and_in_all(world, notes, monkeypatch):
    monkeypatch.setattr(recent, "MAX_DEVICES", 50)
    for number in range(80):
        world.has(f"SN{number}", ac_power=1.0)
    await world.steps(notes, STEPS * 2)
    assert len(notes._curves) == 50
    one = notes._curves["SN0"]
    assert sys.getsizeof(one.notes) + sys.getsizeof(one) < 700
    # Those that are gone make room.
    for number in range(40):
        del world.devices[f"SN{number}"]
    await world.steps(notes)
    assert notes._curves.keys() == {f"SN{number}" for number in range(40, 80)}


async def test_others_get_their_turn_and_see_no_half_of_a_step(world, notes):
    for number in range(1000):
        world.has(f"SN{number}", ac_power=1.0)
    await world.steps(notes, STEPS + 1)
    for number in range(1000):
        world.has(f"SN{number}", ac_power=2.0)
    world.time += timedelta(seconds=STEP)
    task = asyncio.create_task(notes.note())
    turns = 0
    while not task.done():
        await asyncio.sleep(0)
        turns += 1
        if not task.done():
            assert set(curve(notes, "SN0")) == set(curve(notes, "SN999")) == {1.0}
    assert turns >= 5
    assert curve(notes, "SN0")[-2:] == curve(notes, "SN999")[-2:] == [1.0, 2.0]


async def test_the_bridge_notes_by_itself_and_answers(tmp_path):
    async with served(tmp_path, recent=120) as web:
        web.bench.publish(ac_power=4210.0)
        await until(lambda: web.runner.bridge._recent._curves)
        answer = (await web.get("/api/v1/recent", params={"serial": [SN, "nowhere"]})).json()
        assert answer["step"] == 1.0
        assert answer["curves"][SN]["point"] == "ac_power"
        assert answer["curves"][SN]["values"][-1] == 4210.0
        for wrong in ([], ["x"] * 101):
            refused = await web.get("/api/v1/recent", params={"serial": wrong})
            assert (refused.status_code, refused.json()["reason"]) == (400, "bad_request")
