"""Each interface of the Open API, over HTTP."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import httpx
import pytest

from gateway.sems.normalise import entries, read
from gateway.simulator.answers import Quirks
from tests.simulator.kit import (
    BAKERY,
    CATALOGUE,
    HOUSE,
    HOUSE_SERIAL,
    NOON,
    PARK,
    ROOF_SERIAL,
    HandClock,
    SimulatedCloud,
)

BASE = CATALOGUE.base


def understood(name, data, clock, zone=HOUSE.zone):
    """An answer as the gateway understands it."""
    interface = CATALOGUE.interface(name)
    return [read(interface, entry, zone, clock.now()) for entry in entries(interface, data)]


# Plants and devices


async def test_the_account_has_three_plants(cloud, clock):
    data = await cloud.ask("GetUserPlantList", page=1, page_size=100)
    plants = understood("GetUserPlantList", data, clock)
    assert [(p.attributes["serial"], p.attributes["name"]) for p in plants] == [
        (plant.id, plant.name) for plant in (HOUSE, BAKERY, PARK)
    ]


async def test_plants_come_in_pages(clock):
    async with SimulatedCloud(clock, plants=250) as cloud:
        await cloud.log_in()
        pages = [(await cloud.ask("GetUserPlantList", page=page, page_size=100))["list"] for page in (1, 2, 3, 4)]
    assert [len(page) for page in pages] == [100, 100, 50, 0]
    assert len({plant["plant_id"] for page in pages for plant in page}) == 250


@pytest.mark.parametrize(("page", "size"), [(0, 10), (1, 0), (1, 101), (-1, 10)])
async def test_a_page_that_cannot_be_is_refused(cloud, page, size):
    assert await cloud.call("GetUserPlantList", page=page, page_size=size) == ("100004", None)


async def test_a_plants_detail_balances_and_is_dated_by_the_plants_clock(cloud, clock):
    for plant in (HOUSE, BAKERY, PARK):
        data = await cloud.ask("GetPlantDetail", plant=plant.id)
        assert data["time_zone"] == plant.site.zone
        local = clock.now().astimezone(ZoneInfo(plant.site.zone))
        assert data["last_refresh_time"] == local.strftime("%Y-%m-%d %H:%M:%S")
        [reading] = understood("GetPlantDetail", data, clock, plant.zone)
        values = reading.values
        assert reading.time == clock.now()
        assert values["status"] == "normal"
        sources = values["pv_power"] + (values["battery_power"] or 0) + values["grid_power"]
        assert sources == pytest.approx(values["load_power"], abs=2)
    assert values["battery_soc"] is None
    assert values["capacity"] == pytest.approx(312.5)


async def test_a_plant_lists_its_inverters(cloud, clock):
    data = await cloud.ask("GetInverterList", plant=BAKERY.id)
    store, roof, *accessories = (reading.attributes for reading in understood("GetInverterList", data, clock))
    assert (store["type"], store["rated_power"], store["battery_power_max"]) == ("storage", 20_000, 15_000)
    assert (roof["type"], roof["model"], roof["battery_power_max"]) == ("inverter", "GW20K-DT", None)
    assert roof["serial"] == ROOF_SERIAL
    assert data["list"][0]["capacity"] == 20
    assert [device["type"] for device in accessories] == ["battery", "meter"]
    assert [device["pac"] for device in data["list"][2:]] == [None, None]


async def test_an_inverter_tells_what_it_measures(cloud, clock):
    [reading] = understood("GetInverterBySN", await cloud.inverter(), clock)
    truth = cloud.simulator.world.report(HOUSE_SERIAL).values
    assert reading.time == clock.now()
    assert reading.values["status"] == "normal"
    for point, tolerance in {
        "ac_power": 0.5, "pv_power": 0.5, "battery_power": 0.5, "load_power": 0.5, "battery_soc": 0.5,
        "pv1_voltage": 0.05, "l3_current": 0.05, "l2_frequency": 0.005, "energy_today": 0.005, "energy_total": 0.005,
        "operating_hours": 0.05, "temperature": 0.05,
    }.items():  # fmt: skip
        assert reading.values[point] == pytest.approx(truth[point], abs=tolerance + 1e-6), point
    assert reading.values["pv3_voltage"] is None
    assert (reading.values["running"], reading.values["active_power_limit"]) == (True, 100)
    assert reading.values["battery_mode"] == "auto"


async def test_every_field_of_the_catalogue_is_answered(cloud):
    data = await cloud.inverter()
    assert set(data) >= {row.field for row in CATALOGUE.interface("GetInverterBySN").response}


async def test_fields_are_as_odd_as_the_real_clouds(clock):
    async with SimulatedCloud(clock, plants=30) as cloud:
        await cloud.log_in()
        seen = set()
        for plant in list(cloud.simulator.world)[:12]:
            for device in plant.devices:
                data = await cloud.inverter(device.serial)
                quirks = Quirks.of(device.serial)
                assert type(data["etotal"]) is str if quirks.texts else data["etotal"] > 0
                assert quirks.extended is ("ext" in data)
                if device.model.phases == 1:
                    missing = (6553.5, 655.35) if quirks.sentinels else (None, None)
                    assert (data["vac2"], data["fac3"]) == missing
                    seen.add("one phase")
                seen |= set(enumerate(quirks))
    assert len(seen) == 1 + 2 * len(Quirks._fields)


async def test_success_is_a_number_or_a_text(cloud):
    seen = {type((await cloud.send("GetPlantDetail", {"plant_id": HOUSE.id})).json()["code"])}
    seen.add(type((await cloud.send("GetUserPlantList", {"page_index": 1, "page_size": 1})).json()["code"]))
    assert seen == {int, str}


async def test_the_hour_a_clock_shows_twice_is_told_as_it_is():
    # 2026-10-25 01:30 UTC is 02:30 in Munich for the second time.
    clock = HandClock(datetime(2026, 10, 25, 1, 30, tzinfo=UTC))
    async with SimulatedCloud(clock) as cloud:
        await cloud.log_in()
        assert (await cloud.inverter())["last_refresh_time"] == "2026-10-25 02:30:00"


async def test_a_demo_begins_at_ten_on_a_june_day_whatever_day_it_is():
    clock = HandClock(datetime(2026, 12, 24, 22, 0, tzinfo=UTC))
    start = datetime(2026, 6, 10, 10, 0, tzinfo=UTC)
    async with SimulatedCloud(clock, start=start, speed=60) as cloud:
        await cloud.log_in()
        clock.advance(60)
        data = await cloud.ask("GetPlantDetail", plant=PARK.id)
        assert data["pvPower"] > 10
        assert data["last_refresh_time"] == "2026-12-24 23:01:00"
        assert cloud.simulator.world.now == start + timedelta(hours=1)


# Login


async def test_a_wrong_password_is_refused(cloud):
    assert await cloud.log_in("wrong") == "100005"


async def test_without_a_token_nothing_is_told(cloud):
    cloud.token = ""
    answer = await cloud.send("GetPlantDetail", {"plant_id": HOUSE.id})
    assert (answer.status_code, str(answer.json()["code"]), answer.json()["data"]) == (200, "100002", None)


async def test_a_token_expires(cloud, clock):
    clock.advance(7199)
    assert (await cloud.call("GetPlantDetail", plant=HOUSE.id))[0] == "0"
    clock.advance(1)
    assert await cloud.call("GetPlantDetail", plant=HOUSE.id) == ("100002", None)
    assert await cloud.log_in() == "0"
    assert (await cloud.call("GetPlantDetail", plant=HOUSE.id))[0] == "0"


async def test_tokens_live_side_by_side(cloud):
    first = cloud.token
    await cloud.log_in()
    assert cloud.token != first
    cloud.token = first
    assert (await cloud.call("GetPlantDetail", plant=HOUSE.id))[0] == "0"


# Limits


async def test_calls_beyond_the_hours_are_refused_until_the_hour_has_slid_on(clock):
    async with SimulatedCloud(clock, calls_per_hour=3) as cloud:
        await cloud.log_in()
        clock.advance(100)
        codes = [(await cloud.call("GetPlantDetail", plant=HOUSE.id))[0] for _ in range(4)]
        assert codes == ["0", "0", "GY0429", "GY0429"]
        assert await cloud.log_in() == "GY0429"
        clock.advance(3500)
        assert (await cloud.call("GetPlantDetail", plant=HOUSE.id))[0] == "0"
        assert (await cloud.call("GetPlantDetail", plant=HOUSE.id))[0] == "GY0429"


async def test_the_limit_may_come_as_http_429(clock):
    async with SimulatedCloud(clock, calls_per_hour=1, limit_by_http_status=True) as cloud:
        await cloud.log_in()
        clock.advance(600)
        answer = await cloud.send("GetPlantDetail", {"plant_id": HOUSE.id})
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "3000")
        assert answer.json()["code"] == "GY0429"


async def test_a_limit_of_none_is_no_limit(clock):
    async with SimulatedCloud(clock, calls_per_hour=0) as cloud:
        await cloud.log_in()
        codes = {(await cloud.call("GetInverterList", plant=HOUSE.id))[0] for _ in range(20)}
        assert codes == {"0"}


# Bad input


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("GetPlantDetail", {"plant": "none"}),
        ("GetInverterList", {"plant": "none"}),
        ("GetInverterBySN", {"serial": "9010KETU218W9999"}),
        ("SetInverterSwitch", {"serial": "9010KETU218W9999", "running": True}),
        ("GetControlResult", {"receipt": "none"}),
    ],
)
async def test_what_is_not_there_is_answered_with_a_code_and_no_data(cloud, name, args):
    assert await cloud.call(name, **args) == ("100013", None)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "100007"),
        (b"{", "100007"),
        (b"\xff\xfe", "100007"),
        (b'"\xff"', "100007"),
        (b"[1]", "100007"),
        (b"[" * 60_000, "100007"),
        (b"{}", "100004"),
        (b'{"plant_id": 5}', "100004"),
        (b'{"plant_id": null}', "100004"),
        (b'{"plant_id": "' + b"x" * 300 + b'"}', "100004"),
        (b'{"plant_id": "' + b"x" * 70_000 + b'"}', "100008"),
    ],
)
async def test_a_bad_body_is_answered_with_a_code(cloud, body, code):
    answer = await cloud.http.post(f"{BASE}GetPlantDetail", content=body, headers={"token": cloud.token})
    assert answer.status_code == 200
    assert (str(answer.json()["code"]), answer.json()["data"]) == (code, None)
    assert (await cloud.call("GetPlantDetail", plant=HOUSE.id))[0] == "0"


async def test_a_body_without_end_is_not_read_to_the_end(cloud):
    sent = 0

    async def flood():
        nonlocal sent
        for _ in range(64):
            sent += 1
            yield b"x" * 1024 * 1024

    try:
        answer = await cloud.http.post(f"{BASE}GetPlantDetail", content=flood(), headers={"token": cloud.token})
        assert str(answer.json()["code"]) == "100008"
    except httpx.TransportError:
        pass
    assert cloud.evidence.calls[-1].code == "100008"
    assert sent < 64


async def test_a_page_index_takes_whole_numbers_only(cloud):
    for wrong in ("1", 1.5, True, None, [1]):
        answer = await cloud.send("GetUserPlantList", {"page_index": wrong, "page_size": 10})
        assert str(answer.json()["code"]) == "100004"
    answer = await cloud.send("GetUserPlantList", {"page_index": 10**40, "page_size": 10})
    assert answer.json()["data"] == {"list": []}


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_a_wrong_method_is_answered_with_a_code(cloud, method):
    answer = await cloud.send("GetPlantDetail", {"plant_id": HOUSE.id}, method=method)
    assert (answer.status_code, str(answer.json()["code"])) == (200, "100009")


async def test_there_is_no_other_interface(cloud):
    answer = await cloud.http.post(f"{BASE}GetEverything")
    assert (answer.status_code, answer.json()["code"]) == (404, 100010)


async def test_a_device_of_another_type_is_refused(cloud):
    assert await cloud.call("GetMeterBySN", serial=HOUSE_SERIAL) == ("100006", None)
    assert await cloud.call("GetSEC1000", serial=ROOF_SERIAL) == ("100006", None)
    assert await cloud.call("GetInverterBySN", serial=HOUSE.id) == ("100013", None)


async def test_times_that_are_none_are_refused(cloud):
    for wrong in ("2026-13-01", "today", 5, None, "2026-06-01 10:00:00", "9999-12-31", "0001-01-01"):
        answer = await cloud.send("GetInverterPower", {"invertersn": HOUSE_SERIAL, "date": wrong})
        assert str(answer.json()["code"]) == "100004", wrong


async def test_each_shape_writes_times_its_own_way(cloud):
    """Hours alone where the shape is that of a curve, else the whole time."""
    args = {"day": datetime(2026, 6, 20, tzinfo=UTC)}
    forms = {}
    for device in (*HOUSE.devices, *BAKERY.devices, *PARK.devices):
        data = await cloud.ask("GetInverterPower", serial=device.serial, **args)
        entry = data[0] if isinstance(data, list) else data["pv"][0]
        forms[type(data)] = entry.get("x") or entry.get("date")
        data = await cloud.ask("GetInverterGeneration", serial=device.serial, **args)
        forms[next(iter(data))] = next(iter(data.values()))[0].get("x" if "pv" in data else "time")
    assert forms == {dict: "00:00", list: "2026-06-20 00:00:00", "pv": "2026-06-01", "records": "2026-06-01 00:00:00"}


# Evidence


async def test_every_call_is_remembered_without_passwords(cloud):
    await cloud.call("GetPlantDetail", plant=HOUSE.id)
    await cloud.call("GetInverterBySN", serial="none")
    login, detail, inverter = cloud.evidence.calls
    assert (login.interface, login.params, login.account, login.code) == ("GetToken", {"account": "demo"}, "demo", "0")
    assert (detail.interface, detail.method, detail.params) == ("GetPlantDetail", "POST", {"plant_id": HOUSE.id})
    assert (inverter.params, inverter.code, inverter.time) == ({"invertersn": "none"}, "100013", NOON)


async def test_evidence_is_bounded(clock):
    async with SimulatedCloud(clock, calls_remembered=5) as cloud:
        await cloud.log_in()
        for n in range(9):
            await cloud.call("GetInverterBySN", serial=str(n))
        assert [call.params["invertersn"] for call in cloud.evidence.calls] == ["4", "5", "6", "7", "8"]
        big = {"plant_id": HOUSE.id, "more": "x" * 5000}
        await cloud.send("GetPlantDetail", big)
        assert cloud.evidence.calls[-1].params == {}
