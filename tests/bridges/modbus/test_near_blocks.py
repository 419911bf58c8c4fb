"""B8: clients join what lies near; the overview; what can be read at any time."""

import struct

import pytest

from gateway.core.model import Quality
from tests.bridges.modbus.client import read
from tests.bridges.modbus.conftest import serving
from tests.kit.bench import INVERTER, until
from tests.kit.clock import FakeClock

ABSENT = -0x80000000


async def test_a_read_joins_blocks_and_what_lies_between_reads_as_0(served, client):
    await served.publish(ac_power=1, alarms_active=0)
    joined = await client.words(6026, 76)
    assert joined[:32] == await client.words(6026, 32)
    assert joined[38:74] == [0] * 36  # 6064 to 6099
    assert joined[74:] == await client.words(6100, 2)
    assert len(await client.words(6000, 100)) == 100
    whole = await client.words(6250, 125)  # alarms, a gap, overview, and a part of the gap behind it
    assert whole[14:50] == [0] * 36
    assert whole[50:110] == await client.words(6300, 60)


async def test_a_joined_read_is_gated_where_it_touches_measurements(tmp_path):
    rows = "address,type,scale,point,access\n6360,int16,1,ac_power,R\n6461,int16,1,work_mode,RW\n"
    path = tmp_path / "mine.csv"
    path.write_text(rows)
    async with serving(tmp_path, maps=("native", str(path))) as served, served.client() as client:
        await served.publish(age=10_000, ac_power=7, work_mode="eco")
        assert await client.refused(read(6300, 61)) == 0x0B
        assert (await client.words(6350, 5))[-1] == 0  # before it
        assert (await client.words(6361, 101))[-1] == 3  # across native's totals
        await served.publish(ac_power=7)
        assert (await client.words(6300, 61))[-1] == 7
        assert (await client.words(6300, 61, function=4))[-1] == 7


async def test_a_gap_alone_and_a_gap_that_is_too_wide_are_02(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(
        "address,type,scale,point,access\n10,int16,1,work_mode,RW\n134,int16,1,work_mode,RW\n259,int16,1,work_mode,R\n"
    )
    async with serving(tmp_path, maps=(str(path),)) as served, served.client() as client:
        await served.publish(ac_power=1, work_mode="eco")
        across = await client.words(10, 125)
        assert (across[0], across[-1], sum(across)) == (3, 3, 6)
        assert await client.refused(read(11, 3)) == 0x02
        assert await client.refused(read(134, 2)) == 0x02
        assert await client.refused(read(135, 125)) == 0x02
        assert await client.refused(read(9, 2)) == 0x02
        assert await client.refused(read(259, 2)) == 0x02


async def test_the_overview_says_in_one_read_what_everybody_asks_for(served, client):
    await served.publish(
        status="normal", ac_power=-1234, grid_power=40_000, battery_soc=55.5, energy_total=12_345.67, l1_voltage=230.06,
        l1_frequency=49.98, temperature=-3.5, ac_power_factor=-0.951, alarms_active=2, alarm_severity="fault",
    )  # fmt: skip
    raw = await client.raw(6300, 48)
    assert len(raw) // 2 <= 60

    def at(code, address):
        return struct.unpack_from(f">{code}", raw, 2 * (address - 6300))[0]

    assert [at("H", 6300), at("H", 6301), at("H", 6306), at("H", 6307)] == [0, 2, 2, 3]
    assert [at("i", 6308), at("i", 6312), at("h", 6320), at("h", 6321), at("i", 6324)] == [
        -1234,
        40_000,
        555,
        -951,
        123_457,
    ]
    assert [at("H", 6330), at("H", 6333), at("h", 6340), at("H", 6341), at("i", 6344)] == [2301, 4998, -35, 2, 10_000]
    assert [at("i", 6314), at("H", 6331), at("I", 6342)] == [ABSENT, 0xFFFF, 0xFFFFFFFF]


@pytest.mark.parametrize("stale", ["exception", "sentinel"])
async def test_totals_status_and_the_overview_are_read_at_any_time(tmp_path, stale):
    clock = FakeClock()
    async with serving(tmp_path, clock=clock, stale=stale) as served, served.client() as client:
        await served.publish(ac_power=7, energy_total=100, energy_today=1.5, operating_hours=9)
        assert await client.number("i", 6308) == 7
        clock.jump(181)
        served.bench.router.age()
        await until(lambda: served.bench.router.state(INVERTER.serial).quality is Quality.STALE)
        await until(lambda: served.bridge._devices[INVERTER.serial].state.quality is Quality.STALE)
        await until(lambda: served.bridge._listeners.tables[0][1].images[0]._shown["data.quality"] == 1)
        assert (await client.words(6300), await client.number("I", 6302)) == ([1], 181)
        assert await client.number("i", 6308) == ABSENT
        assert (await client.number("i", 6324), await client.number("i", 6322)) == (1000, ABSENT), "today may be over"
        assert (await client.words(6400), await client.number("I", 6402)) == ([1], 181)
        assert (await client.number("i", 6416), await client.number("i", 6438)) == (1000, 90)
