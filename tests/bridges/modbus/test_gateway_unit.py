"""Units 0 and 255: the gateway itself."""

from datetime import timedelta

import pytest

import gateway
from gateway.bridges.modbus.gateway_unit import BRIDGE_ROWS, BRIDGE_SLOTS, BRIDGES, GATEWAY
from gateway.core.clock import Clock
from gateway.core.model import Alarm, BridgeStatus, Device, DeviceKind
from tests.bridges.modbus.client import read, write_many, write_one
from tests.bridges.modbus.conftest import serving
from tests.kit.bench import INVERTER, until
from tests.kit.clock import NOON
from tests.kit.mbpoll import mbpoll

COUNTS = ("devices", "good", "stale", "offline", "without_unit", "alarms", "up", "down", "connections", "alarms_active")


@pytest.fixture
def seconds():
    """Seconds that pass when the test says so."""

    class Hand(Clock):
        passed = 0

        def monotonic(self):
            return 1000.0 + self.passed

        def now(self):
            return NOON + timedelta(seconds=self.passed)

    return Hand()


async def counts(client, unit=255):
    return dict(zip(COUNTS, await client.words(60, len(COUNTS), unit=unit), strict=True))


@pytest.mark.parametrize("unit", [0, 255])
async def test_it_says_who_it_is(served, client, unit):
    assert await client.words(0, unit=unit) == [1]
    assert await client.text(6, 16, unit=unit) == gateway.__version__
    assert await client.text(22, 32, unit=unit) == "test-gateway"
    assert abs(await client.number("I", 4, unit=unit, function=4) - served.bench.clock.now().timestamp()) < 3


async def test_the_heartbeat_and_the_uptime_count_seconds(tmp_path, seconds):
    async with serving(tmp_path, clock=seconds) as served, served.client() as client:
        assert await client.words(1, 3, unit=255) == [0, 0, 0]
        seconds.passed += 1
        assert await client.words(1, 3, unit=255) == [1, 0, 1]
        seconds.passed = 65_534
        assert await client.words(1, 3, unit=255) == [65_534, 0, 65_534]
        seconds.passed = 65_535
        assert await client.words(1, 3, unit=0) == [0, 0, 65_535]


async def test_it_counts_devices_by_quality_and_those_with_a_fault(tmp_path, seconds):
    devices = [Device(serial=f"SN{n}", kind=DeviceKind.INVERTER) for n in range(4)]
    async with serving(tmp_path, clock=seconds, devices=devices) as served, served.client() as client:
        await served.publish("SN0", status="normal")
        await served.publish("SN1", status="fault")
        await served.publish("SN2", status="offline")
        seconds.passed += 1
        assert await counts(client) == {
            "devices": 4, "good": 2, "stale": 1, "offline": 1, "without_unit": 0, "alarms": 1,
            "up": 1, "down": 0, "connections": 1, "alarms_active": 0,
        }  # fmt: skip
        served.bench.router.withdraw("scripted", "SN1")
        assert (await counts(client))["alarms"] == 1  # counted once a second
        seconds.passed += 1
        assert (await counts(client))["alarms"] == 0


async def test_it_counts_active_alarms(tmp_path, seconds):
    async with serving(tmp_path, clock=seconds) as served, served.client() as client:
        alarms = [Alarm(serial=INVERTER.serial, id=str(n), raised=NOON) for n in range(3)]
        served.bench.router.alarms("scripted", INVERTER.serial, alarms)
        seconds.passed += 1
        assert (await counts(client))["alarms_active"] == 3


def down(name, clock, *, up=False):
    return BridgeStatus(name=name, type="x", up=up, since=clock.now())


async def test_it_shows_bridges_by_name(tmp_path, seconds):
    async with serving(tmp_path, clock=seconds) as served, served.client() as client:
        served.bench.router.bridge_status(down("cloud", seconds))
        served.bench.router.bridge_status(down("zigbee", seconds, up=True))
        seconds.passed += 1

        async def shown(n):
            address = BRIDGES + n * BRIDGE_ROWS
            return await client.text(address + 1, 16, unit=0), (await client.words(address, unit=0))[0]

        assert [await shown(n) for n in range(4)] == [("cloud", 0), ("modbus", 1), ("zigbee", 1), ("", 0xFFFF)]
        assert [(await counts(client))[word] for word in ("up", "down")] == [2, 1]
        for n in range(BRIDGE_SLOTS + 3):
            served.bench.router.bridge_status(down(f"many{n:02}", seconds))
        seconds.passed += 1
        assert (await shown(BRIDGE_SLOTS - 1))[0].startswith("many")
        assert (await counts(client))["down"] == BRIDGE_SLOTS + 4


async def test_devices_without_a_unit_are_counted(tmp_path, seconds):
    devices = [Device(serial=f"SN{n:03}", kind=DeviceKind.METER) for n in range(249)]
    async with serving(tmp_path, clock=seconds, devices=devices, ports=1) as served, served.client() as client:
        await until(lambda: served.bridge.left_out)
        seconds.passed += 1
        assert (await counts(client))["without_unit"] == 2


@pytest.mark.parametrize("unit", [0, 255])
async def test_nothing_is_writable(served, client, unit):
    assert await client.refused(write_one(1, 5), unit=unit) == 0x02
    assert await client.refused(write_many(2, bytes(4)), unit=unit) == 0x02
    assert await client.refused(write_one(5801, 500), unit=unit) == 0x02
    assert not served.bench.controller.sent


async def test_it_is_no_device(served, client):
    assert served.bridge.units == {INVERTER.serial: 1}
    for address, count in ((80, 1), (999, 1), (11_000, 1), (BRIDGES + BRIDGE_ROWS * BRIDGE_SLOTS, 1)):
        assert await client.refused(read(address, count), unit=0) == 0x02


async def test_it_can_be_read_across(client):
    for block in GATEWAY.blocks:
        for start in range(block.start, block.end, 125):
            await client.words(start, min(125, block.end - start), unit=255)


async def test_the_low_word_comes_first_where_so_configured(tmp_path, seconds):
    async with serving(tmp_path, clock=seconds, word_order="cdab") as served, served.client() as client:
        seconds.passed = 5
        assert await client.words(2, 2, unit=0) == [5, 0]


async def test_mbpoll_reads_it(served):
    polled = await mbpoll(served.port, 60, unit=255, table="4", count=2)
    assert (polled.values[0], polled.error) == (1, "")
