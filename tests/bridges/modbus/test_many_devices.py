"""B9, K12: more devices than a port has units, and a first start with hundreds of them."""

import asyncio
import json
import socket

import pytest

from gateway.bridges.modbus import ModbusBridge, ModbusSettings
from gateway.bridges.modbus.bridge import NOTED_PER_TURN
from gateway.bridges.modbus.units import Place, UnitBook, units_path
from gateway.core import files
from gateway.core.findings import FindingCode
from gateway.core.mailbox import Updates
from gateway.core.model import Device, DeviceKind
from tests.bridges.modbus.client import RawClient, read
from tests.bridges.modbus.conftest import serving
from tests.kit.bench import Bench, until
from tests.kit.ports import free_ports


def meters(count, first=0):
    return [Device(serial=f"SN{n:03}", kind=DeviceKind.METER) for n in range(first, first + count)]


async def serial_at(port, unit):
    client = await RawClient.connect(port)
    try:
        return await client.text(4, 16, unit=unit)
    finally:
        await client.close()


async def test_there_are_as_many_ports_as_the_devices_need(tmp_path):
    port = free_ports(3)
    async with serving(tmp_path, devices=meters(240), port=port) as served:
        await until(lambda: len(served.bridge.units) == 240)
        assert [listener.port for listener in served.bridge.listeners] == [port]
        for device in meters(281, 240):
            served.bench.announce(device)
        await until(lambda: len(served.bridge.units) == 521)
        assert [listener.port for listener in served.bridge.listeners] == [port, port + 1, port + 2]
        assert (await serial_at(port + 1, 1), await serial_at(port + 2, 27)) == ("SN247", "SN520")
        (status,) = served.bench.router.bridges()
        assert (status.up, status.detail, status.findings) == (True, "", ())
    # After a restart they are there before the first device is.
    async with serving(tmp_path, devices=(), port=port) as served:
        assert len(served.bridge.listeners) == 3
        client = await RawClient.connect(port + 2)
        assert await client.refused(read(0, 1), unit=27) == 0x0A
        assert len(await client.words(0, 80, unit=255)) == 80
        await client.close()


async def test_reads_are_served_while_hundreds_of_devices_come_at_once(tmp_path):
    async with serving(tmp_path, devices=()) as served:
        turns = 0

        async def others():
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        for device in meters(1000):
            served.bench.announce(device)
        updates = Updates(states={state.device.serial: state for state in served.bench.router.states()})
        other = asyncio.create_task(others())
        noted = served.bridge._plants.note
        at: list[int] = []
        served.bridge._plants.note = lambda state: at.append(turns) or noted(state)
        await served.bridge.deliver(updates)
        other.cancel()
        # Not only while they are encoded, which is later.
        assert len(at) >= 1000
        assert len(set(at)) >= 1000 / NOTED_PER_TURN - 1


async def test_reads_are_served_while_hundreds_of_devices_go_at_once(tmp_path):
    """A joined gateway gives half of its devices up when another comes: of 25,000 it was 0.3 s of CPU in one turn."""
    async with serving(tmp_path, devices=()) as served:
        turns, forget = [0], served.bridge._plants.forget

        def counted(serial):
            if not turns[-1]:
                asyncio.get_running_loop().call_soon(turns.append, 0)
            turns[-1] += 1
            return forget(serial)

        served.bridge._plants.forget = counted
        await served.bridge.deliver(Updates(removed={device.serial for device in meters(1000)}))
        assert sum(turns) == 1000
        assert max(turns) <= NOTED_PER_TURN


async def test_to_give_units_costs_each_device_the_same(tmp_path):
    """That some are left out is looked up, not searched for: for thousands this was seconds."""
    async with serving(tmp_path, devices=meters(20), ports=1) as served:
        await until(lambda: len(served.bridge.units) == 20)
        walked = 0

        class LeftOut(list):
            def __iter__(self):
                nonlocal walked
                walked += 1
                return super().__iter__()

        assign = served.bridge._units.assign

        async def assigning(serials):
            return LeftOut(await assign(serials))

        served.bridge._units.assign = assigning
        for device in meters(300, 20):
            served.bench.announce(device)
        await until(lambda: len(served.bridge.left_out) == 73)
        assert walked <= 10


async def test_how_many_ports_it_takes_is_found_by_one_look_at_the_places(tmp_path):
    looks = 0

    class Places(dict):
        def values(self):
            nonlocal looks
            looks += 1
            return super().values()

    book = UnitBook(tmp_path / "units.json", {}, 100)
    await book.assign(f"SN{n}" for n in range(100 * 247 - 1))
    book._places = Places(book._places)
    assert book.ports_for(["new"]) == 100
    assert book.ports_for(["new", "newer"]) == 101
    assert book.ports_for(["SN247", *(f"new-{n}" for n in range(248))]) == 101
    assert book.ports_for(f"new-{n}" for n in range(249)) == 102
    assert looks == 4


async def test_devices_without_a_unit_are_told_once_with_the_setting_that_helps(tmp_path, capsys):
    async with serving(tmp_path, devices=meters(200), ports=1) as served:
        for first in range(200, 521, 30):
            for device in meters(min(30, 521 - first), first):
                served.bench.announce(device)
            await asyncio.sleep(0.01)
        await until(lambda: len(served.bridge.left_out) == 274)
        (status,) = served.bench.router.bridges()
        (finding,) = status.findings
        assert status.up
        assert (finding.code, finding.is_trouble) == (FindingCode.DEVICES_WITHOUT_UNIT, True)
        assert "274 devices" in finding.text
        assert "`ports` (bridges.modbus.ports)" in finding.remedy
        log = "".join(line for line in capsys.readouterr().out.splitlines(keepends=True) if line.startswith("[warn"))
        assert log.count("devices have no unit") == 1
        assert log.count("SN5") == 0
        for device in meters(521 - 247, 247):
            served.bench.router.withdraw("scripted", device.serial)
        await until(lambda: not served.bench.router.bridges()[0].findings)
        assert "settled" in capsys.readouterr().out


async def test_a_port_that_is_taken_is_told_and_the_rest_is_served(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.bridges.modbus.bridge.PORT_RETRY", 0.1)
    port = free_ports(2)
    with socket.create_server(("127.0.0.1", port + 1)):
        async with Bench(tmp_path) as bench:
            for device in meters(250):
                bench.announce(device)
            runner = bench.run(ModbusBridge, ModbusSettings(port=port), "scada")
            await until(lambda: len(runner.bridge.units) == 247)
            (status,) = bench.router.bridges()
            assert f"3 devices have no unit: port {port + 1} on 127.0.0.1 is in use" in status.detail
            assert "keep the ports behind the first one free" in status.findings[0].remedy
            bench.announce(meters(1)[0])
    async with serving(tmp_path, devices=meters(250), port=port) as served:
        await until(lambda: len(served.bridge.units) == 250)


def test_ports_that_are_needed(tmp_path):
    path = units_path(tmp_path, "modbus")
    book = UnitBook(path, {})
    assert book.ports_for([]) == 1
    assert book.ports_for([f"s{n}" for n in range(247)]) == 1
    assert book.ports_for([f"s{n}" for n in range(248)]) == 2
    book = UnitBook(path, {"pinned": Place(2, 1), "other": Place(0, 1)})
    assert book.ports_for(book.load()) == 3
    assert book.ports_for([f"s{n}" for n in range(247)]) == 2


@pytest.mark.virtual
async def test_a_first_start_writes_the_units_file_a_few_times(tmp_path, monkeypatch):
    written = []

    def replace(path, data, *more, **options):
        if path.name == "modbus-units.json":
            written.append(len(json.loads(data)["units"]))
        return kept(path, data, *more, **options)

    kept = files.replace
    monkeypatch.setattr(files, "replace", replace)
    async with serving(tmp_path, devices=meters(1)) as served:
        for device in meters(499, 1):
            served.bench.announce(device)
            await asyncio.sleep(0.05)
        await until(lambda: len(served.bridge.units) == 500)
    assert written[0] == 1, "the first one does not wait"
    assert written[-1] == 500
    assert len(written) <= 8
