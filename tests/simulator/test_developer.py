"""The developer platform's own ways: token, request ids, batches, tasks, battery windows."""

import os
from datetime import UTC, datetime

import pytest

from gateway.simulator.answers import Quirks
from gateway.simulator.controls import Obedience
from tests.simulator.kit import (
    BAKERY,
    DEVELOPER,
    HOUSE,
    HOUSE_SERIAL,
    NOON,
    PARK,
    ROOF_SERIAL,
    HandClock,
    SimulatedCloud,
    serial_of,
)

START = int(NOON.timestamp())
PLANTS = int(os.environ.get("SEMS_GATEWAY_SOAK_PLANTS", "80"))
"""Of four devices each, or nearly; `make soak` has 503: two thousand devices."""
BATTERY = {"battery_mode": "discharge", "battery_power_target": 1000, "battery_target_soc": 20}


@pytest.fixture
async def cloud(clock):
    async with SimulatedCloud(clock) as cloud:
        await cloud.log_in()
        await cloud.developer.log_in()
        yield cloud


async def states(cloud, *receipts):
    return [(await cloud.developer.result(receipt))[0] for receipt in receipts]


# Entering


async def test_a_token_is_granted_for_client_credentials(cloud):
    answer = await cloud.developer.log_in()
    assert answer.status_code == 200
    assert answer.json() == {"access_token": cloud.developer.token, "expires_in": 3600}
    assert cloud.evidence.calls[-1].params == {"grant_type": "client_credentials"}


@pytest.mark.parametrize(("client_id", "secret"), [("demo", "wrong"), ("nobody", "demo"), ("", "")])
async def test_wrong_credentials_are_refused(cloud, client_id, secret):
    answer = await cloud.developer.log_in(client_id, secret)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


@pytest.mark.parametrize("header", ["", "Basic", "Basic ???", "Basic /w==", "Bearer ZGVtbzpkZW1v"])
async def test_odd_authorizations_are_refused(cloud, header):
    path = DEVELOPER.interface("Token").path
    headers = {"Authorization": header} if header else {}
    answer = await cloud.http.post(path, data={"grant_type": "client_credentials"}, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


async def test_another_grant_is_a_bad_request(cloud):
    answer = await cloud.developer.log_in(fields={"grant_type": "password"})
    assert (answer.status_code, answer.json()["error"]) == (400, "P0214")


async def test_an_expired_token_is_answered_with_http_401(cloud, clock):
    clock.advance(3599)
    await cloud.developer.ask("StationTelemetry", plants=[HOUSE.id])
    clock.advance(1)
    answer = await cloud.developer.send("StationTelemetry", {"plantIds": [HOUSE.id]})
    assert (answer.status_code, answer.json()["code"], answer.json()["data"]) == (401, "C0602", None)
    assert (await cloud.call("GetPlantDetail", plant=HOUSE.id))[0] == "0"


async def test_a_token_is_no_good_without_its_scheme_nor_for_the_other_api(cloud):
    for header in (cloud.developer.token, f"Bearer {cloud.token}", ""):
        answer = await cloud.developer.send("StationTelemetry", {"plantIds": [HOUSE.id]}, Authorization=header)
        assert answer.status_code == 401
    cloud.token = cloud.developer.token
    assert (await cloud.call("GetPlantDetail", plant=HOUSE.id))[0] == "100002"


async def test_each_call_bears_an_id_of_its_own(cloud):
    async def code(request_id):
        fields = {"plantIds": [HOUSE.id]}
        answer = await cloud.developer.send("StationTelemetry", fields, **{"Request-Id": request_id})
        return answer.json()["code"]

    assert [await code(request_id) for request_id in ("a", "b", "a", "", "x" * 129)] == [
        "00000", "00000", "GY0400", "GY0400", "GY0400"
    ]  # fmt: skip


async def test_only_so_many_request_ids_are_remembered(clock):
    async with SimulatedCloud(clock, calls_remembered=2) as cloud:
        await cloud.developer.log_in()
        ids = ("a", "a", "b", "c", "a")
        answers = [await cloud.developer.send("StationTelemetry", {"plantIds": []}, **{"Request-Id": i}) for i in ids]
        assert [answer.json()["code"] == "GY0400" for answer in answers] == [False, True, False, False, False]


async def test_both_accounts_have_calls_of_their_own(clock):
    async with SimulatedCloud(clock, developer_calls_per_hour=2) as cloud:
        await cloud.log_in()
        await cloud.developer.log_in()
        codes = [(await cloud.developer.call("StationTelemetry", plants=[HOUSE.id]))[0] for _ in range(2)]
        assert codes == ["00000", "GY0429"]
        for _ in range(3):
            await cloud.ask("GetPlantDetail", plant=HOUSE.id)
        limited = await cloud.developer.log_in()
        assert limited.json()["error"] == "GY0429"
        clock.advance(3600)
        assert (await cloud.developer.log_in()).status_code == 200


# Asking for many


async def test_unknown_ones_are_left_out(cloud):
    told = await cloud.developer.ask("DeviceTelemetry", serials=["none", ROOF_SERIAL, HOUSE_SERIAL], type="inverter")
    assert [device["sn"] for device in told["deviceData"]] == [ROOF_SERIAL]
    assert await cloud.developer.ask("StationTelemetry", plants=["none"]) == {"plantData": []}
    assert await cloud.developer.ask("StationDevices", plants=["none"]) == []


@pytest.mark.parametrize("sns", [[], ["x"] * 101, [1], "x", None, [["x"]], ["y" * 300]])
async def test_a_list_takes_up_to_a_hundred_texts(cloud, sns):
    answer = await cloud.developer.send("DeviceTelemetry", {"sns": sns, "deviceType": 0})
    assert answer.json()["code"] == "P0214"


async def test_a_hundred_devices_fit_into_one_call(clock):
    async with SimulatedCloud(clock, plants=60) as cloud:
        await cloud.developer.log_in()
        serials = [d.serial for plant in cloud.simulator.world for d in plant.devices if d.model.kind == "inverter"]
        told = await cloud.developer.ask("DeviceTelemetry", serials=serials[:100], type="inverter")
        assert [device["sn"] for device in told["deviceData"]] == serials[:100]


async def test_plants_have_their_devices_each_in_a_list_of_its_own(cloud):
    data = await cloud.developer.ask("StationDevices", plants=[BAKERY.id, HOUSE.id])
    assert [(plant["plantId"], len(plant["deviceData"])) for plant in data] == [(BAKERY.id, 4), (HOUSE.id, 5)]
    assert "plantId" not in data[0]["deviceData"][0]


async def test_values_are_numbers_or_texts_and_only_those_a_device_has(clock):
    async with SimulatedCloud(clock, plants=30) as cloud:
        await cloud.developer.log_in()
        kinds = set()
        for plant in list(cloud.simulator.world)[:12]:
            for device in plant.devices:
                args = {"serials": [device.serial], "type": device.model.kind.value}
                [told] = (await cloud.developer.ask("DeviceTelemetry", **args))["deviceData"]
                values = told["parameters"]
                assert {type(values[name]) for name in ("pvPower", "dailyGeneration", "deviceStatus")} <= (
                    {str} if Quirks.of(device.serial).texts else {int, float}
                )
                assert "windSpeed" not in values
                assert told["refreshTime"] == START * 1000
                kinds.add(Quirks.of(device.serial).texts)
        assert kinds == {True, False}


async def test_interfaces_at_one_path_are_told_apart(cloud):
    charger = serial_of("ev_charger")
    await cloud.developer.ask("EvChargerTelemetry", serials=[charger])
    await cloud.developer.ask("DeviceTelemetry", serials=[ROOF_SERIAL], type="inverter")
    names = [call.interface for call in cloud.evidence.calls][-2:]
    assert names == ["EvChargerTelemetry", "DeviceTelemetry"]
    answer = await cloud.developer.send("DeviceTelemetry", {"sns": [charger], "deviceType": 9})
    assert answer.json()["code"] == "P0214"
    answer = await cloud.developer.send("ControlTask.BatteryCD", {"functionName": "Explode", "items": [{"sn": "x"}]})
    assert (answer.json()["code"], "Explode" in answer.json()["msg"]) == ("P0214", True)
    answer = await cloud.developer.send("ControlTask.BatteryCD", {})
    assert answer.json()["code"] == "P0214"


async def test_a_span_of_statistics_is_a_month_at_most(cloud):
    args = {"serial": HOUSE_SERIAL, "start": datetime(2026, 5, 1, tzinfo=UTC)}
    for end, code in ((31, "00000"), (1, "00000")):
        assert (await cloud.developer.call("DeviceStatistics", end=datetime(2026, 5, end, tzinfo=UTC), **args))[
            0
        ] == code
    for wrong in (datetime(2026, 7, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)):
        assert (await cloud.developer.call("DeviceStatistics", end=wrong, **args))[0] == "P0214"


# Control


async def results(cloud, receipt):
    data = await cloud.developer.ask("ControlResult", receipt=receipt)
    return {each["sn"]: (each["status"], each["message"]) for each in data["results"]}


async def test_one_task_is_for_many_devices_and_each_has_a_result(cloud, clock):
    house, roof = serial_of("storage"), ROOF_SERIAL
    cloud.simulator.cloud.tasks.obedience[roof] = Obedience.REFUSES
    item = {"ActivePowerLimit": 40}
    items = [{"sn": serial, "data": item} for serial in (house, roof, "nobody", serial_of("meter"))]
    items.append({"sn": HOUSE_SERIAL + "x", "data": {}})
    answer = await cloud.developer.send(
        "ControlTask.ActivePowerLimit", {"functionName": "ActivePowerLimit", "items": items}
    )
    receipt = answer.json()["data"]["taskId"]
    told = await results(cloud, receipt)
    assert {serial: told[serial][0] for serial in (house, roof, "nobody")} == {house: 0, roof: 0, "nobody": 2}
    assert "no such device" in told["nobody"][1]
    assert "not meter" in told[serial_of("meter")][1]
    assert "is missing" in told[HOUSE_SERIAL + "x"][1]
    clock.advance(3)
    told = await results(cloud, receipt)
    assert (told[house][0], told[roof][0]) == (1, 2)
    world = cloud.simulator.world
    assert (world.setpoints(house).active_power_limit, world.setpoints(roof).active_power_limit) == (40, 100)


async def test_a_task_has_so_many_items_and_one_that_is_right(cloud):
    limit = {"functionName": "ActivePowerLimit"}
    item = {"sn": serial_of("storage"), "data": {"ActivePowerLimit": 40}}
    for items in ([item] * 101, [{"sn": "nobody", "data": {"ActivePowerLimit": 1}}] * 2, [item, {"data": {}}]):
        answer = await cloud.developer.send("ControlTask.ActivePowerLimit", limit | {"items": items})
        assert answer.json()["code"] in ("P0214", "GY0404")
    fields = {"functionName": "StartCharge", "items": [{"sn": serial_of("ev_charger")}]}
    for items in ([], [{}], [5], {}, None):
        answer = await cloud.developer.send("ControlTask.Charge", fields | {"items": items})
        assert answer.json()["code"] == "P0214", items


async def test_a_charger_starts_and_stops(cloud, clock):
    charger = serial_of("ev_charger")
    for order in (False, True):
        await cloud.developer.control("ControlTask.Charge", charger, charging=order)
        clock.advance(3)
        # The cloud is asked, so it looks.
        [told] = (await cloud.developer.ask("EvChargerTelemetry", serials=[charger]))["deviceData"]
        assert cloud.simulator.world.setpoints(charger).charging is order
        if not order:
            assert float(told["parameters"]["activePower"]) == 0


async def test_a_data_loggers_limit_holds_for_its_plant(cloud, clock):
    await cloud.control("SetActivePowerLimit", serial_of("sec1000"), active_power_limit=10.0)
    clock.advance(3)
    told = (await cloud.ask("GetInverterList", plant=PARK.id))["list"]
    assert all(0 < device["pac"] <= 5000 for device in told if device["pac"] is not None)
    assert len([device for device in told if device["pac"] is not None]) == 5


async def test_a_receipt_is_good_at_either_api(cloud, clock):
    receipt = await cloud.control("SetActivePowerLimit", active_power_limit=50.0)
    clock.advance(3)
    assert await cloud.developer.result(receipt) == ("succeeded", "done")
    receipt = await cloud.developer.control("ControlTask.ActivePowerLimit", HOUSE_SERIAL, active_power_limit=60.0)
    clock.advance(3)
    assert await cloud.result(receipt) == ("succeeded", "done")
    assert [control.api for control in cloud.evidence.controls] == ["open_api", "developer"]


async def test_only_a_read_task_has_parameters(cloud, clock):
    receipt = await cloud.developer.control("ControlTask.ActivePowerLimit", HOUSE_SERIAL, active_power_limit=60.0)
    for wrong in (receipt, "none"):
        assert (await cloud.developer.call("ParameterReadResult", receipt=wrong))[0] == "GY0404"


async def test_an_offline_device_reads_nothing_back(cloud, clock):
    await cloud.break_(devices={HOUSE_SERIAL: {"offline": True}})
    receipt = await cloud.developer.control("ParameterReadTask", HOUSE_SERIAL)
    clock.advance(3)
    [told] = (await cloud.developer.ask("ParameterReadResult", receipt=receipt))["results"]
    assert (told["status"], told["message"], told.get("parameters")) == (2, "the device is offline", None)


async def test_a_battery_order_may_need_the_dispatch_first(clock):
    async with SimulatedCloud(clock, require_dispatch=True) as cloud:
        await cloud.log_in()
        await cloud.developer.log_in()
        order = BATTERY | {"begins": START, "ends": START + 3600}
        early = await cloud.developer.control("ControlTask.BatteryCD", HOUSE_SERIAL, **order)
        limit = await cloud.developer.control("ControlTask.ActivePowerLimit", HOUSE_SERIAL, active_power_limit=50.0)
        classic = await cloud.control("SetBatteryChargeDischarge", **BATTERY)
        clock.advance(3)
        assert await states(cloud, early, limit, classic) == ["failed", "succeeded", "succeeded"]
        assert "dispatch" in (await cloud.developer.result(early))[1]
        await cloud.developer.control("ControlTask.EmsDispatchMode", "93000HKU219W0001")
        late = await cloud.developer.control("ControlTask.BatteryCD", HOUSE_SERIAL, **order)
        clock.advance(3)
        assert await states(cloud, late) == ["succeeded"]
        [plant] = (await cloud.http.get("/sim/state", params={"plant": HOUSE.id})).json()["plants"]
        assert plant["devices"][0]["dispatched"] is True


async def test_a_battery_order_ends_with_its_window(cloud, clock):
    world = cloud.simulator.world
    await cloud.developer.control("ControlTask.BatteryCD", HOUSE_SERIAL, begins=START, ends=START + 600, **BATTERY)
    clock.advance(599)
    told = await cloud.inverter()
    assert (told["battery_cd_mode"], told["pbattery"]) == (3, pytest.approx(1000, abs=1))
    clock.advance(1)
    told = await cloud.inverter()
    assert (told["battery_cd_mode"], told["battery_cd_power"], told["battery_cd_target_soc"]) == (None, None, None)
    assert told["battery_cd_enable"] == 0
    assert world.setpoints(HOUSE_SERIAL).battery_mode == "auto"
    assert len(cloud.evidence.controls) == 1


async def test_a_battery_order_waits_for_its_window(cloud, clock):
    order = BATTERY | {"begins": START + 600, "ends": START + 1200}
    receipt = await cloud.developer.control("ControlTask.BatteryCD", HOUSE_SERIAL, **order)
    modes = []
    for _ in range(3):
        clock.advance(500)
        modes.append((await cloud.inverter())["battery_cd_mode"])
    assert modes == [None, 3, None]
    assert await states(cloud, receipt) == ["succeeded"]


async def test_a_newer_battery_order_ends_the_older_ones_window(cloud, clock):
    await cloud.developer.control("ControlTask.BatteryCD", HOUSE_SERIAL, begins=START, ends=START + 600, **BATTERY)
    clock.advance(60)
    await cloud.control("SetBatteryChargeDischarge", **(BATTERY | {"battery_mode": "idle"}))
    clock.advance(3000)
    assert (await cloud.inverter())["battery_cd_mode"] == 1


async def test_a_window_that_is_over_or_makes_no_sense_is_told(cloud, clock):
    order = BATTERY | {"begins": START - 600, "ends": START - 1}
    late = await cloud.developer.control("ControlTask.BatteryCD", HOUSE_SERIAL, **order)
    clock.advance(3)
    assert await cloud.developer.result(late) == ("failed", "the end of the command has passed")
    backwards = BATTERY | {"begins": START, "ends": START}
    assert (await cloud.developer.call("ControlTask.BatteryCD", serial=HOUSE_SERIAL, **backwards))[0] == "P0214"


async def test_reactive_power_is_given_one_way_or_the_other(cloud):
    answer = await cloud.send("SetReactivePower", {"InverterSN": HOUSE_SERIAL})
    assert str(answer.json()["code"]) == "100004"
    answer = await cloud.send("SetReactivePower", {"InverterSN": HOUSE_SERIAL, "PowerFactor": "0.9"})
    assert str(answer.json()["code"]) == "100004"  # without its mark


# What is not there


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "realtime/dreams", 404, "GY0410"),
        ("GET", "realtime/plants", 200, "GY0405"),
        ("POST", "realtime/plants/", 404, "GY0410"),
    ],
)
async def test_other_paths_are_refused_in_the_platforms_own_words(cloud, method, path, status, code):
    answer = await cloud.http.request(method, DEVELOPER.base + path, json=None)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_the_time_stands_while_an_answer_is_put_together():
    clock = HandClock()
    looks = []
    clock.now_before, clock.now = clock.now, lambda: looks.append(1) or clock.now_before()
    async with SimulatedCloud(clock, plants=20) as cloud:
        await cloud.developer.log_in()
        ids = list(cloud.simulator.world.fleet)
        await cloud.developer.ask("StationTelemetry", plants=ids[:1])
        looks.clear()
        await cloud.developer.ask("StationTelemetry", plants=ids)
        assert len(looks) <= 3


async def test_a_fleet_is_answered_in_hundreds_at_little_cost(clock):
    async with SimulatedCloud(clock, plants=PLANTS, developer_calls_per_hour=0) as cloud:
        await cloud.developer.log_in()
        by_type = {"inverter": [], "storage": []}
        for plant in cloud.simulator.world:
            for device in plant.devices:
                by_type[device.model.kind.value].append(device.serial)
        batches = [
            (type_, serials[n : n + 100]) for type_, serials in by_type.items() for n in range(0, len(serials), 100)
        ]
        answered = 0
        for round_ in range(2):  # In the first one the plants come to life.
            clock.advance(60)
            for type_, serials in batches:
                told = await cloud.developer.ask("DeviceTelemetry", serials=serials, type=type_)
                answered += len(told["deviceData"]) * round_
        assert answered == sum(len(serials) for serials in by_type.values()) >= 3.9 * PLANTS


async def test_a_battery_that_is_handed_back_follows_the_work_mode_again(cloud, clock):
    await cloud.developer.control("ControlTask.BatteryCD", HOUSE_SERIAL, **BATTERY)
    clock.advance(60)
    assert (await cloud.inverter())["pbattery"] == pytest.approx(1000, abs=1)
    given_back = BATTERY | {"battery_mode": "auto", "battery_ordered": False}
    receipt = await cloud.developer.control("ControlTask.BatteryCD", HOUSE_SERIAL, **given_back)
    clock.advance(3)
    assert await cloud.developer.result(receipt) == ("succeeded", "done")
    told = await cloud.inverter()
    assert told["battery_cd_enable"] == 0
    assert (told["battery_cd_mode"], told["battery_cd_power"], told["battery_cd_target_soc"]) == (None, None, None)
    assert told["pbattery"] < 0  # it is noon: the surplus is stored


async def test_a_reserve_is_kept_whoever_orders_to_discharge(cloud, clock):
    soc = (await cloud.inverter())["soc"]
    await cloud.developer.control("ControlTask.BatteryReserve", HOUSE_SERIAL, battery_reserve_soc=min(100, soc + 1))
    await cloud.developer.control("ControlTask.BatteryCD", HOUSE_SERIAL, **(BATTERY | {"battery_target_soc": 0}))
    clock.advance(60)
    assert (await cloud.inverter())["pbattery"] == 0
    await cloud.developer.control("ControlTask.BatteryReserve", HOUSE_SERIAL, battery_reserve_soc="none")
    clock.advance(60)
    assert (await cloud.inverter())["pbattery"] == pytest.approx(1000, abs=1)
