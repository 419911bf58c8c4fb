"""GoodWe's own addresses: what they show, what they show when nothing is known, and that none ever shifts."""

import struct

import msgspec
import pytest

from gateway.bridges.modbus.codec import WordOrder
from gateway.bridges.modbus.maps.goodwe import GoodweFamily
from gateway.bridges.modbus.maps.goodwe.registers import OWN, SETTINGS
from gateway.bridges.modbus.maps.goodwe.rows import GOODWE
from gateway.bridges.modbus.maps.goodwe.values import MAKERS, Seen, string_powers
from gateway.bridges.modbus.maps.native import NATIVE
from gateway.core.model import Device, DeviceKind, DeviceState, Quality
from tests.bridges.modbus.client import read, write_one
from tests.bridges.modbus.conftest import serving
from tests.kit.bench import INVERTER, until
from tests.kit.clock import FakeClock

UNIT = 247
METER = Device(serial="METER", kind=DeviceKind.METER)


@pytest.fixture
async def served(tmp_path):
    async with serving(tmp_path, maps=("native", "goodwe"), units={INVERTER.serial: UNIT}) as served:
        yield served


@pytest.fixture
async def words(served):
    async with served.client() as client:

        async def words(address, count=1, unit=UNIT):
            return await client.words(address, count, unit=unit)

        yield words


@pytest.fixture
async def signed(served):
    async with served.client() as client:

        async def signed(code, address):
            return struct.unpack(f">{code}", await client.raw(address, struct.calcsize(f">{code}") // 2, unit=UNIT))[0]

        yield signed


def test_it_meets_no_address_of_the_native_map():
    mine = {address for block in GOODWE.blocks for address in range(block.start, block.end)}
    native = {address for block in NATIVE.blocks for address in range(block.start, block.end)}
    assert not mine & native
    sunspec_may_reach = range(40_000, 45_000)
    assert not mine & set(sunspec_may_reach)


def test_every_field_of_the_map_is_made_and_nothing_is_made_in_vain():
    shown = {row.field.removeprefix(OWN) for row in GOODWE.rows if row.field.startswith(OWN)}
    constant = {row.field.removeprefix(OWN) for row in GOODWE.rows if row.constant is not None}
    strings = {f"pv{n}_power" for n in range(1, 5)} | {"pv_modes_43", "pv_modes_21"}
    assert shown - constant - {"nothing"} == MAKERS.keys() | strings | {s.name for s in SETTINGS.values()}


@pytest.mark.parametrize("kind", DeviceKind)
def test_it_is_for_inverters_and_a_fleet_that_is_as_one(kind):
    layout = GoodweFamily(WordOrder.ABCD).layout(Device(serial="X", kind=kind))
    assert (layout is not None) == (kind in {DeviceKind.INVERTER, DeviceKind.STORAGE, DeviceKind.FLEET})


async def test_another_device_has_no_such_registers(tmp_path):
    units = {INVERTER.serial: UNIT, METER.serial: 2}
    both = {"maps": ("native", "goodwe"), "devices": (INVERTER, METER)}
    async with serving(tmp_path, **both, units=units) as served, served.client() as client:
        assert await client.refused(read(35000, 33), unit=2) == 0x02
        assert await client.words(0, unit=2) == [1]
        assert len(await client.words(35000, 33, unit=UNIT)) == 33


async def test_the_high_word_always_comes_first(tmp_path):
    async with serving(tmp_path, maps=("goodwe",), word_order="cdab") as served, served.client() as client:
        await served.publish(energy_total=10_000)
        assert await client.words(35191, 2) == [1, 100_000 - 0x10000]


async def test_device_information_is_that_of_the_device(words, served):
    await served.publish(firmware="04029-10-S11", l2_voltage=230)
    found = await words(35000, 33)
    assert found[:3] == [2, 10_000, 1]
    text = struct.pack(">30H", *found[3:33])
    assert text[:16] == b"9010KETU000W0001"
    assert text[16:26] == b"GW10K-ET  "
    assert text[26:36] == bytes(10)
    assert text[36:48] == b"04029-10-S11"
    assert text[48:] == b" " * 12


@pytest.mark.parametrize(("rated", "shown"), [(None, 0), (32_767, 32_767)])
async def test_a_rated_power_that_is_unknown_is_0(tmp_path, rated, shown):
    device = msgspec.structs.replace(INVERTER, rated_power=rated, serial="ÜBER-0123456789ABCDEF")
    async with serving(tmp_path, maps=("goodwe",), devices=(device,)) as served, served.client() as client:
        assert await client.words(35001) == [shown]
        assert await client.raw(35003, 8) == b"?BER-0123456789A"


async def test_signs_are_those_of_the_inverter(served, signed):
    await served.publish(grid_power=700, battery_power=-1500, battery_current=-3.4, ac_power=-40_000)
    assert await signed("i", 35139) == -700, "importing"
    assert await signed("h", 35140) == -700
    assert await signed("h", 36008) == -700
    assert await signed("i", 36025) == -700
    assert await signed("i", 35182) == -1500, "charging"
    assert await signed("h", 35181) == -34
    assert await signed("i", 35137) == -32_767, "the library reads the low register alone, with a sign"
    assert await signed("H", 35184) == 3
    await served.publish(grid_power=-50_000, battery_power=10)
    assert await signed("i", 36025) == 50_000, "exporting"
    assert await signed("h", 36008) == 32_767
    assert await signed("H", 35184) == 2
    await served.publish(battery_power=0)
    assert await signed("H", 35184) == 1


async def test_without_a_meter_the_grid_power_is_that_of_the_inverter(served, signed):
    await served.publish(ac_power=1234)
    assert await signed("i", 35139) == 1234
    assert await signed("H", 36004) == 0


async def test_the_clock_is_utc(served, words):
    await served.publish(ac_power=1)
    time = served.bench.router.state(INVERTER.serial).time
    expected = [(time.year - 2000) << 8 | time.month, time.day << 8 | time.hour, time.minute << 8 | time.second]
    assert await words(35100, 3) == expected
    assert await words(45200, 3) == expected


async def test_backup_power_is_no_part_of_the_load(served, signed):
    await served.publish(load_power=3000, backup_power=400)
    assert (await signed("i", 35169), await signed("i", 35171)) == (400, 2600)
    await served.publish(load_power=300, backup_power=400)
    assert await signed("i", 35171) == 0


@pytest.mark.parametrize(("status", "grid", "state"), [("waiting", 0, 0), ("normal", 1, 1), ("fault", 2, 3)])
async def test_the_state_is_a_code(served, words, status, grid, state):
    await served.publish(status=status, fault_code=0x8000_0001)
    assert await words(35136) == [grid]
    assert await words(35187) == [state]
    assert await words(35189, 2) == [0x8000, 1]


async def test_what_is_not_known_reads_as_in_a_real_inverter_that_lacks_it(served, words):
    await served.publish(ac_power=0)
    running = await words(35100, 125)

    def at(address):
        return running[address - 35100]

    assert at(35103) == at(35104) == at(35105) == at(35106) == 0xFFFF, "a string"
    assert at(35119) == at(35120) == 0
    assert [at(n) for n in (35126, 35127)] == [0xFFFF, 0xFFFF], "a phase"
    assert [at(n) for n in (35128, 35129, 35130)] == [0, 0, 0], "what has a sign"
    assert [at(n) for n in (35174, 35175, 35176)] == [0x7FFF] * 3, "temperatures"
    assert [at(n) for n in (35180, 35181, 35182, 35183, 35184)] == [0xFFFF, 0, 0, 0, 0], "a battery"
    assert [at(n) for n in (35189, 35190)] == [0, 0], "faults"
    assert [at(n) for n in (35191, 35192, 35199)] == [0xFFFF] * 3, "totals"
    assert (await words(36000, 125))[4:9] == [0, 0, 0, 0, 0]
    assert (await words(37000, 24))[2:9] == [0, 0x7FFF, 0xFFFF, 0xFFFF, 0, 0xFFFF, 0xFFFF]


def strings(**values):
    state = DeviceState(device=INVERTER, quality=Quality.GOOD, time=None, source="", values=values)
    return [string_powers(Seen.of(state))[n] for n in range(1, 5)]


def test_the_strings_share_what_pv_brings_in():
    both = {"pv1_voltage": 400.0, "pv1_current": 5.0, "pv2_voltage": 200.0, "pv2_current": 5.0}
    assert strings(**both, pv_power=1001.0) == [667, 334, None, None]
    assert strings(**both) == [2000.0, 1000.0, None, None]
    assert strings(pv_power=1001.0) == [1001.0, None, None, None]
    assert strings(pv_power="1", pv1_voltage=True) == [None] * 4
    assert strings(**both | {"pv1_current": 0.0}, pv_power=900.0) == [0, 900, None, None]
    assert strings(pv1_voltage=400.0, pv1_current=0.0, pv_power=0.0) == [0.0, None, None, None]


async def test_a_string_says_what_it_does(served, words):
    await served.publish(pv1_voltage=400, pv1_current=1, pv2_voltage=80, pv2_current=0)
    assert await words(35119, 2) == [0x0000, 0x0102]


GATED = ((35100, 125), (35301, 61), (36000, 45), (36000, 58), (36000, 125), (37000, 24), (47906, 4))
OPEN = ((35000, 33), (45200, 3), (47000, 1), (47509, 4), (47547, 6))


async def test_measurements_that_are_stale_are_0b_and_the_rest_can_be_read(tmp_path):
    clock = FakeClock()
    async with serving(tmp_path, maps=("goodwe",), clock=clock) as served, served.client() as client:
        for block in GATED:
            assert await client.refused(read(*block)) == 0x0B
        await served.publish(battery_soc=50, export_limit=1)
        for block in (*GATED, *OPEN):
            await client.words(*block)
        clock.jump(181)
        served.bench.router.age()
        await until(lambda: served.bench.router.state(INVERTER.serial).quality is Quality.STALE)
        await served.publish(age=1000, export_limit=1)
        for block in GATED:
            assert await client.refused(read(*block)) == 0x0B
        for block in OPEN:
            await client.words(*block)


async def test_with_sentinels_stale_values_are_not_there(tmp_path):
    async with serving(tmp_path, maps=("goodwe",), stale="sentinel") as served, served.client() as client:
        await served.publish(age=1000, grid_power=5, battery_soc=50, active_power_limit=40)
        assert (await client.words(35139, 2)) == [0, 0]
        assert await client.words(37007) == [0xFFFF]
        assert await client.words(45484) == [400]


@pytest.mark.parametrize("address", [36124, 37077, 45252, 45484, 47010, 47570])
async def test_a_read_ends_with_its_block(served, address):
    async with served.client() as client:
        await served.publish(ac_power=1)
        await client.words(address, unit=UNIT)
        assert await client.refused(read(address, 2), unit=UNIT) == 0x02


@pytest.mark.parametrize(
    "address", [34999, 35050, 39000, 35262, 40330, 45127, 45356, 45482, 47500, 47589, 47760, 47915]
)
async def test_what_the_map_has_not_is_02(served, address):
    async with served.client() as client:
        await served.publish(ac_power=1)
        assert await client.refused(read(address, 1), unit=UNIT) == 0x02
        assert await client.refused(write_one(address, 1), unit=UNIT) == 0x02


async def test_all_maps_fit_on_one_unit(tmp_path):
    units = {INVERTER.serial: UNIT}
    maps = ("native", "sunspec", "goodwe")
    async with serving(tmp_path, maps=maps, units=units) as served, served.client() as client:
        assert await client.words(0, unit=UNIT) == [1]
        assert await client.text(40000, 2, unit=UNIT) == "SunS"
        assert await client.words(35000, unit=UNIT) == [2]
