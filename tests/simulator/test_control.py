"""Commands through the Open API, their results, and what plants make of them."""

import pytest

from tests.simulator.kit import HOUSE_SERIAL, NOON, PARK, ROOF_SERIAL, SimulatedCloud

PARK_SERIAL = PARK.devices[0].serial
DISCHARGE = {"battery_mode": "discharge", "battery_power_target": 3000, "battery_target_soc": 20}


async def test_a_device_obeys_after_its_delay_and_the_result_says_so(cloud, clock):
    receipt = await cloud.control("SetActivePowerLimit", PARK_SERIAL, active_power_limit=10.0)
    clock.advance(1.9)
    assert (await cloud.result(receipt))[0] == "pending"
    assert (await cloud.inverter(PARK_SERIAL))["active_power_limit"] == 100
    assert cloud.evidence.controls == []
    clock.advance(0.2)
    assert (await cloud.result(receipt))[0] == "succeeded"
    data = await cloud.inverter(PARK_SERIAL)
    assert data["active_power_limit"] == 10
    assert data["pac"] == pytest.approx(5000, abs=1)
    [control] = cloud.evidence.controls
    assert (control.serial, control.setpoints) == (PARK_SERIAL, {"active_power_limit": 10.0})
    assert control.receipt == receipt


async def test_a_command_takes_effect_whether_or_not_its_result_is_asked_for(cloud, clock):
    await cloud.control("SetInverterSwitch", PARK_SERIAL, running=False)
    clock.advance(2)
    data = await cloud.inverter(PARK_SERIAL)
    assert (data["running"], data["pac"], data["status"]) == (2, 0, 0)
    await cloud.control("SetInverterSwitch", PARK_SERIAL, running=True)
    clock.advance(2)
    data = await cloud.inverter(PARK_SERIAL)
    assert (data["running"], data["status"]) == (4, 1)
    assert [control.setpoints for control in cloud.evidence.controls] == [{"running": False}, {"running": True}]


async def test_a_battery_is_dispatched(cloud, clock):
    await cloud.control("SetBatteryChargeDischarge", **DISCHARGE)
    clock.advance(2)
    data = await cloud.inverter()
    assert (data["battery_cd_mode"], data["battery_cd_power"], data["battery_cd_target_soc"]) == (3, 3000, 20)
    assert data["pbattery"] == pytest.approx(3000, abs=1)


async def test_commands_take_effect_in_the_order_they_were_given(clock):
    async with SimulatedCloud(clock) as cloud:
        await cloud.log_in()
        for limit in (10.0, 20.0, 30.0):
            await cloud.control("SetActivePowerLimit", active_power_limit=limit)
        clock.advance(3)
        assert (await cloud.inverter())["active_power_limit"] == 30
        assert len(cloud.evidence.controls) == 3


async def test_without_a_delay_a_device_obeys_at_once(clock):
    async with SimulatedCloud(clock, device_delay=0) as cloud:
        await cloud.log_in()
        receipt = await cloud.control("SetActivePowerLimit", active_power_limit=50.0)
        assert (await cloud.result(receipt))[0] == "succeeded"
        assert cloud.evidence.controls[0].time == NOON


async def test_the_delay_is_wall_time_whatever_the_speed_of_the_sun(clock):
    async with SimulatedCloud(clock, speed=600) as cloud:
        await cloud.log_in()
        receipt = await cloud.control("SetActivePowerLimit", active_power_limit=0.0)
        clock.advance(1.9)
        assert (await cloud.result(receipt))[0] == "pending"
        before = float((await cloud.inverter())["eday"])
        clock.advance(3600)
        # Obeyed when due, long before anybody looked: an hour and a half would have brought kilowatt-hours.
        assert float((await cloud.inverter())["eday"]) - before < 0.7


@pytest.mark.parametrize(
    ("order", "outcome", "obeyed"),
    [
        ({"obedience": "refuses"}, ("failed", "the device did not obey"), False),
        ({"obedience": "lies"}, ("succeeded", "done"), False),
        ({"obedience": "silent"}, ("pending", "sent to the device"), False),
        ({"offline": True}, ("failed", "the device is offline"), False),
        ({"obedience": "obeys"}, ("succeeded", "done"), True),
    ],
)
async def test_what_becomes_of_a_command(cloud, clock, order, outcome, obeyed):
    await cloud.break_(devices={HOUSE_SERIAL: order})
    receipt = await cloud.control("SetActivePowerLimit", active_power_limit=40.0)
    clock.advance(5)
    assert await cloud.result(receipt) == outcome
    await cloud.break_(clear=True)
    assert ((await cloud.inverter())["active_power_limit"] == 40) is obeyed
    assert len(cloud.evidence.controls) == obeyed


@pytest.mark.parametrize(
    ("name", "fields", "code"),
    [
        ("SetActivePowerLimit", {"ActivePowerLimit": "101"}, "100004"),
        ("SetActivePowerLimit", {"ActivePowerLimit": "-1"}, "100004"),
        ("SetActivePowerLimit", {"ActivePowerLimit": "nan"}, "100004"),
        ("SetActivePowerLimit", {"ActivePowerLimit": "much"}, "100004"),
        ("SetActivePowerLimit", {"ActivePowerLimit": 50}, "100004"),
        ("SetActivePowerLimit", {"ActivePowerLimitSettingMark": "0"}, "100004"),
        ("SetActivePowerLimit", {"ActivePowerLimitSettingMark": None}, "100004"),
        ("SetInverterSwitch", {"InverterStatus": "3"}, "100004"),
        ("SetInverterSwitch", {"InverterStatus": 4}, "100004"),
        ("SetBatteryChargeDischarge", {"BatteryCDMode": 4}, "100004"),
        ("SetBatteryChargeDischarge", {"BatteryCDMode": True}, "100004"),
        ("SetBatteryChargeDischarge", {"BatteryCDPW": 5001}, "100004"),
        ("SetBatteryChargeDischarge", {"BatteryCDPW": 10**400}, "100004"),
        ("SetBatteryChargeDischarge", {"BatteryCDTargetSOC": -1}, "100004"),
        ("SetBatteryChargeDischarge", {"BatteryCDEnable": "1"}, "100004"),
        ("SetBatteryChargeDischarge", {"InverterSN": ROOF_SERIAL}, "100006"),
    ],
)
async def test_a_command_that_makes_no_sense_is_refused_at_once(cloud, clock, name, fields, code):
    good = {
        "SetActivePowerLimit": {"ActivePowerLimit": "50", "ActivePowerLimitSettingMark": "1"},
        "SetInverterSwitch": {"InverterStatus": "2", "InverterStatusSettingMark": "1"},
        "SetBatteryChargeDischarge": {
            "BatteryCDEnable": 1, "BatteryCDMode": 2, "BatteryCDPW": 100, "BatteryCDTargetSOC": 50,
            "CDStartTime": int(clock.now().timestamp()), "CDEndTime": int(clock.now().timestamp()) + 3600,
        },
    }[name]  # fmt: skip
    answer = await cloud.send(name, {"InverterSN": HOUSE_SERIAL} | good | fields)
    assert (str(answer.json()["code"]), answer.json()["data"]) == (code, None)
    clock.advance(10)
    assert cloud.evidence.controls == []
    assert (await cloud.send(name, {"InverterSN": HOUSE_SERIAL} | good)).json()["data"]["task_id"]


async def test_old_tasks_are_forgotten(clock):
    async with SimulatedCloud(clock, calls_remembered=2) as cloud:
        await cloud.log_in()
        receipts = [await cloud.control("SetActivePowerLimit", active_power_limit=float(n)) for n in (1, 2, 3)]
        assert (await cloud.call("GetControlResult", receipt=receipts[0]))[0] == "100013"
        clock.advance(2)
        assert (await cloud.result(receipts[2]))[0] == "succeeded"
