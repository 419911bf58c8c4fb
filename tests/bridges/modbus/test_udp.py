"""Modbus over UDP, with the PyPI library `goodwe` in its default way, evcc's requests, and garbage."""

import asyncio
import random
from contextlib import asynccontextmanager

import goodwe
import pytest
from goodwe.exceptions import RequestRejectedException
from goodwe.protocol import Aa55ProtocolCommand, UdpInverterProtocol
from pydantic import ValidationError
from pymodbus.framer.rtu import FramerRTU

from gateway.bridges.modbus import ModbusSettings
from gateway.core.clock import Clock
from gateway.core.model import Device, DeviceKind
from tests.bridges.modbus.conftest import serving
from tests.bridges.modbus.test_goodwe_client import MEASURED
from tests.bridges.modbus.test_goodwe_writes import ABLE
from tests.bridges.modbus.test_writes import ALLOW_ALL
from tests.kit.bench import INVERTER, until
from tests.kit.clock import NOON

ME = ["127.0.0.0/8"]
WRITERS = {"allow": ME, "read_only": False, "role": "ha"}


@asynccontextmanager
async def connected(monkeypatch, port, **how):
    """Connect as by default, but for the port: the library speaks UDP where it is 8899, and TCP elsewhere."""
    monkeypatch.setattr("goodwe.GOODWE_UDP_PORT", port)
    monkeypatch.setattr("goodwe.inverter.GOODWE_UDP_PORT", port)
    inverter = await goodwe.connect("127.0.0.1", port, timeout=20, retries=3, **how)
    try:
        yield inverter
    finally:
        await inverter._protocol.close()


@asynccontextmanager
async def over_udp(tmp_path, *doors, devices=(ABLE,), **settings):
    doors = [{"port": 0} | door for door in doors or ({},)]
    given = {"control": ALLOW_ALL, "devices": devices, "maps": ("native", "goodwe"), "udp": doors} | settings
    async with serving(tmp_path, **given) as served:
        await served.publish(devices[0].serial, **MEASURED)
        yield served, served.bridge.udp_ports


class Asker(asyncio.DatagramProtocol):
    """Sends what it is told, and keeps what comes."""

    def __init__(self):
        self.came = asyncio.Queue()

    def datagram_received(self, data, addr):
        self.came.put_nowait(data)

    @classmethod
    @asynccontextmanager
    async def to(cls, port):
        loop = asyncio.get_running_loop()
        transport, asker = await loop.create_datagram_endpoint(cls, remote_addr=("127.0.0.1", port))
        asker.send = transport.sendto
        try:
            yield asker
        finally:
            transport.close()

    async def ask(self, text):
        body = bytes.fromhex(text)
        self.send(body + FramerRTU.compute_CRC(body).to_bytes(2, "big"))
        return await asyncio.wait_for(self.came.get(), 120)


async def test_the_library_finds_it_by_its_default_way(tmp_path, monkeypatch):
    async with over_udp(tmp_path) as (_, (port,)), connected(monkeypatch, port) as inverter:
        assert isinstance(inverter._protocol, UdpInverterProtocol)
        assert type(inverter).__name__ == "ET"
        assert (inverter.serial_number, inverter.model_name) == (INVERTER.serial, "GW10K-ET")
        found = await inverter.read_runtime_data()
        assert (found["ppv"], found["battery_soc"], found["e_total"]) == (5001, 67, 12_345.6)
        with pytest.raises(RequestRejectedException):
            await inverter.write_setting("grid_export_limit", 100)
        assert not (await inverter.read_settings_data())["work_mode"]


async def test_the_first_question_of_discover_is_answered(tmp_path):
    async with over_udp(tmp_path) as (served, (port,)):
        asks = UdpInverterProtocol("127.0.0.1", port, 0xF7, 60, 1)
        answer = (await Aa55ProtocolCommand("010200", "0182").execute(asks)).response_data()
        assert answer[5:15].decode().rstrip() == "GW10K-ET"
        assert answer[31:47].decode() == INVERTER.serial
        assert any(tag in INVERTER.serial for tag in goodwe.ET_MODEL_TAGS)
        served.bench.router.withdraw("scripted", INVERTER.serial)
        await until(lambda: not served.bridge.units)
        async with Asker.to(port) as asker:
            asker.send(bytes.fromhex("aa55c07f0102000241"))
            assert asker.came.empty()


async def test_settings_are_written_as_over_tcp(tmp_path, monkeypatch):
    async with over_udp(tmp_path, WRITERS) as (served, (port,)), connected(monkeypatch, port, family="ET") as inverter:
        await inverter.write_setting("grid_export_limit", 1234)
        await inverter.write_setting("grid_export", 1)
        await until(lambda: served.bench.asked)
        command = served.bench.asked[-1]
        assert {(each.setpoint, each.value) for each in served.bench.asked} == {("export_limit", 1234)}
        assert str(command.origin).startswith("modbus/ha:127.0.0.1:")
        assert await inverter.read_setting("grid_export_limit") == 1234
        with pytest.raises(RequestRejectedException, match="ILLEGAL DATA VALUE"):
            await inverter.write_setting("work_mode", 77)
        assert {each.setpoint for each in served.bench.asked} == {"export_limit"}


async def test_evcc_asks_as_it_does(tmp_path):
    """evcc meter/goodwe-wifi.go (address 7F, the model first), and meter/goodwe/server.go before it (F7)."""
    async with over_udp(tmp_path) as (_, (port,)), Asker.to(port) as asker:
        model = await asker.ask("7f039ced0008")
        assert (model[:2], model[3], model[4]) == (b"\xaa\x55", 3, 16)
        assert b"ET" in model[5:21]
        running = await asker.ask("7f03891c007d")
        payload = running[5:-2]
        assert len(payload) == 250
        assert int.from_bytes(payload[74:78], "big", signed=True) == MEASURED["ac_power"]
        assert int.from_bytes(payload[164:168], "big", signed=True) == MEASURED["battery_power"]
        assert int.from_bytes(payload[182:186], "big") / 10 == pytest.approx(MEASURED["energy_total"], abs=0.05)
        battery = await asker.ask("7f0390880018")
        assert int.from_bytes(battery[19:21], "big") == MEASURED["battery_soc"]
        old = await asker.ask("f7039088000d")
        assert (old[4], old[20]) == (26, MEASURED["battery_soc"])


async def test_each_inverter_has_a_port_of_its_own_or_is_asked_by_its_unit(tmp_path):
    other = Device(serial="OTHER00000000001", kind=DeviceKind.STORAGE, model="GW5K-ET")
    meter = Device(serial="METER", kind=DeviceKind.METER)
    devices = (ABLE, other, meter)
    async with over_udp(tmp_path, {}, {"device": other.serial}, {"device": "NOBODY"}, devices=devices) as (
        served,
        ports,
    ):
        numbers = served.bridge.units
        serials = []
        for port in ports[:2]:
            async with Asker.to(port) as asker:
                serials.append((await asker.ask("f70388bb0008"))[5:-2].rstrip(b"\0 ").decode())
                by_unit = await asker.ask(f"{numbers[other.serial]:02x}0388bb0008")
                assert by_unit[2] == numbers[other.serial]
                assert by_unit[5:-2].rstrip(b"\0 ").decode() == other.serial
        assert serials == [ABLE.serial, other.serial]
        # A meter has no such map, nobody's port has no inverter: silence, and the next one is answered.
        async with Asker.to(ports[2]) as nobody, Asker.to(ports[0]) as asker:
            for quiet, address in (
                (nobody, "f7"),
                (asker, f"{numbers[meter.serial]:02x}"),
                (asker, "00"),
                (asker, "ff"),
            ):
                body = bytes.fromhex(f"{address}0388bb0008")
                quiet.send(body + FramerRTU.compute_CRC(body).to_bytes(2, "big"))
            assert (await asker.ask("f703000000 01".replace(" ", "")))[3:5] == b"\x83\x02"
            assert nobody.came.empty()


async def test_garbage_is_passed_over_and_one_source_can_not_ask_too_much(tmp_path):
    dice = random.Random(1)

    class Still(Clock):
        def monotonic(self):
            return 1000.0

        def now(self):
            return NOON

    async with over_udp(tmp_path, WRITERS, clock=Still()) as (served, (port,)), Asker.to(port) as asker:
        for _ in range(30):
            asker.send(dice.randbytes(dice.randrange(0, 600)))
        for text in (
            "f703",
            "f7",
            "f703891c",
            "f70688b8",
            "f71088b8000a14",
            "f72b0e0100",
            "f710b7a8000102",
            "f70600000001",
        ):
            body = bytes.fromhex(text)
            asker.send(body + FramerRTU.compute_CRC(body).to_bytes(2, "big"))
        await until(lambda: served.bridge._udp[0].counts.messages >= 6)
        assert not served.bench.asked
        for n in range(700):
            asker.send(bytes.fromhex("f703891c007d7ae7"))
            if n % 20 == 0:
                await until(lambda n=n: served.bridge._udp[0].counts.messages >= min(n, 400))
        # Another is answered meanwhile: by another address of this machine.
        loop = asyncio.get_running_loop()
        transport, second = await loop.create_datagram_endpoint(
            Asker, local_addr=("127.0.0.2", 0), remote_addr=("127.0.0.1", port)
        )
        sent = []

        def asked_again():  # the system drops what comes while its buffer is full
            sent.append(transport.sendto(bytes.fromhex("f703891c007d7ae7")))
            return not second.came.empty()

        await until(asked_again)
        assert len(second.came.get_nowait()) == 257
        transport.close()
        assert 400 < served.bridge._udp[0].counts.messages <= 500 + len(sent)


async def test_who_is_not_allowed_hears_nothing(tmp_path):
    async with over_udp(tmp_path, {"allow": ["127.0.0.9"]}) as (served, (port,)), Asker.to(port) as asker:
        asker.send(bytes.fromhex("f703891c007d7ae7"))
        asker.send(bytes.fromhex("aa55c07f0102000241"))
        async with served.client() as client:
            await client.words(0)
        assert asker.came.empty()
        assert served.bridge._udp[0].counts.messages == 0


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"udp": {"read_only": False}}, "needs allow"),
        ({"udp": {}, "maps": ["native"]}, "`maps` does not name it"),
        ({"udp": [{}, {"device": "x"}]}, "two entries have port 8899"),
        ({"udp": [{}, {"device": "x", "host": "0.0.0.0"}]}, "two entries have port 8899"),
        ({"udp": {"prot": 1}}, "Extra inputs"),
    ],
)
def test_settings_that_can_not_be_meant(settings, says):
    with pytest.raises(ValidationError, match=says):
        ModbusSettings(**({"maps": ["goodwe"]} | settings))


def test_it_is_off_by_default_and_one_may_stand_alone():
    assert ModbusSettings().udp == ()
    (door,) = ModbusSettings(maps=["goodwe"], udp={"role": "ha"}).udp
    assert (door.port, door.read_only) == (8899, True)
    assert "ha" in ModbusSettings(maps=["goodwe"], udp={"role": "ha"}).roles
