"""B6: units 0 and 255 say which device is where."""

import struct
from datetime import timedelta

import pytest

from gateway.core.clock import Clock
from gateway.core.model import Device, DeviceKind
from tests.bridges.modbus.client import RawClient, write_one
from tests.bridges.modbus.conftest import serving
from tests.kit.bench import INVERTER, until
from tests.kit.clock import NOON
from tests.kit.mbpoll import mbpoll

PLANT = Device(serial="0f1c5a3e-8d2b-4c6a-9e7f-1a2b3c4d5e6f", kind=DeviceKind.PLANT, name="Südhang", plant="")


class Hand(Clock):
    """Seconds that pass when the test says so."""

    passed = 0

    def monotonic(self):
        return 1000.0 + self.passed

    def now(self):
        return NOON + timedelta(seconds=self.passed)


def entry(raw, at=0):
    port, unit, kind, quality, plant_port, plant_unit = struct.unpack_from(">6H", raw, 2 * at)
    serial, name = raw[2 * at + 12 : 2 * at + 48], raw[2 * at + 48 : 2 * at + 80]
    return port, unit, kind, quality, plant_port, plant_unit, *(t.rstrip(b"\0").decode() for t in (serial, name))


@pytest.mark.parametrize("own", [0, 255])
async def test_an_entry_is_where_the_unit_says(tmp_path, own):
    clock = Hand()
    devices = (PLANT, Device(serial="INV", kind=DeviceKind.INVERTER, name="One", plant=PLANT.serial))
    async with serving(tmp_path, devices=devices, units={"INV": 247, PLANT.serial: 2}, clock=clock) as served:
        await served.publish("INV", ac_power=1)
        port = served.port
        async with served.client() as client:
            head = await client.words(1000, 5, unit=own)
            assert head == [2, 247, port, port, 1]
            whole = await client.raw(1010, 120, unit=own)
            assert entry(whole) == (0xFFFF, 0, 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF, "", "")
            assert entry(whole, 40) == (port, 2, 8, 1, port, 2, PLANT.serial, "Südhang")
            last = await client.raw(1010 + 40 * 246, 40, unit=own)
            assert entry(last) == (port, 247, 1, 0, port, 2, "INV", "One")
            changes = await client.number("I", 1006, unit=own)
            clock.passed += 3
            await served.publish("INV", ac_power=2)
            assert await client.number("I", 1006, unit=own) == changes
            served.bench.router.withdraw("scripted", PLANT.serial)
            await until(lambda: len(served.bridge.units) == 1)
            clock.passed += 1
            assert await client.number("I", 1006, unit=own) == changes + 1
            assert await client.words(1000, 2, unit=own) == [1, 247]
            assert entry(await client.raw(1050, 40, unit=own))[1] == 0
            assert entry(await client.raw(1010 + 40 * 246, 40, unit=own))[4:6] == (0xFFFF, 0xFFFF)
            assert await client.refused(write_one(1011, 1), unit=own) == 0x02


async def test_each_port_lists_its_own_units_and_a_plant_may_be_on_another(tmp_path):
    meters = [Device(serial=f"SN{n:03}", kind=DeviceKind.METER, plant=PLANT.serial) for n in range(250)]
    async with serving(tmp_path, devices=(PLANT, *meters), units={PLANT.serial: 1}) as served:
        await until(lambda: len(served.bridge.units) == 251)
        first, second = (listener.port for listener in served.bridge.listeners)
        client = await RawClient.connect(second)
        try:
            assert await client.words(1000, 5, unit=0) == [4, 4, second, first, 2]
            assert entry(await client.raw(1010, 40, unit=0)) == (second, 1, 4, 1, first, 1, "SN246", "")
        finally:
            await client.close()


async def test_mbpoll_reads_it(served):
    polled = await mbpoll(served.port, 1001, unit=255, table="4", count=1)
    assert polled.values == [1]
    assert served.bridge.units == {INVERTER.serial: 1}
