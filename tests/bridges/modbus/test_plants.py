"""A plant's unit takes what its inverters take: shared out by rating, and read back as one."""

import struct

import msgspec
import pytest

from gateway.bridges.modbus.plants import Plants
from gateway.bridges.modbus.settling import SetpointRequest, WriteRefusedError
from gateway.commands.policy.policy import ControlSettings, Rule
from gateway.core.errors import RefusedError
from gateway.core.model import Device, DeviceKind, DeviceState, Quality, Range
from gateway.core.points import SETPOINTS
from tests.bridges.modbus.client import write_many, write_one
from tests.bridges.modbus.conftest import serving
from tests.kit.bench import INVERTER, until

PLANT = Device(serial="plant-1", kind=DeviceKind.PLANT, name="Hill House")
HYBRID = msgspec.structs.replace(
    INVERTER, setpoints={"active_power_limit": Range(0, 100), "battery_mode": Range(),
        "battery_power_target": Range(0, 5_000), "export_limit": Range(0, 10_000)},
)  # fmt: skip
LARGE = msgspec.structs.replace(
    HYBRID, serial="9020KETU000W0002", rated_power=30_000.0,
    setpoints={**HYBRID.setpoints, "battery_power_target": Range(0, 10_000), "export_limit": Range(0, 30_000)},
)  # fmt: skip
PV = Device(
    serial="9030KDTU000W0003", kind=DeviceKind.INVERTER, plant="plant-1", rated_power=20_000.0,
    setpoints={"active_power_limit": Range(20, 100)},
)  # fmt: skip
STRANGER = msgspec.structs.replace(PV, serial="9030KDTU000W0004", plant="plant-2")
CONTROL = ControlSettings(
    enabled=True, allow=[Rule(devices=["90*"], setpoints=list(SETPOINTS))], max_per_minute=100_000
)


@pytest.fixture(params=["accepted", "done"])
async def served(tmp_path, request):
    devices = (PLANT, HYBRID, LARGE, PV, STRANGER)
    async with serving(
        tmp_path, control=CONTROL, devices=devices, answer_writes=request.param, answer_timeout=120
    ) as served:
        for device in devices:
            await served.publish(device.serial, ac_power=1)
        yield served


async def told(served, count):
    await until(lambda: len(served.bench.asked) >= count)
    return sorted((command.serial, command.setpoint, command.value) for command in served.bench.asked)


async def reads(client, unit, address, expected):
    await until_async(lambda: client.words(address, len(expected), unit=unit), expected)


async def until_async(read, expected):
    found = None
    for _ in range(100_000):
        found = await read()
        if found == expected:
            return
    pytest.fail(f"{found}, not {expected}")


async def test_a_percentage_is_the_same_for_each(served):
    unit = served.bridge.units["plant-1"]
    async with served.client() as client:
        await client.ask(write_one(5801, 400), unit=unit)
        assert await told(served, 3) == [
            (device.serial, "active_power_limit", 40.0) for device in (HYBRID, LARGE, PV)
        ]  # fmt: skip
        await reads(client, unit, 5801, [400])
        assert await client.words(5801, unit=served.bridge.units[STRANGER.serial]) == [0x8000]


async def test_a_power_is_shared_by_what_each_can_and_reads_back_as_the_sum(served):
    unit = served.bridge.units["plant-1"]
    async with served.client() as client:
        await client.ask(write_many(5012, struct.pack(">2i", 1, 6001)), unit=unit)
        assert await told(served, 4) == [
            (HYBRID.serial, "battery_mode", "charge"), (HYBRID.serial, "battery_power_target", 2000.0),
            (LARGE.serial, "battery_mode", "charge"), (LARGE.serial, "battery_power_target", 4001.0),
        ]  # fmt: skip
        await reads(client, unit, 5012, [0, 1, 0, 6001])
        served.bench.publish(LARGE.serial, battery_mode="idle")
        await reads(client, unit, 5012, [0x8000, 0])  # they are not at one


async def test_what_one_of_them_does_not_take_none_is_told(served):
    unit = served.bridge.units["plant-1"]
    async with served.client() as client:
        assert await client.refused(write_one(5801, 100), unit=unit) == 0x03  # one takes 20 % and more
        assert await client.refused(write_many(5014, struct.pack(">i", 15_002)), unit=unit) == 0x03
        assert await client.refused(write_one(5805, 1), unit=unit) == 0x02  # none of them has work modes
    assert not served.bench.controller.sent


@pytest.mark.parametrize("served", ["done"], indirect=True)
async def test_the_worst_of_them_is_the_answer(served):
    served.bench.controller.answers = [None, RefusedError("not now")]
    async with served.client() as client:
        assert await client.refused(write_one(5801, 500), unit=served.bridge.units["plant-1"]) == 0x04


def noted(*devices, **values):
    plants = Plants()
    for device in devices:
        plants.note(stands(device, **values))
    return plants


def stands(device, **values):
    return DeviceState(device=device, quality=Quality.GOOD, time=None, source="test", values=values)


def seen(plants, plant=PLANT):
    return [device.serial for device in getattr(plants.view(stands(plant)).device, "inverters", ())]


def test_an_inverter_is_of_the_plant_that_it_is_in_now():
    plants = noted(PLANT, HYBRID, PV)
    assert seen(plants) == [HYBRID.serial, PV.serial]
    away = msgspec.structs.replace(HYBRID, plant="plant-2")
    assert plants.note(stands(away)) == ["plant-1", "plant-2"]
    assert (seen(plants), seen(plants, msgspec.structs.replace(PLANT, serial="plant-2"))) == ([PV.serial], [])
    plants.note(stands(msgspec.structs.replace(PLANT, serial="plant-2")))
    assert seen(plants, msgspec.structs.replace(PLANT, serial="plant-2")) == [HYBRID.serial]
    assert plants.forget(PV.serial) == ["plant-1"]
    assert seen(plants) == []
    assert plants.share(PLANT.serial, SetpointRequest("active_power_limit", 40.0)) == [
        (PLANT.serial, SetpointRequest("active_power_limit", 40.0))
    ]


def test_a_plant_of_hundreds_is_described_once_however_many_of_them_come(monkeypatch):
    described, describe = [], Plants._describe
    monkeypatch.setattr(Plants, "_describe", staticmethod(lambda *its: described.append(its) or describe(*its)))
    plants = noted(PLANT, *(msgspec.structs.replace(PV, serial=f"9030KDTU000W{n:04}") for n in range(300)))
    assert not described
    assert len(seen(plants)) == 300
    seen(plants)
    assert len(described) == 1
    plants.forget("9030KDTU000W0007")
    assert len(seen(plants)) == 299
    assert len(described) == 2


def test_what_takes_nothing_any_more_is_asked_for_nothing():
    plants = noted(PLANT, HYBRID, PV)
    plants.note(stands(msgspec.structs.replace(HYBRID, setpoints={})))
    assert [serial for serial, _ in plants.share(PLANT.serial, SetpointRequest("active_power_limit", 40.0))] == [
        PV.serial
    ]
    assert seen(plants) == [HYBRID.serial, PV.serial], "it is one of the plant's all the same"


def test_what_a_plant_takes_by_itself_it_does_itself():
    own = msgspec.structs.replace(PLANT, setpoints={"export_limit": Range(0, 7_000)})
    plants = noted(own, HYBRID, LARGE)
    assert plants.share(own.serial, SetpointRequest("export_limit", 5_000.0)) == [
        (own.serial, SetpointRequest("export_limit", 5_000.0))
    ]
    shown = plants.view(stands(own, export_limit=1.0))
    assert (shown.device.setpoints["export_limit"], shown.values["export_limit"]) == (Range(0, 7_000), 1.0)
    assert len(plants.share(own.serial, SetpointRequest("active_power_limit", 40.0))) == 2


def test_an_order_is_for_those_that_take_all_of_it():
    no_power = msgspec.structs.replace(LARGE, setpoints={"battery_mode": Range()})
    plants = noted(PLANT, HYBRID, no_power)
    order = {"battery_mode", "battery_power_target"}
    assert [one for one, _ in plants.share(PLANT.serial, SetpointRequest("battery_mode", "charge"), order)] == [
        HYBRID.serial
    ]
    idle = plants.share(PLANT.serial, SetpointRequest("battery_mode", "idle"), {"battery_mode"})
    assert [one for one, _ in idle] == [HYBRID.serial, LARGE.serial]


@pytest.mark.parametrize("value", [0, 1, 6_001, 14_999, 15_000])
def test_shares_are_by_what_each_takes_else_by_its_rating(value):
    rated = msgspec.structs.replace(
        LARGE, rated_power=10_000.0, setpoints={**LARGE.setpoints, "battery_power_target": Range(0, None)}
    )
    plants = noted(PLANT, HYBRID, rated)
    assert plants.view(stands(PLANT)).device.setpoints["battery_power_target"] == Range(0, 15_000)
    (_, small), (_, large) = plants.share(PLANT.serial, SetpointRequest("battery_power_target", float(value)))
    assert (small.value, large.value) == (round(value / 3), value - round(value / 3))


def test_no_share_is_made_up_where_a_rating_is_not_known():
    unknown = msgspec.structs.replace(
        LARGE, rated_power=None, setpoints={**LARGE.setpoints, "battery_power_target": Range()}
    )
    plants = noted(PLANT, HYBRID, unknown)
    with pytest.raises(WriteRefusedError, match=LARGE.serial) as refused:
        plants.share(PLANT.serial, SetpointRequest("battery_power_target", 6_000.0))
    assert refused.value.code == 0x03
    alone = noted(PLANT, unknown)
    assert alone.share(PLANT.serial, SetpointRequest("battery_power_target", 6_000.0))[0][1].value == 6_000.0
    assert [
        request.value for _, request in plants.share(PLANT.serial, SetpointRequest("battery_power_target", "none"))
    ] == ["none"] * 2
