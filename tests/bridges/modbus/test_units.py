"""A device gets a unit once and keeps it."""

import json

import pytest
from pydantic import ValidationError

from gateway.bridges.modbus import ModbusBridge, ModbusSettings
from gateway.bridges.modbus.units import Place, UnitBook, UnitsError, units_path
from tests.bridges.modbus.client import read
from tests.bridges.modbus.conftest import serving
from tests.kit.bench import INVERTER, Bench, until


@pytest.fixture
def path(tmp_path):
    return units_path(tmp_path, "modbus")


def write(path, units, version=1):
    path.write_text(json.dumps({"version": version, "units": units}))


def book(path, *, ports=1, **pins):
    found = UnitBook(path, {serial: Place(0, unit) for serial, unit in pins.items()}, ports)
    found.load()
    return found


def units_of(book, serials):
    return [book.get(serial).unit for serial in serials]


async def test_units_are_given_in_turn_and_kept_over_restarts(path):
    assert await book(path).assign(["a", "b"]) == []
    again = book(path)
    await again.assign(["c", "b", "a"])
    assert units_of(again, "abc") == [1, 2, 3]
    assert json.loads(path.read_text()) == {"version": 1, "units": {"a": 1, "b": 2, "c": 3}}
    assert not list(path.parent.glob("*.new"))


async def test_a_pin_wins_and_is_kept_once_it_is_removed(path):
    write(path, {"a": 1})
    pinned = book(path, a=9, b=1)
    await pinned.assign(["c"])
    assert units_of(pinned, "abc") == [9, 1, 2]
    assert units_of(book(path), "abc") == [9, 1, 2]


def test_a_pin_on_the_unit_of_another_device_is_an_error(path):
    write(path, {"a": 5})
    before = path.read_bytes()
    with pytest.raises(UnitsError, match=r"unit 5 is pinned to b .* but a has had it .* pin a to another unit"):
        book(path, b=5)
    assert path.read_bytes() == before


def test_two_pins_on_one_unit_are_an_error_of_the_configuration():
    with pytest.raises(ValidationError, match="5 is given to both a and b"):
        ModbusSettings(units={"a": 5, "b": 5})
    for unit in (0, 248):
        with pytest.raises(ValidationError):
            ModbusSettings(units={"a": unit})


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\0\0\0",
        b'{"version":1,"units":{"a":1',
        b'{"version":2,"units":{}}',
        b'{"version":1,"units":{"a":0}}',
        b'{"version":1,"units":{"a":"1"}}',
        b'{"version":1,"units":{"a":7,"b":7}}',
        b"[]",
    ],
)
def test_a_damaged_file_is_an_error_that_helps_and_is_left_alone(path, damage):
    path.write_bytes(damage)
    with pytest.raises(UnitsError, match="put back a copy of it, or move it away") as error:
        book(path)
    assert str(path) in str(error.value)
    assert path.read_bytes() == damage


async def test_no_more_than_247_devices_get_one(path):
    many = book(path, z=100)
    assert await many.assign(f"s{n}" for n in range(250)) == [f"s{n}" for n in range(246, 250)]
    assert many.get("s246") is None
    assert len({many.get(f"s{n}") for n in range(246)} | {many.get("z")}) == 247


async def test_what_can_not_be_stored_is_not_given(path):
    path.parent.joinpath("modbus-units.json.new").mkdir()
    blocked = book(path)
    with pytest.raises(OSError, match="units"):
        await blocked.assign(["a"])
    assert blocked.get("a") is None


async def test_a_restarted_gateway_serves_the_same_units(tmp_path):
    async with serving(tmp_path, devices=[INVERTER]) as served:
        served.bench.announce(serial="SECOND")
        await until(lambda: len(served.bridge.units) == 2)
    async with Bench(tmp_path) as bench:
        bench.announce(serial="SECOND")
        bench.announce(serial="THIRD")
        bench.announce()
        runner = bench.run(ModbusBridge, ModbusSettings(port=0), "modbus")
        await until(lambda: len(runner.bridge.units) == 3)
        assert runner.bridge.units == {INVERTER.serial: 1, "SECOND": 2, "THIRD": 3}


async def test_a_damaged_file_keeps_the_bridge_down_and_says_so(tmp_path, path):
    path.write_bytes(b"oops")
    async with Bench(tmp_path) as bench:
        bench.run(ModbusBridge, ModbusSettings(port=0), "modbus")
        (status,) = await until(bench.router.bridges)
        assert not status.up
        assert "move it away" in status.detail
    assert path.read_bytes() == b"oops"


async def test_devices_beyond_247_are_counted_and_shown(tmp_path):
    devices = [type(INVERTER)(serial=f"SN{n:03}", kind=INVERTER.kind) for n in range(250)]
    async with serving(tmp_path, devices=devices, units={"SN249": 1}, ports=1) as served, served.client() as client:
        await until(lambda: served.bridge.left_out)
        assert served.bridge.left_out == {"SN246", "SN247", "SN248"}
        assert await client.text(4, 16, unit=1) == "SN249"
        assert await client.refused(read(0, 1), unit=248) == 0x0A
        (status,) = served.bench.router.bridges()
        assert status.up
        assert "3 devices have no unit" in status.detail
        served.bench.router.withdraw("scripted", "SN247")
        await until(lambda: len(served.bridge.left_out) == 2)
        for serial in ("SN246", "SN248"):
            served.bench.router.withdraw("scripted", serial)
        await until(lambda: not served.bridge.left_out)
        assert served.bench.router.bridges()[0].detail == ""


async def test_new_devices_wait_while_units_can_not_be_stored(tmp_path):
    async with serving(tmp_path) as served, served.client() as client:
        obstacle = tmp_path / "modbus-units.json.new"
        obstacle.mkdir()
        served.bench.announce(serial="SECOND")
        await until(lambda: served.bridge.left_out == {"SECOND"})
        await served.publish(ac_power=7)
        assert await client.number("i", 1020) == 7
        assert "can't be written" in served.bench.router.bridges()[0].detail
        obstacle.rmdir()
        await served.publish(ac_power=8)
        await until(lambda: "SECOND" in served.bridge.units)
        assert await client.text(4, 16, unit=2) == "SECOND"
        assert served.bench.router.bridges()[0].detail == ""
