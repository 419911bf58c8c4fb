"""Things going wrong by order, and the view behind the cloud."""

import asyncio
import json

import httpx
import pytest

from tests.simulator.kit import HOUSE, HOUSE_SERIAL, PARK, SimulatedCloud, serial_of


async def test_an_offline_device_keeps_its_last_word_and_its_time(cloud, clock):
    before = await cloud.inverter()
    await cloud.break_(devices={HOUSE_SERIAL: {"offline": True}})
    clock.advance(3600)
    during = await cloud.inverter()
    assert during == before | {"status": -1}
    plant = await cloud.ask("GetPlantDetail", plant=HOUSE.id)
    assert (plant["status"], plant["last_refresh_time"]) == (-1, before["last_refresh_time"])
    await cloud.break_(devices={HOUSE_SERIAL: {"offline": False}})
    after = await cloud.inverter()
    assert after["status"] == 1
    assert float(after["etotal"]) > float(before["etotal"])


async def test_a_tripped_device_reports_a_fault(cloud):
    await cloud.break_(devices={HOUSE_SERIAL: {"tripped": True}})
    data = await cloud.inverter()
    assert (data["status"], data["pac"], data["fault_message"]) == (2, 0, "Isolation Failure")


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        ("http_500", 500, "Server Error"),
        ("http_502", 502, "Server Error"),
        ("http_503", 503, "Server Error"),
        ("http_504", 504, "Server Error"),
        ("http_429", 429, "Server Error"),
        ("html", 200, "<!DOCTYPE html>"),
        ("truncated", 200, '{"code":'),
        ("null_data", 200, '"data":null'),
        ("token_expired", 200, '"code":"100002"'),
        ("login_refused", 200, '"code":"100005"'),
        ("rate_limited", 200, '"code":"GY0429"'),
    ],
)
async def test_answers_are_spoilt(cloud, answer, status, body):
    await cloud.break_(answers=[{"answer": answer, "times": 1}])
    spoilt = await cloud.send("GetPlantDetail", {"plant_id": HOUSE.id})
    assert spoilt.status_code == status
    assert body in spoilt.text
    assert cloud.evidence.calls[-1].code == answer
    assert (await cloud.call("GetPlantDetail", plant=HOUSE.id))[0] == "0"


async def test_an_empty_answer_is_empty_until_all_is_well_again(cloud):
    await cloud.break_(answers=[{"answer": "empty"}])
    for _ in range(3):
        assert (await cloud.send("GetPlantDetail", {"plant_id": HOUSE.id})).content == b""
    await cloud.break_(answers=[])
    assert (await cloud.call("GetPlantDetail", plant=HOUSE.id))[0] == "0"


async def test_only_the_interfaces_named_are_spoilt(cloud):
    await cloud.break_(answers=[{"answer": "http_500", "interfaces": ["GetPlantDetail"]}])
    assert (await cloud.call("GetInverterList", plant=HOUSE.id))[0] == "0"
    assert (await cloud.send("GetPlantDetail", {"plant_id": HOUSE.id})).status_code == 500


@pytest.mark.parametrize("executed", [True, False])
async def test_a_command_whose_answer_is_lost_may_have_been_carried_out(cloud, clock, executed):
    await cloud.break_(answers=[{"answer": "truncated", "times": 1, "executed": executed}])
    fields = {"InverterSN": HOUSE_SERIAL, "ActivePowerLimit": "30", "ActivePowerLimitSettingMark": "1"}
    answer = await cloud.send("SetActivePowerLimit", fields)
    with pytest.raises(json.JSONDecodeError):
        answer.json()
    clock.advance(2)
    assert ((await cloud.inverter())["active_power_limit"] == 30) is executed


async def test_logins_are_refused_and_tokens_revoked(cloud):
    await cloud.break_(refuse_logins=True, revoke_tokens=True)
    assert (await cloud.call("GetPlantDetail", plant=HOUSE.id))[0] == "100002"
    assert await cloud.log_in() == "100005"
    await cloud.break_(refuse_logins=False)
    assert await cloud.log_in() == "0"


async def test_a_delayed_answer_comes_after_its_delay(cloud):
    await cloud.break_(answer_delay=0.05)
    began = asyncio.get_running_loop().time()
    assert (await cloud.call("GetPlantDetail", plant=HOUSE.id))[0] == "0"
    assert asyncio.get_running_loop().time() - began >= 0.05


async def test_a_client_waits_no_longer_than_it_wants(cloud):
    await cloud.break_(answer_delay=600)
    url = f"{cloud.simulator.url}/api/OpenApi/GetPlantDetail"
    with pytest.raises(httpx.ReadTimeout):
        await cloud.http.post(url, json={"plant_id": HOUSE.id}, headers={"token": cloud.token}, timeout=0.05)
    await cloud.break_(clear=True)
    assert (await cloud.call("GetPlantDetail", plant=HOUSE.id))[0] == "0"


async def test_faults_are_shown_and_cleared(cloud):
    order = {
        "devices": {HOUSE_SERIAL: {"offline": True, "obedience": "lies"}, PARK.devices[2].serial: {"tripped": True}},
        "answers": [{"answer": "html", "interfaces": ["GetPlantDetail"], "times": 2, "executed": True}],
        "answer_delay": 0.0,
        "device_delay": 9.0,
        "refuse_logins": True,
        "owner_changes": 5.0,
        "shares": {"refuse": 0.125},
    }
    shown = await cloud.break_(**order)
    assert shown == (await cloud.http.get("/sim/faults")).json()
    [refusing] = cloud.evidence.faulty
    assert (shown["owner_changes"], shown["shares"]["refuse"]) == (5.0, 0.125)
    assert shown["devices"].pop(refusing)["obedience"] == "refuses"
    assert shown["devices"] == {
        HOUSE_SERIAL: {"offline": True, "tripped": False, "obedience": "lies"},
        PARK.devices[2].serial: {"offline": False, "tripped": True, "obedience": "obeys"},
    }
    assert shown["answers"] == [order["answers"][0] | {"api": "", "delay": 0.0, "says": {}}]
    assert {key: shown[key] for key in ("answer_delay", "device_delay", "refuse_logins")} == {
        "answer_delay": 0.0, "device_delay": 9.0, "refuse_logins": True
    }  # fmt: skip
    assert await cloud.break_(clear=True) == {
        "devices": {},
        "answers": [],
        "answer_delay": 0.0,
        "device_delay": 2.0,
        "refuse_logins": False,
        "licence": True,
        "unauthorised": [],
        "results": [],
        "shares": {
            "offline": 0.0, "refuse": 0.0, "contradict": 0.0, "seed": None,
            "late": {"share": 0.0, "seconds": [30.0, 300.0], "result_only": False},
        },
        "owner_changes": 0.0,
    }  # fmt: skip
    assert (await cloud.inverter())["status"] == 1


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (b"{", 400, "truncated"),
        (b'{"wrong": 1}', 400, "wrong"),
        (b'{"answers": [{"answer": "nice"}]}', 400, "nice"),
        (b'{"answer_delay": -1}', 400, "answer_delay"),
        (b'{"devices": {"none": {"offline": true}}}', 404, "none"),
    ],
)
async def test_an_order_that_makes_no_sense_is_refused(cloud, body, status, error):
    answer = await cloud.http.post("/sim/faults", content=body)
    assert answer.status_code == status
    assert error in answer.json()["error"]


# Behind the cloud


async def test_the_state_shows_the_truth_of_an_offline_device(cloud, clock):
    await cloud.control("SetActivePowerLimit", active_power_limit=60.0)
    clock.advance(2)
    await cloud.break_(devices={HOUSE_SERIAL: {"offline": True}})
    state = (await cloud.http.get("/sim/state")).json()
    assert state["time"] == "2026-06-21T12:00:02.000Z"
    assert [len(plant["devices"]) for plant in state["plants"]] == [1, 2, 5]
    house = state["plants"][0]["devices"][0]
    assert house["values"]["status"] == "normal"
    assert house["setpoints"]["active_power_limit"] == 60
    assert house["faults"] == {"offline": True, "tripped": False, "obedience": "obeys"}


async def test_the_state_of_one_plant(cloud):
    state = (await cloud.http.get("/sim/state", params={"plant": PARK.id})).json()
    assert [plant["name"] for plant in state["plants"]] == ["Solar park"]
    assert (await cloud.http.get("/sim/state", params={"plant": "none"})).status_code == 404


async def test_calls_and_controls_are_shown(clock):
    async with SimulatedCloud(clock, device_delay=0) as cloud:
        await cloud.log_in()
        for limit in (10.0, 20.0):
            await cloud.control("SetActivePowerLimit", active_power_limit=limit)
        calls = (await cloud.http.get("/sim/calls")).json()["calls"]
        assert [call["interface"] for call in calls] == ["GetToken", "SetActivePowerLimit", "SetActivePowerLimit"]
        newest = (await cloud.http.get("/sim/calls", params={"interface": "SetActivePowerLimit", "limit": 1})).json()
        assert [call["params"]["ActivePowerLimit"] for call in newest["calls"]] == ["20"]
        controls = (await cloud.http.get("/sim/controls")).json()["controls"]
        assert [control["setpoints"] for control in controls] == [
            {"active_power_limit": 10.0},
            {"active_power_limit": 20.0},
        ]
        assert (await cloud.http.get("/sim/calls", params={"limit": "0"})).json() == {"calls": []}
        assert (await cloud.http.get("/sim/calls", params={"limit": "all"})).status_code == 400


async def test_there_is_nothing_else_behind_the_cloud(cloud):
    answer = await cloud.http.get("/sim/secrets")
    assert (answer.status_code, answer.json()) == (404, {"error": "Not Found"})
    assert (await cloud.http.delete("/sim/faults")).status_code == 405


# Each API, each interface


async def test_retry_after_comes_in_both_forms_or_not_at_all(cloud):
    waits = {}
    for answer in ("http_429", "http_429_date", "http_429_bare"):
        await cloud.break_(answers=[{"answer": answer, "times": 1}])
        waits[answer] = (await cloud.send("GetPlantDetail", {"plant_id": HOUSE.id})).headers.get("retry-after")
    assert waits == {"http_429": "60", "http_429_date": "Sun, 21 Jun 2026 12:01:00 GMT", "http_429_bare": None}


@pytest.mark.parametrize("answer", ["cut", "wrong_length"])
async def test_a_connection_ends_before_its_answer_does(cloud, answer):
    await cloud.break_(answers=[{"answer": answer, "times": 1}])
    with pytest.raises(httpx.RemoteProtocolError):
        await cloud.send("GetPlantDetail", {"plant_id": HOUSE.id})
    assert (await cloud.call("GetPlantDetail", plant=HOUSE.id))[0] == "0"


async def test_a_huge_answer_need_not_be_read_to_its_end(cloud):
    await cloud.break_(answers=[{"answer": "huge", "times": 1}])
    url = f"{cloud.simulator.url}/api/OpenApi/GetPlantDetail"
    read = 0
    async with cloud.http.stream("POST", url, json={"plant_id": HOUSE.id}) as answer:
        async for chunk in answer.aiter_bytes():
            read += len(chunk)
            if read > 9 * 1024 * 1024:
                break
    assert (await cloud.call("GetPlantDetail", plant=HOUSE.id))[0] == "0"


async def test_a_fault_may_concern_one_api_and_one_interface(cloud):
    await cloud.developer.log_in()
    fault = {"answer": "html", "api": "developer", "interfaces": ["StationTelemetry"]}
    await cloud.break_(answers=[fault])
    assert (await cloud.call("GetPlantDetail", plant=HOUSE.id))[0] == "0"
    assert (await cloud.developer.call("StationInformation", plants=[HOUSE.id]))[0] == "00000"
    assert "<html>" in (await cloud.developer.send("StationTelemetry", {"plantIds": [HOUSE.id]})).text
    assert [call.code for call in cloud.evidence.calls][-3:] == ["0", "00000", "html"]


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        ("token_expired", 401, {"code": "C0602", "msg": "token_expired", "data": None}),
        ("rate_limited", 200, {"code": "GY0429", "msg": "rate_limited", "data": None}),
        ("null_data", 200, {"code": "00000", "msg": "success", "data": None}),
    ],
)
async def test_the_developer_platform_fails_its_own_way(cloud, answer, status, body):
    await cloud.developer.log_in()
    await cloud.break_(answers=[{"answer": answer, "times": 1}])
    spoilt = await cloud.developer.send("StationTelemetry", {"plantIds": [HOUSE.id]})
    assert (spoilt.status_code, spoilt.json()) == (status, body)


async def test_a_login_at_the_developer_platform_is_refused_by_order(cloud):
    for order in ({"answers": [{"answer": "login_refused", "api": "developer", "times": 1}]}, {"refuse_logins": True}):
        await cloud.break_(**order)
        refused = await cloud.developer.log_in()
        assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")
    await cloud.break_(clear=True, answers=[{"answer": "null_data", "times": 1}])
    assert (await cloud.developer.log_in()).json() is None
    assert (await cloud.developer.log_in()).status_code == 200


async def test_one_interface_answers_late(cloud):
    await cloud.break_(answers=[{"delay": 600, "interfaces": ["GetInverterBySN"], "times": 1}])
    url = f"{cloud.simulator.url}/api/OpenApi/GetInverterBySN"
    with pytest.raises(httpx.ReadTimeout):
        await cloud.http.get(url, params={"invertersn": HOUSE_SERIAL}, headers={"token": cloud.token}, timeout=0.05)
    assert (await cloud.call("GetPlantDetail", plant=HOUSE.id))[0] == "0"
    assert cloud.evidence.calls[-2].code == "0"


async def test_an_alarm_is_raised_and_cleared_by_hand(cloud):
    meter = serial_of("meter")
    alarm = {"serial": meter, "code": "12", "text": "Phase lost", "severity": "fault"}
    await cloud.break_(alarms=[alarm])
    [plant] = (await cloud.http.get("/sim/state", params={"plant": HOUSE.id})).json()["plants"]
    assert [(a["serial"], a["text"]) for a in plant["alarms"] if a["code"] == "12"] == [(meter, "Phase lost")]
    await cloud.break_(alarms=[{"serial": meter, "code": "12", "cleared": True}])
    assert all(a.cleared for a in cloud.simulator.world.alarms(meter) if a.code == "12")
    answer = await cloud.http.post("/sim/faults", json={"alarms": [alarm | {"serial": "none"}]})
    assert answer.status_code == 404


async def test_accessories_fail_too(cloud):
    meter = serial_of("meter")
    await cloud.break_(devices={meter: {"offline": True}})
    assert (await cloud.ask("GetMeterBySN", serial=meter))["status"] == -1
    await cloud.break_(clear=True)
    assert (await cloud.ask("GetMeterBySN", serial=meter))["status"] == 1


async def test_calls_are_shown_by_api(cloud):
    await cloud.developer.log_in()
    shown = (await cloud.http.get("/sim/calls", params={"api": "developer"})).json()["calls"]
    assert [(call["interface"], call["account"]) for call in shown] == [("Token", "demo")]
