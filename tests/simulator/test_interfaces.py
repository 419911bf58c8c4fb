"""Every interface of both APIs over HTTP, read back as the gateway reads it and held against what the world says."""

from datetime import UTC, datetime, timedelta

import pytest

from gateway.core.points import POINTS
from gateway.sems.catalogue import Use
from gateway.sems.normalise import entries, read
from gateway.simulator.answers import Quirks
from tests.simulator.kit import (
    BAKERY,
    CATALOGUE,
    DEFAULT_FLEET,
    DEVELOPER,
    NOON,
    PARK,
    HandClock,
    SimulatedCloud,
    serial_of,
)

TOLERANCE = {
    "W": 0.5, "var": 0.5, "VA": 0.5, "%": 0.5, "V": 0.05, "A": 0.05, "°C": 0.05, "h": 0.05, "Hz": 0.005, "kWh": 0.005,
    "kW": 0.005,
}  # fmt: skip
"""Half of the last digit that SEMS gives, by unit."""
VALUES = {
    "running": False, "active_power_limit": 40.0, "reactive_power": -30.0, "power_factor": 0.9, "export_limit": 1500.0,
    "work_mode": "backup", "battery_mode": "charge", "battery_power_target": 900.0, "battery_target_soc": 80.0,
    "battery_reserve_soc": 30.0, "charging": False,
}  # fmt: skip
CATALOGUES = {"open_api": CATALOGUE, "developer": DEVELOPER}


def rows(*uses, setpoints=False):
    """Interface and type of device, of both catalogues, as parameters of a test."""
    return [
        pytest.param(api, interface, type_, setpoint, id=f"{interface.name}-{type_}-{setpoint}")
        for api, catalogue in CATALOGUES.items()
        for use in uses
        for interface in catalogue.using(use)
        for type_ in interface.of
        for setpoint in ((interface.setpoints or ("",)) if setpoints else ("",))
    ]


@pytest.fixture
async def cloud(clock):
    async with SimulatedCloud(clock) as cloud:
        await cloud.log_in()
        await cloud.developer.log_in()
        yield cloud


def client(cloud, api):
    return cloud if api == "open_api" else cloud.developer


def arguments(interface, type_, serial, **more):
    """What a call about one device takes."""
    if type_ == "plant":
        about = {"plant": serial, "plants": [serial]}
    else:
        about = {"serial": serial, "serials": [serial], "type": type_}
    return about | {"page": 1, "page_size": 100} | more


def readings(interface, data, zone, clock, day=None):
    return [read(interface, entry, zone, clock.now(), day) for entry in entries(interface, data)]


def agrees(reading, truth, points):
    """Whether a reading says what the world says, to the last digit."""
    for point in points:
        said, real = reading.values.get(point), truth.get(point)
        if isinstance(real, float) and said is not None:
            tolerance = TOLERANCE.get(POINTS[point].unit, 5e-7) + 1e-6
            assert said == pytest.approx(real, abs=tolerance), point
        else:
            assert said == (None if real == "" else real), point  # no words are no value


def test_there_are_31_interfaces_besides_the_login():
    assert len(CATALOGUE.interfaces) == 1 + 31
    assert {interface.use for catalogue in CATALOGUES.values() for interface in catalogue.interfaces} == set(Use)


@pytest.mark.parametrize(("api", "interface", "type_", "_"), rows(Use.LIVE, Use.DETAIL))
async def test_what_is_measured_is_told(cloud, clock, api, interface, type_, _):
    serial = serial_of(type_)
    world = cloud.simulator.world
    data = await client(cloud, api).ask(interface.name, **arguments(interface, type_, serial))
    home = world.fleet.get(serial) or world.home(serial)
    told = readings(interface, data, home.zone, clock)
    reading = next(r for r in told if r.text("serial") in {"", serial})
    report = world.report(serial)
    agrees(reading, report.values, interface.points)
    assert any(value is not None for value in reading.values.values())
    if any(row.attribute == "time" for row in interface.response):
        assert reading.time == report.time
    if any(row.attribute == "time_zone" for row in interface.response):
        assert reading.text("time_zone") == home.site.zone


@pytest.mark.parametrize("interface", [i for c in CATALOGUES.values() for i in c.using(Use.LIVE) if i.covers])
async def test_what_a_data_logger_reads_comes_along(cloud, clock, interface):
    logger = serial_of("sec1000")
    told = readings(interface, await cloud.ask(interface.name, serial=logger), PARK.zone, clock)
    below = {a.serial for a in PARK.accessories if a.at == logger and a.type in interface.covers}
    assert below
    assert {reading.text("serial"): reading.text("type") for reading in told} == {
        logger: "sec1000", **dict.fromkeys(below, "meter")
    }  # fmt: skip
    for reading in told:
        agrees(reading, cloud.simulator.world.report(reading.text("serial")).values, interface.points)


@pytest.mark.parametrize("plant", DEFAULT_FLEET, ids=lambda plant: plant.name)
@pytest.mark.parametrize(
    ("api", "interface"), [(api, i) for api, c in CATALOGUES.items() for i in c.using(Use.DEVICES)], ids=str
)
async def test_a_plants_devices_are_listed(cloud, clock, api, interface, plant):
    world = cloud.simulator.world
    everything = [device.serial for device in (*plant.devices, *plant.accessories)]
    args = {"plant": plant.id, "plants": [plant.id], "serials": everything}
    told = readings(interface, await client(cloud, api).ask(interface.name, **args), plant.zone, clock)
    wanted = [serial for serial in everything if world.type_of(serial) in interface.of]
    assert [reading.text("serial") for reading in told] == wanted
    known = {row.attribute for row in interface.response}
    for reading in told:
        serial = reading.text("serial")
        device = world.device(serial) or world.accessory(serial)
        truth = {
            "name": device.name,
            "type": str(world.type_of(serial)),
            "model": getattr(device.model, "name", device.model),
            "plant": plant.id,
        }
        for attribute in known & truth.keys():
            assert reading.attributes[attribute] == truth[attribute]
        if "rated_power" in known:
            assert reading.number("rated_power") == getattr(
                device.model, "rated_power", getattr(device, "rated_power", None)
            )
        if world.type_of(serial) in interface.covers:
            agrees(reading, world.report(serial).values, interface.points)
            assert reading.time == clock.now()
        else:
            assert not any(value is not None for value in reading.values.values())


@pytest.mark.parametrize(("api", "interface", "type_", "_"), rows(Use.ALARMS))
async def test_alarms_are_told_and_told_to_be_over(cloud, clock, api, interface, type_, _):
    serial = serial_of(type_)
    world = cloud.simulator.world
    of = world.fleet[serial].devices[0].serial if type_ == "plant" else serial
    zone = (world.fleet.get(serial) or world.home(serial)).zone

    async def told():
        data = await client(cloud, api).ask(interface.name, **arguments(interface, type_, serial))
        return {
            (r.text("serial"), r.text("alarm"), r.text("code"), r.text("text"), r.text("severity"),
             r.times["raised"], r.times.get("cleared"))
            for r in readings(interface, data, zone, clock)
        }  # fmt: skip

    def real():
        return {
            (a.serial, a.id, a.code, a.text, a.severity.value, a.raised.replace(microsecond=0),
             a.cleared and a.cleared.replace(microsecond=0))
            for a in world.alarms(serial)
        }  # fmt: skip

    before = real()
    await cloud.break_(alarms=[{"serial": of, "code": "77", "text": "Fan slow", "severity": "warning"}])
    clock.advance(60)
    assert {row[2:5] for row in real() - before} == {("77", "Fan slow", "warning")}
    assert {row[:5] for row in await told()} == {row[:5] for row in real()}
    raised = next(row for row in await told() if row[2] == "77")
    assert (raised[5], raised[6]) == (NOON, None)
    await cloud.break_(alarms=[{"serial": of, "code": "77", "cleared": True}])
    assert next(row for row in await told() if row[2] == "77")[6] == NOON + timedelta(seconds=60)


def span_of(interface, zone):
    """A call's arguments, and the time it is about."""
    day = datetime(2026, 6, 20, tzinfo=UTC)
    if interface.span == "month":
        first, last = day.replace(day=1), datetime(2026, 7, 1, tzinfo=UTC)
    elif interface.span == "year":
        first, last = day.replace(month=1, day=1), datetime(2027, 1, 1, tzinfo=UTC)
    else:
        first, last = day, day + timedelta(days=1)
    args = {"day": day, "start": first, "end": last - timedelta(days=1)}
    return args, first.replace(tzinfo=zone), last.replace(tzinfo=zone)


@pytest.mark.parametrize(("api", "interface", "type_", "_"), rows(Use.SERIES))
async def test_series_are_told_in_each_shape(clock, api, interface, type_, _):
    async with SimulatedCloud(clock, plants=30) as cloud:
        await cloud.log_in()
        await cloud.developer.log_in()
        world = cloud.simulator.world
        serials = list(world.fleet) if type_ == "plant" else [
            d.serial for plant in world for d in plant.devices if d.model.kind == type_
        ]  # fmt: skip
        for newer in (False, True)[: len(interface.lists)]:
            serial = next(serial for serial in serials if Quirks.of(serial).newer is newer)
            zone = (world.fleet.get(serial) or world.home(serial)).zone
            args, start, end = span_of(interface, zone)
            data = await client(cloud, api).ask(interface.name, **arguments(interface, type_, serial, **args))
            shape = interface.lists[newer]
            assert isinstance(data, list) if not shape else list(data) == [shape]
            told = readings(interface, data, zone, clock, args["day"])
            real = world.series(serial, start, end, interface.step)
            assert [reading.time for reading in told] == [sample.time for sample in real]
            assert len(real) >= 20
            for reading, sample in zip(told, real, strict=True):
                agrees(reading, sample.values, interface.points & sample.values.keys())
            assert any(value for reading in told for value in reading.values.values())


CONTROLS = [*rows(Use.CONTROL, setpoints=True)]


@pytest.mark.parametrize(("api", "interface", "type_", "setpoint"), CONTROLS)
async def test_setpoints_are_set_and_read_back(cloud, clock, api, interface, type_, setpoint):
    door, serial, world = client(cloud, api), serial_of(type_), cloud.simulator.world
    now = int(clock.now().timestamp())
    args = VALUES | {"begins": now, "ends": now + 3600}
    receipt = await door.control(interface.name, serial, setpoint, **args)
    assert await door.result(receipt) == ("pending", "sent to the device")
    clock.advance(3)
    assert await door.result(receipt) == ("succeeded", "done")
    # A call sets all setpoints of its group, or the one it is for.
    grouped = {row.arg for row in interface.request if not row.only} & set(interface.setpoints)
    wanted = grouped or {setpoint}
    in_force = world.setpoints(serial)
    assert {name: getattr(in_force, name) for name in wanted} == {name: VALUES[name] for name in wanted}
    assert [(c.serial, c.api, set(c.setpoints)) for c in cloud.evidence.controls] == [(serial, api, wanted)]
    back = await parameters(cloud, clock, api, serial, type_)
    assert {name: back[name] for name in wanted} == {name: VALUES[name] for name in wanted}


async def parameters(cloud, clock, api, serial, type_):
    """Setpoints as they are read back."""
    door = client(cloud, api)
    [interface] = CATALOGUES[api].using(Use.PARAMETERS, type_)
    args = {"serial": serial}
    for task in CATALOGUES[api].using(Use.PARAMETERS_TASK, type_):
        args["receipt"] = await door.control(task.name, serial)
        [waiting] = readings(interface, await door.ask(interface.name, **args), BAKERY.zone, clock)
        assert (waiting.text("state"), waiting.values) == ("pending", {})
        clock.advance(3)
    [reading] = readings(interface, await door.ask(interface.name, **args), BAKERY.zone, clock)
    assert reading.text("state") in {"", "succeeded"}
    return reading.values


@pytest.mark.parametrize(("api", "interface", "type_", "_"), rows(Use.DISPATCH))
async def test_an_energy_management_system_is_handed_over(cloud, clock, api, interface, type_, _):
    serial = serial_of(type_)
    receipt = await client(cloud, api).control(interface.name, serial)
    assert cloud.evidence.tasks.dispatched == set()
    clock.advance(3)
    assert (await client(cloud, api).result(receipt))[0] == "succeeded"
    assert serial in cloud.evidence.tasks.dispatched
    assert cloud.evidence.controls == []


@pytest.mark.parametrize("api", CATALOGUES)
async def test_plants_come_in_pages(api):
    clock = HandClock()
    [interface] = CATALOGUES[api].using(Use.PLANTS)
    async with SimulatedCloud(clock, plants=130) as cloud:
        await cloud.log_in()
        await cloud.developer.log_in()
        seen = []
        for page, length in ((1, 100), (2, 30), (3, 0)):
            data = await client(cloud, api).ask(interface.name, page=page, page_size=100)
            plants = readings(interface, data, PARK.zone, clock)
            assert len(plants) == length
            seen += [(plant.text("serial"), plant.text("name")) for plant in plants]
        assert seen == [(plant.id, plant.name) for plant in cloud.simulator.world]
