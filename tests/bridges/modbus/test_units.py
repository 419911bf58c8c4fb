"""A device gets a unit once and keeps it."""

import json

import pytest
import structlog
from pydantic import ValidationError
from structlog.testing import capture_logs

from gateway.bridges.modbus import ModbusBridge, ModbusSettings
from gateway.bridges.modbus.units import Place, UnitBook, UnitsError, adopt, units_path
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
    return [place and place.unit for place in map(book.get, serials)]


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


async def test_a_pin_on_the_unit_of_another_device_costs_that_one_and_no_other(path):
    write(path, {"a": 5, "c": 6})
    pinned = book(path, b=5)
    assert units_of(pinned, "abc") == [None, 5, 6]
    (why,) = pinned.conflicts
    assert "unit 5 is pinned to b" in why
    assert "--free a" in why
    assert await pinned.assign(["a", "d"]) == ["a"]
    assert units_of(pinned, "bcd") == [5, 6, 1]
    assert units_of(book(path), "abcd") == [5, None, 6, 1], "without the pin it has its unit as before"
    pinned.free("a")
    assert pinned.conflicts == []
    assert units_of(book(path, b=5), "abcd") == [None, 5, 6, 1]


def test_a_unit_moves_to_the_inverter_it_was_swapped_for(path):
    write(path, {"a": 5, "b": 6, "c": 7})
    moved = book(path)
    moved.move("a", "b")
    assert units_of(moved, "abc") == units_of(book(path), "abc") == [None, 5, 7]


def test_two_pins_on_one_unit_are_an_error_of_the_configuration():
    with pytest.raises(ValidationError, match="5 is given to both a and b"):
        ModbusSettings(units={"a": 5, "b": 5})
    for unit in (0, 248):
        with pytest.raises(ValidationError):
            ModbusSettings(units={"a": unit})


DAMAGES = pytest.mark.parametrize(
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


@DAMAGES
def test_of_a_damaged_file_the_other_copy_serves_and_it_is_told_once(path, damage):
    write(path, {"a": 5, "b": 9})
    book(path).free("b")
    path.write_bytes(damage)
    with capture_logs() as logs:
        for _ in range(2):
            served = UnitBook(path, {})
            assert served.restore(structlog.get_logger("test")) == ""
            assert units_of(served, "ab") == [5, None]
    assert [line["event"] for line in logs] == ["a file was damaged; what it held before serves"]
    assert path.with_name(f"{path.name}.damaged").read_bytes() == damage


@DAMAGES
def test_where_both_copies_are_damaged_who_lists_units_says_so_and_who_serves_them_begins_anew(path, damage):
    path.write_bytes(damage)
    with pytest.raises(UnitsError, match="control closed until") as error:
        book(path)
    assert str(path) in str(error.value)
    assert path.read_bytes() == damage, "left alone"
    assert str(path) in UnitBook(path, {}).restore(structlog.get_logger("test"))
    assert path.with_name(f"{path.name}.damaged").read_bytes() == damage


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


async def test_where_all_copies_are_damaged_the_bridge_serves_and_control_is_halted(tmp_path, path):
    path.write_bytes(b"oops")
    async with Bench(tmp_path) as bench:
        bench.announce()
        runner = bench.run(ModbusBridge, ModbusSettings(port=0), "modbus")
        await until(lambda: runner.bridge.units == {INVERTER.serial: 1})
        assert "units" in bench.policy.halting.current.reason
    assert path.with_name(f"{path.name}.damaged").read_bytes() == b"oops"


@pytest.mark.parametrize("noted", [True, False])
async def test_where_all_copies_are_gone_control_is_halted_and_of_a_new_bridge_it_is_not(tmp_path, path, noted):
    write(path, {INVERTER.serial: 7})  # by a gateway that made no note yet
    halted = []
    for name in ("modbus", "modbus", "new"):
        async with Bench(tmp_path) as bench:
            bench.announce()
            runner = bench.run(ModbusBridge, ModbusSettings(port=0), name)
            await until(lambda bridge=runner.bridge: bridge.units, f"{name} serves")
            halted.append(bench.policy.halting.current)
        if len(halted) == 1:
            path.unlink()
            path.with_name(f"{path.name}.old").unlink(missing_ok=True)
            if not noted:
                path.with_name("modbus-units.given").unlink()
        else:
            (tmp_path / "halt.json").unlink(missing_ok=True)
            (tmp_path / "journal.sqlite").unlink()
            (tmp_path / "journal.sqlite.head").unlink()
    assert halted[0] is halted[2] is None
    assert ("is gone" in halted[1].reason) if noted else halted[1] is None


async def test_where_the_disk_reads_no_copy_the_bridge_serves_and_control_is_halted(tmp_path, path):
    path.mkdir()
    async with Bench(tmp_path) as bench:
        bench.announce()
        runner = bench.run(ModbusBridge, ModbusSettings(port=0), "modbus")
        await until(lambda: runner.bridge.units == {INVERTER.serial: 1})
        assert "units" in bench.policy.halting.current.reason


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


async def test_a_renamed_bridge_has_the_units_it_had_under_its_old_name_and_says_so(tmp_path):
    write(units_path(tmp_path, "scada"), {INVERTER.serial: 7})
    with capture_logs() as logs:
        async with Bench(tmp_path) as bench:
            bench.announce()
            runner = bench.run(ModbusBridge, ModbusSettings(port=0), "modbus")
            await until(lambda: runner.bridge.units == {INVERTER.serial: 7})
    assert [line["bridge_before"] for line in logs if "bridge_before" in line] == ["scada"]
    assert not units_path(tmp_path, "scada").exists()


@pytest.mark.parametrize(("known", "told"), [({"scada", "old"}, None), (set(), ["old", "scada"])])
def test_the_units_of_a_bridge_that_is_there_or_of_one_of_several_are_not_taken_over(tmp_path, path, known, told):
    for name in ("scada", "old"):
        write(units_path(tmp_path, name), {"a": 7})
    with capture_logs() as logs:
        adopt(path, known, structlog.get_logger("test"))
    assert not path.exists()
    assert [line.get("of") for line in logs] == ([told] if told else [])
