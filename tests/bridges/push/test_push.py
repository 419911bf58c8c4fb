"""What becomes of what GoodWe pushes, over real HTTP."""

import asyncio
import gzip
import json
from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import REGISTRY

from gateway.core.model import Device, DeviceKind
from tests.bridges.push.conftest import PLANT, SN, Archive, pushed_to
from tests.kit.bench import until


async def test_what_was_pushed_is_a_state_and_a_piece_of_history(it):
    answer = await it.post(it.inverter(1234, soc=None, vpv1=6553.5))
    assert (answer.status_code, answer.content) == (204, b"")
    assert it.values() == {"status": "normal", "ac_power": 1234.0, "battery_soc": None, "pv1_voltage": None}
    assert it.bench.router.state(SN).source == "push"
    assert it.archive.values("ac_power") == [1234.0]
    assert it.counts == {"taken": 1}


@pytest.mark.parametrize(
    "shape",
    [
        lambda push: push,
        lambda push: {"interface": push["interface"], "sn": push["sn"], **push["data"]},
        lambda push: push | {"code": 0, "msg": "success"},
        lambda push: push | {"code": "0"},
        lambda push: {"interface": "getinverterbysn", "invertersn": push["sn"], "data": push["data"]},
        lambda push: [push],
    ],
)
async def test_it_may_come_in_any_of_these_shapes(it, shape):
    assert (await it.post(shape(it.inverter(7)))).status_code == 204
    assert it.values()["ac_power"] == 7.0


async def test_it_may_come_packed(it):
    body = gzip.compress(json.dumps(it.inverter(8)).encode())
    answer = await it.post(content=body, headers={"Content-Encoding": "gzip", "Content-Type": "application/json"})
    assert answer.status_code == 204
    assert it.values()["ac_power"] == 8.0


async def test_several_interfaces_of_a_device_add_up(it):
    await it.post(it.inverter(5))
    detail = {"last_refresh_time": it.local(60), "emonth": 31.5}
    await it.post({"interface": "GetInverterDetail", "sn": SN, "data": detail})
    assert it.values() == {"status": "normal", "ac_power": 5.0, "energy_month": 31.5}
    own = it.archive.kept[1]
    assert own.values["energy_month"] == 31.5
    apart = it.archive.kept[0].time - own.time
    assert timedelta(seconds=58) <= apart <= timedelta(seconds=60), "a second may begin between the two"


async def test_the_same_again_is_acknowledged_and_nothing_more(it):
    push = it.inverter(1)
    for _ in range(3):
        assert (await it.post(push)).status_code == 204
    assert it.counts == {"taken": 1, "duplicate": 2}
    assert it.archive.values("ac_power") == [1.0]


async def test_without_a_time_the_same_is_news_again_after_a_while(tmp_path):
    async with pushed_to(tmp_path, interval=1) as it:
        push = {"interface": "GetInverterBySN", "sn": SN, "pac": 5}
        await it.post(push)
        await it.post(push)
        assert it.counts == {"taken": 1, "duplicate": 1}
        first = it.bench.router.state(SN).time
        await until(lambda: it.bench.clock.now() - first > timedelta(seconds=0.6))
        await it.post(push)
        assert it.counts["taken"] == 2
        assert it.bench.router.state(SN).time > first


async def test_an_older_one_is_history_alone(it):
    await it.post(it.inverter(2))
    await it.post(it.inverter(1, age=600))
    assert it.values()["ac_power"] == 2.0
    assert it.archive.values("ac_power") == [2.0, 1.0]
    assert it.counts == {"taken": 1, "late": 1}


async def test_a_time_far_ahead_does_not_keep_out_what_comes_after(it):
    await it.post(it.inverter(1, age=-86_400))
    await asyncio.sleep(0.01)
    push = it.inverter(2)
    del push["data"]["last_refresh_time"]
    await it.post(push)
    assert it.values()["ac_power"] == 2.0


async def test_times_are_local_to_the_plant_as_far_as_it_is_known(tmp_path):
    async with pushed_to(tmp_path, time_zone="Asia/Tokyo") as it:
        clock = it.bench.clock.now()
        measured = clock - timedelta(seconds=30)
        berlin, tokyo = (
            f"{measured.astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M:%S}" for zone in ("Europe/Berlin", "Asia/Tokyo")
        )
        plant = {"plant_name": "Roof", "time_zone": "Europe/Berlin", "last_refresh_time": berlin, "capacity": 5}
        assert (await it.post({"interface": "GetPlantDetail", "plant_id": PLANT, "data": plant})).status_code == 204
        state = it.bench.router.state(PLANT)
        assert abs(state.time - measured) < timedelta(seconds=1)
        assert (state.device.kind, state.device.name, state.device.time_zone) == (
            DeviceKind.PLANT,
            "Roof",
            "Europe/Berlin",
        )
        assert state.device.rated_power == 5000.0
        beside = it.inverter(3) | {"plant_id": PLANT}
        beside["data"]["last_refresh_time"] = berlin
        await it.post(beside)
        assert it.bench.router.state(SN).time == state.time
        assert it.bench.router.state(SN).device.plant == PLANT
        elsewhere = it.inverter(4, sn="other")
        elsewhere["data"]["last_refresh_time"] = tokyo
        await it.post(elsewhere)
        assert abs(it.bench.router.state("other").time - measured) < timedelta(seconds=1)


@pytest.mark.parametrize(
    ("push", "kind"),
    [
        ({"interface": "GetMeterBySN", "sn": SN, "pmeter": 5}, DeviceKind.METER),
        ({"interface": "GetEvChargerBySN", "sn": SN, "activePower": 5}, DeviceKind.EV_CHARGER),
        ({"interface": "GetWeatherStation", "sn": SN, "irradiance": 5}, DeviceKind.WEATHER_STATION),
        ({"interface": "GetHomeKit", "sn": SN, "pload": 5}, DeviceKind.DATA_LOGGER),
        ({"interface": "GetBatteryBySN", "batterysn": SN, "soc": 5}, DeviceKind.BATTERY),
        ({"interface": "GetInverterBySN", "sn": SN, "pac": 5}, DeviceKind.INVERTER),
        ({"interface": "GetInverterBySN", "sn": SN, "pac": 5, "soc": 50}, DeviceKind.STORAGE),
        ({"interface": "GetPlantPowerFlow", "plant_id": SN, "pvPower": 5}, DeviceKind.PLANT),
        ({"interface": "GetControlParameters", "sn": SN, "ActivePowerLimit": "50"}, DeviceKind.INVERTER),
        ({"interface": "GetUserPlantList", "data": {"list": [{"plant_id": SN, "plant_name": "P"}]}}, DeviceKind.PLANT),
    ],
)
async def test_a_device_that_nobody_knows_is_announced_as_what_it_is(it, push, kind):
    assert (await it.post(push)).status_code == 204
    assert it.bench.router.state(SN).device.kind is kind


async def test_what_others_know_better_stays(it):
    it.bench.announce(Device(serial=SN, kind=DeviceKind.STORAGE, name="House"))
    await it.post(it.inverter(5))
    device = it.bench.router.state(SN).device
    assert (device.kind, device.name) == (DeviceKind.STORAGE, "House")


async def test_the_first_to_tell_does_not_keep_others_from_knowing_better(it):
    await it.post(it.inverter(5))
    it.bench.announce(Device(serial=SN, kind=DeviceKind.STORAGE, name="House"))
    assert it.bench.router.state(SN).device.kind is DeviceKind.STORAGE
    it.bench.router.withdraw("scripted", SN)
    assert it.bench.router.state(SN).device.kind is DeviceKind.INVERTER


async def test_a_list_of_devices_tells_what_they_are_and_brings_live_values_of_inverters(it):
    entries = [
        {"sn": "i1", "name": "Roof", "model_type": "GW10K-ET", "capacity": 10, "device_type": "storage", "pac": 100},
        {"sn": "m1", "name": "Meter", "device_type": "meter", "pac": None},
        {"name": "nobody"},
    ]
    answer = await it.post({"interface": "GetInverterList", "plant_id": PLANT, "data": {"list": entries}})
    assert (answer.status_code, answer.json()["taken"]) == (200, 1)
    assert "names no `sn`" in answer.json()["dropped"][0]["reason"]
    state = it.bench.router.state("i1")
    assert (state.device.kind, state.device.model, state.device.rated_power) == (
        DeviceKind.STORAGE,
        "GW10K-ET",
        10_000.0,
    )
    assert (state.device.plant, state.values) == (PLANT, {"ac_power": 100.0})
    assert it.bench.router.state("m1").device.kind is DeviceKind.METER
    assert it.values("m1") == {}


async def test_a_logger_brings_its_meters_along(it):
    devices = [
        {"sn": "S1", "device_type": "sec1000", "pac": 9, "last_refresh_time": it.local()},
        {"sn": "M1", "device_type": "meter", "pmeter": -4, "last_refresh_time": it.local()},
    ]
    assert (await it.post({"interface": "GetSEC1000", "sn": "S1", "data": {"devices": devices}})).status_code == 204
    assert it.values("S1")["ac_power"] == 9.0
    assert it.values("M1")["grid_power"] == 4.0, "export is positive there"
    assert it.bench.router.state("M1").device.kind is DeviceKind.METER


async def test_only_devices_that_are_wanted_are_taken(tmp_path):
    async with pushed_to(tmp_path, devices=["90*"]) as it:
        answer = await it.post([it.inverter(1), it.inverter(2, sn="other")])
        assert answer.status_code == 200
        assert answer.json() == {
            "taken": 1,
            "bad": 1,
            "dropped": [{"index": 1, "reason": "other is not among the devices that are taken"}],
        }
        assert it.bench.router.state("other") is None


async def test_a_series_is_history_and_leaves_the_live_state_alone(it):
    await it.post(it.inverter(5))
    points = [{"x": it.local(600 - 300 * n), "y": n} for n in range(2)] + [{"x": it.local(-7200), "y": 9}]
    series = {"interface": "GetInverterPower", "sn": SN, "data": {"pv": points[::-1]}}
    assert (await it.post(series)).status_code == 204
    assert (await it.post(series)).status_code == 204
    assert it.archive.values("ac_power") == [5.0, 0.0, 1.0]
    assert it.values()["ac_power"] == 5.0
    assert it.counts == {"taken": 2, "duplicate": 1}


async def test_hours_alone_need_the_day(it):
    day = it.bench.clock.now() - timedelta(days=1)
    series = {"interface": "GetInverterPower", "sn": SN, "data": [{"date": "00:00", "pac": 5}]}
    assert (await it.post(series)).status_code == 422
    assert (await it.post(series | {"date": f"{day:%Y-%m-%d}"})).status_code == 204
    (kept,) = it.archive.kept
    assert f"{kept.time:%Y-%m-%d %H:%M}" == f"{day:%Y-%m-%d} 00:00"


def alarms(it, *ids, of=SN, interface="GetInverterAlarms", **subject):
    rows = [
        {
            "sn": of,
            "alarm_id": id_,
            "error_code": f"F{id_}",
            "error_message": "Grid lost",
            "level": 3,
            "start_time": it.local(60),
        }
        for id_ in ids
    ]
    return {"interface": interface, **(subject or {"sn": SN}), "data": {"list": rows}}


def active(it, serial=SN):
    return [alarm.id for alarm in it.bench.router.alarm_book.of(serial)]


async def test_alarms_are_raised_and_cleared(it):
    assert (await it.post(alarms(it, "1", "2"))).status_code == 204
    assert active(it) == ["1", "2"]
    assert it.values()["alarms_active"] == 2
    await it.post(alarms(it, "2"))
    await it.post(alarms(it))
    assert active(it) == []
    assert it.counts == {"taken": 3}


async def test_a_plants_alarms_are_those_of_all_its_devices(it):
    it.bench.announce(Device(serial="quiet", kind=DeviceKind.INVERTER, plant=PLANT))
    it.bench.announce(Device(serial="elsewhere", kind=DeviceKind.INVERTER, plant="plant-2"))
    for serial in ("quiet", "elsewhere"):
        await it.post(alarms(it, "1", of=serial, sn=serial))
    push = alarms(it, "5", interface="GetPlantAlarms", plant_id=PLANT)
    assert (await it.post(push)).status_code == 204
    assert (active(it), active(it, "quiet"), active(it, "elsewhere")) == (["5"], [], ["1"])
    assert it.bench.router.state(SN).device.kind is DeviceKind.INVERTER
    assert (await it.post(push)).status_code == 204
    assert it.counts["duplicate"] == 1


async def test_an_alarm_without_id_or_time_is_raised_once(it):
    row = {"error_code": "F9", "error_message": "Fan", "level": 17}
    for n in range(2):
        await it.post({"interface": "GetInverterAlarms", "sn": SN, "n": n, "data": {"list": [row, {}]}})
    assert active(it) == ["F9"]


async def test_no_list_of_alarms_clears_none(it):
    await it.post(alarms(it, "1"))
    answer = await it.post({"interface": "GetInverterAlarms", "sn": SN, "data": {"list": None}})
    assert answer.status_code == 422
    assert active(it) == ["1"]


async def test_alarms_of_devices_that_are_not_wanted_are_dropped(tmp_path):
    async with pushed_to(tmp_path, devices=["90*"]) as it:
        assert (await it.post(alarms(it, "1", sn="other", of="other"))).status_code == 422
        push = alarms(it, "1", interface="GetPlantAlarms", plant_id=PLANT)
        push["data"]["list"].append(push["data"]["list"][0] | {"sn": "other"})
        assert (await it.post(push)).status_code == 200
        assert active(it) == ["1"]


BAD = [
    (5, "no JSON object"),
    ([], "the list is empty"),
    ({"sn": SN, "pac": 5}, "`interface` is missing"),
    ({"interface": "GetInverterBySM", "sn": SN}, "no interface 'GetInverterBySM'"),
    ({"interface": "SetWorkMode", "sn": SN}, "SetWorkMode brings no data"),
    ({"interface": "GetToken", "data": {"token": "x"}}, "GetToken brings no data"),
    (
        {"interface": "GetInverterBySN", "sn": SN, "code": "100002", "data": {"pac": 5}},
        "says that GetInverterBySN has failed",
    ),
    ({"interface": "GetInverterBySN", "sn": SN, "data": None}, "GetInverterBySN has no data"),
    ({"interface": "GetInverterBySN", "sn": SN, "data": {"colour": 5}}, "has no value of a known field"),
    ({"interface": "GetInverterBySN", "sn": "x" * 65, "data": {"pac": 5}}, "`sn` must have 1 to 64"),
    ({"interface": "GetInverterBySN", "sn": "a\nb", "data": {"pac": 5}}, "`sn` must have 1 to 64"),
    ({"interface": "GetInverterBySN", "data": {"pac": 5}}, "names no `sn`"),
    ({"interface": "GetInverterList", "plant_id": PLANT, "data": {"list": []}}, "GetInverterList holds nothing"),
    ({"interface": "GetInverterList", "plant_id": PLANT, "data": {"list": [{}, {}]}}, "names no `sn`"),
    ({"interface": "GetInverterGeneration", "sn": SN, "data": {"pv": []}}, "are sums of days"),
    (
        {"interface": "GetInverterPower", "sn": SN, "data": {"pv": [{"x": "soon", "y": 1}]}},
        "no measurement with a time",
    ),
]


@pytest.mark.parametrize(("body", "reason"), BAD)
async def test_what_is_understood_as_nothing_is_refused_with_the_reason(it, body, reason):
    answer = await it.post(body)
    assert answer.status_code == 422
    assert reason in answer.text
    assert it.counts == {"bad": 1}
    assert it.bench.router.states() == []


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b"[" * 100_000, b'{"a": NaN}', b"<html>"])
async def test_what_is_no_json_is_refused(it, raw):
    assert (await it.post(content=raw, headers={"Content-Type": "application/json"})).status_code == 422


async def test_one_bad_object_keeps_none_of_the_others_back(it):
    answer = await it.post([it.inverter(1), {"interface": "x"}, it.inverter(2, sn="other"), 7])
    assert answer.status_code == 200
    assert {k: v for k, v in answer.json().items() if k != "dropped"} == {"taken": 2, "bad": 2}
    assert [d["index"] for d in answer.json()["dropped"]] == [1, 3]
    assert (it.values()["ac_power"], it.values("other")["ac_power"]) == (1.0, 2.0)


async def test_bad_ones_are_logged_once_a_kind(it, capsys):
    for name in ("x", "y", "z"):
        await it.post({"interface": name})
    await it.post({"interface": "SetWorkMode"})
    assert capsys.readouterr().out.count("a push can't be used") == 2


# nothing is acknowledged before it is safe


async def test_what_is_not_stored_in_time_is_not_acknowledged_and_may_come_again(tmp_path):
    async with pushed_to(tmp_path, timeout=0.05) as it:
        it.archive.open.clear()
        push = it.inverter(1)
        answer = await it.post(push)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
        assert (await it.post(push)).status_code == 503
        assert it.counts == {"not_stored": 2}
        it.archive.open.set()
        assert (await it.post(push)).status_code == 204
        assert it.counts == {"not_stored": 2, "duplicate": 1}
        assert it.archive.values("ac_power") == [1.0]


async def test_what_was_dropped_is_taken_anew_when_it_comes_again(tmp_path):
    class Short(Archive):
        backlog = 2

    async with pushed_to(tmp_path, archive=Short, timeout=0.2) as it:
        it.archive.open.clear()
        pushes = [it.inverter(n, age=100 - n) for n in range(6)]
        statuses = [(await it.post(push)).status_code for push in pushes]
        assert statuses == [503] * 6
        it.archive.open.set()
        answers = [(await it.post(push)).status_code for push in pushes]
        while 503 in answers:
            answers = [(await it.post(push)).status_code for push in pushes]
        assert set(it.archive.values("ac_power")) == set(map(float, range(6)))
        assert it.values()["ac_power"] == 5.0


async def test_an_archive_that_fails_gets_it_again(it):
    it.archive.trouble = [OSError("full")]
    assert (await it.post(it.inverter(1))).status_code == 204
    assert it.archive.values("ac_power") == [1.0]


async def test_without_history_the_router_is_enough(tmp_path):
    async with pushed_to(tmp_path, archive=None) as it:
        assert (await it.post(it.inverter(1))).status_code == 204
        assert it.values()["ac_power"] == 1.0


async def test_the_storage_of_others_is_not_ours_to_wait_for(it):
    push = it.inverter(1)
    await it.post(push)
    it.archive.open.clear()
    it.bench.announce(Device(serial="o", kind=DeviceKind.METER))
    it.bench.publish("o", ac_power=1.0)
    assert (await it.post(push)).status_code == 204


# others


async def test_other_bridges_know_until_when_pushes_are_fresh(tmp_path):
    async with pushed_to(tmp_path, interval=100) as it:
        assert it.runner.heard_elsewhere(SN) is None
        await it.post(it.inverter(1, age=10))
        measured = it.bench.router.state(SN).time
        other = it.bench.router.heard(SN, but="sems")
        assert other == measured + timedelta(seconds=300)
        assert it.runner.heard_elsewhere(SN) is None
        await it.post(it.inverter(1, sn="old", age=301))
        assert it.bench.router.heard("old", but="sems") is None


async def test_metrics_count_by_outcome(it):
    await it.post(it.inverter(1))
    await it.post(it.inverter(1), path="/push/wrong")
    (family,) = (
        f for f in text_string_to_metric_families(generate_latest(REGISTRY).decode()) if f.name == "sems_gateway_pushes"
    )
    counts = {s.labels["outcome"]: s.value for s in family.samples if s.labels["bridge"] == "push"}
    assert counts == {
        "taken": 1, "duplicate": 0, "late": 0, "bad": 0, "unknown": 0, "unauthorised": 1,
        "too_large": 0, "not_stored": 0,
    }  # fmt: skip


async def test_the_developer_platforms_bodies_are_understood_too(tmp_path):
    async with pushed_to(tmp_path, platform="developer") as it:
        now = int(it.bench.clock.now().timestamp() * 1000)
        entry = {"sn": SN, "timestamp": now, "parameters": {"deviceStatus": "1", "activePower": "950"}}
        push = {"interface": "DeviceTelemetry", "data": {"deviceData": [entry]}, "code": "00000"}
        assert (await it.post(push)).status_code == 204
        assert it.values() == {"status": "normal", "ac_power": 950.0}


async def test_overrides_count(tmp_path):
    overrides = {"interfaces": {"GetInverterBySN": {"fields": {"pac": {"field": "power_now"}}}}}
    async with pushed_to(tmp_path, overrides=overrides) as it:
        await it.post({"interface": "GetInverterBySN", "sn": SN, "power_now": 77})
        assert it.values()["ac_power"] == 77.0


async def test_a_device_that_others_have_withdrawn_is_announced_anew(it):
    await it.post(it.inverter(1))
    it.bench.router.withdraw("push", SN)
    await it.post(it.inverter(2))
    assert it.values()["ac_power"] == 2.0
