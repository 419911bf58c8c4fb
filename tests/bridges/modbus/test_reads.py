"""What a client reads."""

import math
from datetime import timedelta

import pytest

from gateway.bridges.modbus.maps.native import BLOCKS
from gateway.core.model import DeviceKind
from tests.bridges.modbus.client import read
from tests.bridges.modbus.conftest import serving
from tests.kit.bench import INVERTER, until
from tests.kit.clock import FakeClock

ABSENT = -0x80000000


async def test_identity(client):
    assert await client.words(0, 4) == [1, 2, 0, 10_000]
    assert await client.text(4, 16) == INVERTER.serial
    assert await client.text(20, 16) == "House"
    assert await client.text(36, 16) == "GW10K-ET"
    assert await client.text(52, 16) == "plant-1"
    assert await client.words(84, 16) == [0] * 16


async def test_measurements_as_scaled_integers_and_floats(served, client):
    await served.publish(ac_power=-1234, l1_voltage=230.06, energy_total=12_345.67, battery_soc=55, status="fault")
    for function in (3, 4):
        assert await client.number("i", 1020, function=function) == -1234
        assert await client.number("i", 1050, function=function) == 2301
        assert await client.number("f", 3050, function=function) == pytest.approx(230.06)
        assert await client.number("i", 1126, function=function) == 123_457
        assert await client.number("i", 1160, function=function) == 550
        assert await client.number("i", 1000, function=function) == 3
        assert await client.number("f", 3000, function=function) == 3.0


async def test_absent_values_read_as_sentinels(served, client):
    await served.publish(ac_power=1)
    assert await client.number("i", 1028) == ABSENT
    assert math.isnan(await client.number("f", 3028))
    assert await client.number("I", 1002) == 0xFFFFFFFF
    assert await client.words(101) == [0xFFFF]
    assert await client.number("i", 5002) == ABSENT
    assert await client.words(5800, 2) == [0xFFFF, 0x8000]


async def test_setpoints_are_read_back_in_three_ways(served, client):
    await served.publish(active_power_limit=50.5, export_limit=3_336, running=True, work_mode="eco", power_factor=-0.95)
    assert await client.number("i", 5002) == 505
    assert await client.number("f", 5502) == 50.5
    assert await client.words(5801) == [505]
    assert await client.number("i", 5008) == 3_336
    assert await client.words(5804) == [334]
    assert await client.words(5800) == [1]
    assert await client.number("i", 5010) == 3
    assert await client.number("h", 5803) == -950


async def test_state_shows_quality_age_time_and_a_counter(served, client):
    await served.publish(age=7, status="normal", fault_text="Grid lost", firmware="V1.4")
    measured = served.bench.router.state(INVERTER.serial).time
    assert await client.words(100, 2) == [0, 2]
    assert await client.number("I", 102) in {7, 8}
    assert await client.number("I", 104) == int(measured.timestamp())
    before = await client.number("I", 106)
    await served.publish(ac_power=1)
    assert await client.number("I", 106) == before + 1
    await served.publish(fault_text="Grid lost", firmware="V1.4")
    assert await client.text(110, 32) == "Grid lost"
    assert await client.text(68, 16) == "V1.4"


async def test_the_age_is_right_at_the_moment_of_the_read(tmp_path):
    clock = FakeClock()
    async with serving(tmp_path, clock=clock) as served, served.client() as client:
        assert await client.number("I", 102) == 0xFFFFFFFF
        await served.publish(ac_power=1)
        assert await client.number("I", 102) == 0
        clock.jump(100)
        assert await client.number("I", 102) in {100, 101}
        clock.jump(-500)
        assert await client.number("I", 102) == 0


async def test_the_heartbeat_counts_seconds(served, client):
    served.bridge._started -= 1000
    assert await client.number("I", 108) in range(1000, 1010)


async def test_stale_data_are_answered_with_0b_and_are_back_when_good(tmp_path):
    clock = FakeClock()
    async with serving(tmp_path, clock=clock) as served, served.client() as client:
        assert await client.refused(read(1020, 2)) == 0x0B
        await served.publish(ac_power=5, active_power_limit=40)
        assert await client.number("i", 1020) == 5
        clock.jump(181)
        served.bench.router.age()
        await until(lambda: served.bridge.listeners[0].service.units[1].images[0].closed)
        for address in (1000, 1020, 1249, 3000, 3249):
            assert await client.refused(read(address, 1)) == 0x0B
            assert await client.refused(read(address, 1, function=4)) == 0x0B
        assert await client.words(100) == [1]
        assert await client.text(4, 16) == INVERTER.serial
        assert await client.number("i", 5002) == 400
        assert await client.words(6000, 2) == [0, 0]
        await served.publish(ac_power=6)
        assert await client.number("i", 1020) == 6
        assert await client.words(100) == [0]


async def test_an_offline_device_is_answered_with_0b(served, client):
    await served.publish(ac_power=5, status="offline")
    assert await client.refused(read(1020, 2)) == 0x0B
    assert await client.words(100, 2) == [2, 0]


async def test_stale_data_are_sentinels_where_that_is_the_policy(tmp_path):
    clock = FakeClock()
    async with serving(tmp_path, clock=clock, stale="sentinel") as served, served.client() as client:
        assert await client.number("i", 1020) == ABSENT
        await served.publish(ac_power=5, status="normal", active_power_limit=40)
        assert await client.number("i", 1020) == 5
        clock.jump(181)
        served.bench.router.age()
        await until(lambda: served.bridge._devices[INVERTER.serial].updates == 3)
        assert await client.number("i", 1020) == ABSENT
        offline = 0
        assert await client.number("i", 1000) == offline
        assert math.isnan(await client.number("f", 3020))
        assert await client.number("f", 5502) == 40
        assert await client.words(100, 2) == [1, offline], "status, as everywhere"


async def test_a_block_is_read_across_its_reserved_registers(served, client):
    await served.publish(ac_power=1)
    for block in BLOCKS:
        for start in range(block.start, block.end, 125):
            await client.words(start, min(125, block.end - start))


@pytest.mark.parametrize(
    ("address", "count"),
    [(150, 1), (999, 2), (1249, 2), (1200, 51), (65535, 1), (65535, 125), (900, 125), (6064, 1), (6559, 2)],
)
async def test_a_read_outside_a_block_is_02(client, address, count):
    assert await client.refused(read(address, count)) == 0x02


@pytest.mark.parametrize("count", [0, 126, 0xFFFF])
async def test_a_count_of_0_or_more_than_125_is_03(client, count):
    assert await client.refused(read(0, count)) == 0x03


@pytest.mark.parametrize("unit", [2, 247, 248, 254])
async def test_an_absent_unit_is_0a(client, unit):
    assert await client.refused(read(0, 1), unit=unit) == 0x0A


async def test_the_low_word_comes_first_where_so_configured(tmp_path):
    async with serving(tmp_path, word_order="cdab") as served, served.client() as client:
        await served.publish(ac_power=0x12345)
        assert await client.words(1020, 2) == [0x2345, 0x0001]
        assert await client.text(4, 16) == INVERTER.serial


async def test_a_device_that_goes_is_0a_and_keeps_its_unit(served, client):
    await served.publish(ac_power=1)
    served.bench.router.withdraw("scripted", INVERTER.serial)
    await until(lambda: not served.bridge.units)
    assert await client.refused(read(0, 1)) == 0x0A
    served.bench.announce(serial="OTHER")
    served.bench.announce()
    await until(lambda: len(served.bridge.units) == 2)
    assert served.bridge.units == {INVERTER.serial: 1, "OTHER": 2}


async def test_many_devices_arrive_at_once(tmp_path):
    devices = [
        type(INVERTER)(serial=f"SN{n}", kind=DeviceKind.METER, rated_power=None, name=f"Meter {n}") for n in range(30)
    ]
    async with serving(tmp_path, devices=devices) as served, served.client() as client:
        for n in range(30):
            unit = served.bridge.units[f"SN{n}"]
            assert await client.text(20, 16, unit=unit) == f"Meter {n}"
            assert await client.number("i", 2, unit=unit) == ABSENT


def test_times_are_whole_seconds():
    from gateway.bridges.modbus.fields import unix
    from tests.kit.clock import NOON

    assert unix(NOON + timedelta(milliseconds=999)) == int(NOON.timestamp())
