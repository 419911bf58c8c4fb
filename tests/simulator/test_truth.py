"""What a checker asks the simulator behind a gateway's back: exact power, data's age, clouds over regions."""

from datetime import timedelta
from statistics import correlation, fmean

import pytest

from gateway.simulator import Simulator, SimulatorSettings
from gateway.simulator.fleet import DEFAULT_FLEET, make_fleet
from gateway.simulator.sky import Climate
from gateway.simulator.world import World
from tests.simulator.kit import BAKERY, HOUSE, NOON, PARK, HandClock, SimulatedCloud

MADE_UP = make_fleet(40, devices_per_plant=3)


def ac(world, plant):
    _, devices = world.true_reports(plant.id)
    return {device.serial: devices[device.serial].values["ac_power"] for device in plant.devices}


@pytest.mark.parametrize("plant", [*DEFAULT_FLEET, *MADE_UP[3:7]], ids=lambda plant: plant.name)
def test_power_is_at_every_time_what_a_look_at_that_time_showed(plant):
    """With limits, export limits, orders for batteries until they are full or empty, trips, and another midnight."""
    clock = HandClock(NOON - timedelta(hours=2))
    world = World([plant], clock, seed=3)
    world.start()
    told = [
        {"active_power_limit": 35.0}, {"export_limit": 1500.0}, {"active_power_limit": 100.0}, {"running": False},
        {"running": True}, {"battery_mode": "discharge", "battery_power_target": 2500.0}, {"work_mode": "backup"},
        {"battery_mode": "charge", "battery_power_target": 900.0}, {"battery_mode": "auto"},
    ]  # fmt: skip
    seen = []
    for n in range(400):
        clock.advance(217.3 if n % 50 else 3000)
        if n % 13 == 0:
            device = plant.devices[n % len(plant.devices)]
            setpoints = {
                name: value
                for name, value in told[n // 13 % len(told)].items()
                if device.model.battery or not name.startswith(("battery", "work"))
            }
            world.command(device.serial, setpoints, world.physics.now() - 31.7)
        if n % 90 == 40:
            world.trip(plant.devices[0].serial, tripped=n % 180 == 40)
        seen.append((world.physics.now(), ac(world, plant)))
    times = [time for time, _ in seen]
    for device in plant.devices:
        given = [power.given for power in world.power(plant.id, [device.serial], times)]
        assert given == pytest.approx([powers[device.serial] for _, powers in seen], abs=1e-6)
    together = world.power(plant.id, [device.serial for device in plant.devices], times)
    assert [power.given for power in together] == pytest.approx([sum(p.values()) for _, p in seen], abs=1e-6)


def test_a_command_shows_from_the_instant_it_takes_effect():
    clock = HandClock()
    world = World(DEFAULT_FLEET, clock, seed=7)
    world.start()
    clock.advance(600)
    effect = world.physics.now() - 100.25
    serial = PARK.devices[0].serial
    world.command(serial, {"active_power_limit": 10.0}, effect)
    before, at, after = (power.given for power in world.power(PARK.id, [serial], [effect - 0.01, effect, effect + 90]))
    assert before > 20_000
    assert at == after == pytest.approx(5000)


def test_what_could_be_given_is_known_though_it_is_limited():
    clocks = HandClock(), HandClock()
    limited, free = (World(DEFAULT_FLEET, clock, seed=7) for clock in clocks)
    serial = PARK.devices[0].serial
    limited.command(serial, {"active_power_limit": 10.0}, NOON.timestamp())
    for clock in clocks:
        clock.advance(60)
    [one], [other] = (world.power(PARK.id, [serial], [world.physics.now()]) for world in (limited, free))
    assert one.given == pytest.approx(5000)
    assert one.available == other.available == pytest.approx(other.given)


async def test_the_power_of_a_fleet_is_asked_for_over_http(clock):
    async with SimulatedCloud(clock, plants=20, devices_per_plant=2) as cloud:
        world = cloud.simulator.world
        begun = world.physics.now()
        clock.advance(300)
        now = world.physics.now()
        asked = {"from": begun, "to": now, "step": 60}
        series = (await cloud.http.get("/sim/fleet/power", params={"devices": "all", **asked})).json()
        assert series["devices"] == len(world.inverters) == 8 + 17 * 2
        assert series["times"] == [begun + 60 * n for n in range(6)]
        assert series["power"][-1] == pytest.approx(sum(sum(ac(world, plant).values()) for plant in world))
        assert len(series["available"]) == 6
        devices = [device.serial for device in PARK.devices[:2]]
        posted = (await cloud.http.post("/sim/fleet/power", json={"devices": devices, **asked})).json()
        iso = {"from": clock.now().isoformat(), "to": clock.now().isoformat()}
        last = (await cloud.http.get("/sim/fleet/power", params={"devices": ",".join(devices), **iso})).json()
        assert (posted["devices"], last["times"]) == (2, [now])
        assert posted["power"][-1] == last["power"][0] == pytest.approx(sum(ac(world, PARK)[s] for s in devices))
        pattern = (await cloud.http.get("/sim/fleet/power", params={"devices": "9050KMTU*"})).json()
        assert 5 <= pattern["devices"] < series["devices"]
        inside = await cloud.simulator.fleet.power(devices, [now])
        assert inside.power == last["power"]
        shown = (await cloud.http.get("/sim/fleet/devices", params={"devices": devices[0]})).json()["devices"]
        assert [(one["serial"], one["power"]) for one in shown] == [(devices[0], ac(world, PARK)[devices[0]])]


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({"devices": "NOBODY"}, 404),
        ({"step": 0}, 400),
        ({"to": 1}, 400),
        ({"from": "soon"}, 400),
        ({"from": 0, "step": 1}, 400),
    ],
)
async def test_a_question_that_makes_no_sense_is_refused(cloud, params, status):
    assert (await cloud.http.get("/sim/fleet/power", params=params)).status_code == status


async def test_nothing_is_said_of_what_is_still_to_come(cloud, clock):
    later = clock.now().timestamp() + 60
    answer = await cloud.http.get("/sim/fleet/power", params={"to": later})
    assert (answer.status_code, answer.json()["error"]) == (400, "that is still to come")


def test_data_are_as_old_as_the_upload_and_uploads_are_spread():
    clock = HandClock()
    world = World(MADE_UP, clock, seed=1, upload_interval=300.0)
    world.start()
    watched = World(MADE_UP, watching := HandClock(), seed=1)
    watched.start()
    clock.advance(1000)
    ages = set()
    for plant in MADE_UP[3:]:
        serial = plant.devices[0].serial
        report = world.report(serial)
        age = (clock.now() - report.time).total_seconds()
        assert 0 <= age < 300
        ages.add(round(age))
    assert len(ages) > 30
    # What the newest upload says is what was true when it was made, whatever has been commanded since.
    serial = MADE_UP[5].devices[0].serial
    before = world.report(serial)
    world.command(serial, {"running": False}, world.physics.now())
    clock.advance(1)
    assert world.report(serial) == before
    assert ac(world, MADE_UP[5])[serial] == 0
    assert world.report(serial) == before
    watching.advance((before.time - watching.now()).total_seconds())
    assert watched.report(serial).values["ac_power"] == pytest.approx(before.values["ac_power"], abs=0.01)
    clock.advance(300)
    after = world.report(serial)
    assert after.values["ac_power"] == 0
    assert (after.time - before.time).total_seconds() == pytest.approx(300, abs=0.001)
    # Nor does a look that is the first since its upload show a command that came after it.
    other, clock_then = MADE_UP[9].devices[0].serial, clock.now()
    clock.advance(299)
    asked = world.physics.now()
    world.command(other, {"running": False}, asked)
    clock.advance(0.5)
    told = world.report(other)
    assert clock_then < told.time
    assert told.time.timestamp() < asked
    assert told.values["ac_power"] > 0


def test_the_same_clouds_pass_over_all_plants_of_a_region():
    climates = {plant.id: Climate(plant, 1) for plant in make_fleet(120)[3:]}
    times = [NOON.timestamp() + 60 * n for n in range(-240, 240)]
    clear = {plant.id: [climates[plant.id].clearness(time) for time in times] for plant in make_fleet(120)[3:]}
    within, between = [], []
    plants = make_fleet(120)[3:]
    for n, one in enumerate(plants):
        for other in plants[n + 1 :]:
            if one.region != other.region or abs(one.place - other.place) < 3:
                kind = within if one.region == other.region else between
                try:
                    kind.append(correlation(clear[one.id], clear[other.id]))
                except ValueError:  # a cloudless or an overcast day
                    continue
    assert fmean(within) > 0.6
    assert fmean(between) < 0.4


def test_what_a_plant_of_a_region_has_had_is_near_to_what_its_days_come_to():
    clock = HandClock(NOON.replace(hour=17))
    world = World(MADE_UP, clock, seed=1)
    world.start()
    shares = []
    for plant in MADE_UP[3:]:
        serial = plant.devices[0].serial
        values = world.report(serial).values
        assert 0 < values["energy_today"] < values["energy_month"] <= values["energy_year"] <= values["energy_total"]
        yields = plant.devices[0].peak_power / 1000
        shares.append(values["energy_today"] / yields)
    assert 2 < fmean(shares) < 9


async def test_ten_thousand_inverters_start_without_a_look_at_any_and_a_call_costs_its_own_plants(monkeypatch):
    """Counts the looks at the sky, which all else grows with."""
    looks = []
    real = Climate.clearness
    monkeypatch.setattr(Climate, "clearness", lambda self, time: looks.append(1) or real(self, time))
    clock = HandClock()
    shares = {"offline": 0.1, "refuse": 0.05, "contradict": 0.03, "late": {"share": 0.05}}
    settings = SimulatorSettings(port=0, plants=10_000, devices_per_plant=1, faults={"shares": shares})
    simulator = Simulator(settings, clock)
    world = simulator.world
    await simulator.start()
    try:
        assert len(world.inverters) == 10_005
        assert (len(looks), world._plants) == (0, {})
        hundred = [s for s in world.inverters[8:] if s not in simulator.cloud.faulty][:100]
        for serial in hundred:
            world.command(serial, {"active_power_limit": 50.0}, world.physics.now())
        assert looks == []
        for serial in hundred:
            world.report(serial)
        first = len(looks)
        # Regions have one history for all their plants: 21 days of looks each, most of them in daylight.
        assert first <= 8 * 21 * 13 + 100 * 5
        looks.clear()
        clock.advance(60)
        for serial in hundred:
            world.report(serial)
        assert len(looks) <= 100 * 5
    finally:
        await simulator.stop()


@pytest.mark.parametrize("kind", ["inverter", "storage"])
def test_a_day_at_speed_is_exact_too(kind):
    clock = HandClock()
    world = World(MADE_UP, clock, seed=1, speed=288, upload_interval=1.0, step=300.0)
    world.start()
    plant, serial = next((p, d.serial) for p in MADE_UP[3:] for d in p.devices if d.model.kind == kind)
    order = {"battery_mode": "discharge", "battery_power_target": 900.0} if kind == "storage" else {}
    seen = []
    for n in range(300):
        clock.advance(1)
        if n % 40 == 5:
            limit = {"active_power_limit": 10.0 + n % 90}
            world.command(serial, limit | (order if n % 80 == 5 else {}), world.physics.now() - 20)
        report = world.report(serial)
        assert 0 <= (clock.now() - report.time).total_seconds() < 1.0001
        seen.append((world.physics.now(), ac(world, plant)[serial]))
    times = [time for time, _ in seen]
    assert times[-1] - times[0] == pytest.approx(299 * 288)
    given = [power.given for power in world.power(plant.id, [serial], times)]
    assert given == pytest.approx([power for _, power in seen], abs=1e-6)


def test_only_what_is_old_is_forgotten(monkeypatch):
    monkeypatch.setattr("gateway.simulator.trace.KEPT", 20)
    clock = HandClock()
    world = World(DEFAULT_FLEET, clock, seed=7)
    world.start()
    for plant in (HOUSE, BAKERY):
        begun, serial, seen = world.physics.now(), plant.devices[0].serial, []
        for minute in range(60):
            clock.advance(60)
            if minute % 3 == 0:
                world.command(serial, {"active_power_limit": 3.0 + minute / 10}, world.physics.now())
            seen.append((world.physics.now(), ac(world, plant)[serial]))
            oldest = world._plants[plant.id]._trace._times[0]
            known = [(time, power) for time, power in seen if time >= oldest]
            given = [power.given for power in world.power(plant.id, [serial], [time for time, _ in known])]
            assert given == pytest.approx([power for _, power in known], abs=1e-6)
            assert len(known) >= min(minute, 5)
        with pytest.raises(LookupError):
            world.power(plant.id, [serial], [begun])
