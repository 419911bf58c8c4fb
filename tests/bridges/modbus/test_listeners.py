"""Several ports, several listeners: who may connect, who may write, where devices are, what is counted."""

import json
import socket

import pytest
import structlog
from prometheus_client import REGISTRY, generate_latest
from pydantic import ValidationError
from pymodbus.client import AsyncModbusTcpClient

from gateway.api.registry import installed
from gateway.bridges.modbus import ModbusBridge, ModbusSettings
from gateway.bridges.modbus.access_policy import AccessPolicy
from gateway.bridges.modbus.counts import Refused
from gateway.bridges.modbus.printed import served as served_lines
from gateway.bridges.modbus.registers import assigned
from gateway.bridges.modbus.server import MAX_LOGGED_HOSTS
from gateway.bridges.modbus.settings import ModbusSettings as Settings
from gateway.bridges.modbus.units import Place, UnitBook, UnitsError, units_path
from gateway.core.model import Device, DeviceKind
from gateway.run.settings import Config, ConfigError
from tests.bridges.modbus.client import RawClient, read, write_one
from tests.bridges.modbus.conftest import serving
from tests.kit.bench import INVERTER, Bench, until
from tests.kit.mbpoll import mbpoll
from tests.kit.ports import free_port, free_ports


def meters(count):
    return [Device(serial=f"SN{n:03}", kind=DeviceKind.METER) for n in range(count)]


async def serial_at(port, unit):
    client = await RawClient.connect(port)
    try:
        return await client.text(4, 16, unit=unit)
    finally:
        await client.close()


# More devices than a port has units


async def test_300_devices_take_two_ports(tmp_path):
    async with serving(tmp_path, devices=meters(300), ports=2) as served:
        await until(lambda: len(served.bridge.units) == 300)
        first, second = (listener.port for listener in served.bridge.listeners)
        assert not served.bridge.left_out
        assert served.bridge.places["SN246"] == Place(0, 247)
        assert served.bridge.places["SN247"] == Place(1, 1)
        assert await serial_at(first, 247) == "SN246"
        assert await serial_at(second, 1) == "SN247"
        assert await serial_at(second, 53) == "SN299"
        client = await RawClient.connect(second)
        assert await client.refused(read(0, 1), unit=54) == 0x0A
        assert await client.words(60, unit=255) == [300]
        await client.close()
    kept = json.loads(units_path(tmp_path, "modbus").read_text())
    assert (kept["version"], kept["units"]["SN299"], kept["ports"]["SN299"]) == (1, 53, 1)
    assert "SN000" not in kept["ports"]


async def test_places_are_kept_over_restarts_and_a_move_of_the_range(tmp_path):
    units_path(tmp_path, "modbus").write_text('{"version":1,"units":{"SN001":7,"SN000":7},"ports":{"SN000":1}}')
    async with serving(tmp_path, devices=meters(3), ports=2) as served:
        await until(lambda: len(served.bridge.units) == 3)
        wanted = {"SN000": Place(1, 7), "SN001": Place(0, 7), "SN002": Place(0, 1)}
        await until(lambda: served.bridge.places == wanted)
    settings = Settings(port=6020, ports=2)
    places = {"SN000": Place(1, 7), "SN001": Place(0, 7), "SN002": Place(0, 1)}
    assert assigned(tmp_path, "modbus", settings) == places
    printed = {
        line.serial: (line.port, line.unit)
        for line in served_lines("modbus", settings, places, {}, "gw")
        if line.serial
    }
    assert printed == {"SN000": (6021, 7), "SN001": (6020, 7), "SN002": (6020, 1)}


async def test_a_pin_may_name_the_port(tmp_path):
    port = free_ports(2)
    pins = {INVERTER.serial: {"port": port + 1, "unit": 9}, "OTHER": {"unit": 9}}
    async with serving(tmp_path, port=port, ports=2, units=pins) as served:
        assert served.bridge.places == {INVERTER.serial: Place(1, 9)}
        polled = await mbpoll(port + 1, 2, unit=9)
        assert polled.values == [10_000]
        assert "Illegal" in (await mbpoll(port, 2, unit=9)).error or (await mbpoll(port, 2, unit=9)).error


async def test_devices_on_a_port_that_is_gone_are_counted_and_keep_their_place(tmp_path):
    path = units_path(tmp_path, "modbus")
    path.write_text('{"version":1,"units":{"SN000":1,"SN001":1},"ports":{"SN001":1}}')
    async with serving(tmp_path, devices=meters(1), ports=1) as served:
        served.bench.announce(Device(serial="SN001", kind=DeviceKind.METER))
        await until(lambda: served.bridge.left_out == {"SN001"})
        assert "raise `ports`" in served.bench.router.bridges()[0].detail
    assert json.loads(path.read_text())["ports"] == {"SN001": 1}


@pytest.mark.parametrize(
    "damage",
    ['{"version":1,"units":{"a":1},"ports":{"b":1}}', '{"version":1,"units":{"a":1},"ports":{"a":-1}}'],
)
def test_damaged_ports_are_an_error(tmp_path, damage):
    path = units_path(tmp_path, "modbus")
    path.write_text(damage)
    with pytest.raises(UnitsError, match="has a port and no unit"):
        UnitBook(path, {}, 2).load()


async def test_a_taken_port_of_the_range_keeps_all_of_it_closed(tmp_path):
    port = free_ports(2)
    with socket.create_server(("127.0.0.1", port + 1)):
        async with Bench(tmp_path) as bench:
            runner = bench.run(ModbusBridge, ModbusSettings(port=port, ports=2), "scada")
            (status,) = await until(bench.router.bridges)
            assert f"port {port + 1} on 127.0.0.1 is in use" in status.detail
            assert "bridges.scada.port" in status.detail
            assert runner.bridge.port == 0
            with pytest.raises(OSError):
                await RawClient.connect(port)


async def test_a_taken_port_of_a_further_listener_names_its_setting(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        async with Bench(tmp_path) as bench:
            listeners = [{"port": taken.getsockname()[1]}]
            bench.run(ModbusBridge, ModbusSettings(port=0, listeners=listeners), "scada")
            (status,) = await until(bench.router.bridges)
            assert "bridges.scada.listeners[0].port" in status.detail


# Who may connect, who may write


async def test_a_read_only_listener_answers_writes_with_01(tmp_path):
    with structlog.testing.capture_logs() as entries:
        async with serving(tmp_path, read_only=True) as served, served.client() as client:
            assert await client.words(0) == [1]
            assert await client.refused(write_one(5801, 500)) == 0x01
            assert await client.refused(b"\x10\0\0") == 0x01
            assert "Illegal function" in (await mbpoll(served.port, 5801, 500, table="4")).error
    assert any("read_only" in entry.get("why", "") for entry in entries)
    assert not served.bench.controller.sent


async def test_further_listeners_serve_the_same_devices_by_their_own_rules(tmp_path):
    listeners = [{"port": 0, "read_only": True}, {"port": 0, "allow": ["192.0.2.0/24"]}]
    async with serving(tmp_path, listeners=listeners, ports=2, devices=meters(250)) as served:
        await until(lambda: len(served.bridge.units) == 250)
        own, own2, plain, plain2, closed, closed2 = (listener.port for listener in served.bridge.listeners)
        assert len({own, own2, plain, plain2, closed, closed2}) == 6
        assert await serial_at(own2, 3) == await serial_at(plain2, 3) == "SN249"
        client = await RawClient.connect(plain)
        assert await client.refused(write_one(5801, 500)) == 0x01
        await client.close()
        client = await RawClient.connect(own)
        assert await client.refused(write_one(5801, 500)) != 0x01
        await client.close()
        client = await RawClient.connect(closed2)
        assert await client.closed() == b""
        await client.close()


async def test_pymodbus_reads_from_a_further_listener(tmp_path):
    async with serving(tmp_path, listeners=[{"port": 0}]) as served:
        client = AsyncModbusTcpClient("127.0.0.1", port=served.bridge.listeners[1].port, timeout=120, retries=0)
        assert await client.connect()
        assert (await client.read_holding_registers(0, count=1, device_id=1)).registers == [1]
        client.close()


async def test_strangers_are_closed_at_once_counted_and_logged_once(tmp_path):
    with structlog.testing.capture_logs() as entries:
        async with serving(tmp_path, allow=["10.0.0.0/8", "::1"]) as served:
            for _ in range(3):
                async with served.client() as client:
                    assert await client.closed() == b""
            assert served.bridge.counts.refused[Refused.ALLOW] == 3
            assert not served.bridge.listeners[0].seats
    (line,) = [entry for entry in entries if "refused" in entry["event"]]
    assert (line["setting"], line["client"].rpartition(":")[0]) == ("allow", "127.0.0.1")


async def test_those_allowed_come_in(tmp_path):
    async with serving(tmp_path, allow=["127.0.0.0/8"]) as served, served.client() as client:
        assert await client.words(0) == [1]


async def test_refusals_of_many_hosts_are_remembered_up_to_a_limit(tmp_path):
    async with serving(tmp_path) as served, served.client() as client:
        assert await client.words(0) == [1]
        (connection,) = served.bridge.listeners[0].connections
        listener = served.bridge.listeners[0]
        for n in range(MAX_LOGGED_HOSTS + 1):
            connection.peer = f"10.0.{n // 256}.{n % 256}:1"
            listener.refuse(connection.peer, Refused.ALLOW, "a test")
        assert len(listener._logged) == 1
        assert listener.counts.refused_connections == MAX_LOGGED_HOSTS + 1


@pytest.mark.parametrize(
    ("host", "let_in"),
    [("10.1.2.3", True), ("::ffff:10.1.2.3", True), ("fe80::1%eth0", True), ("11.0.0.1", False), ("?", False)],
)
def test_addresses_are_matched_in_all_their_forms(host, let_in):
    gate = AccessPolicy(1, allow=Settings(allow=["10.0.0.0/8", "fe80::/10"]).allow)
    assert gate.lets_in(host) is let_in


async def test_silent_systems_are_probed(served, client):
    assert await client.words(0) == [1]
    (connection,) = served.bridge.listeners[0].connections
    accepted = connection.transport.get_extra_info("socket")
    assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60


# Metrics


def samples(name):
    return {
        tuple(sample.labels.values()): sample.value
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.name == f"sems_gateway_modbus_{name}"
    }


async def test_metrics_show_every_listener_and_every_connection(tmp_path):
    async with serving(tmp_path, max_connections=1, listeners=[{"port": 0, "allow": ["10.0.0.1"]}]) as served:
        own, further = (f"127.0.0.1:{listener.port}" for listener in served.bridge.listeners)
        async with served.client() as client:
            assert await client.words(0) == [1]
            assert await client.refused(read(999, 1)) == 0x02
            await client.ask(write_one(5801, 500))
            stranger = await RawClient.connect(served.bridge.listeners[1].port)
            await stranger.closed()
            await stranger.close()
            assert samples("connections") == {("modbus", own): 1, ("modbus", further): 0}
            assert samples("requests_total") == {("modbus", own): 3, ("modbus", further): 0}
            assert samples("exceptions_total") == {("modbus", own): 1, ("modbus", further): 0}
            refused = {place: count for place, count in samples("connections_refused_total").items() if count}
            assert refused == {("modbus", further, "allow"): 1}
            assert samples("connection_requests_total") == {("modbus", own, client.name, ""): 3}
            ((labels, seconds),) = samples("connection_seconds").items()
            assert labels == ("modbus", own, client.name, "")
            assert 0 <= seconds < 60
            newer = await RawClient.connect(served.port)
            assert await newer.words(0) == [1]
            displaced = {place: count for place, count in samples("connections_displaced_total").items() if count}
            assert displaced == {("modbus", own, "max_connections"): 1}
            await newer.close()
        await until(lambda: samples("connections")["modbus", own] == 0)
        assert not samples("connection_seconds")


async def test_two_bridges_share_the_metrics_and_leave_nothing_behind(tmp_path):
    async with Bench(tmp_path) as bench:
        bench.announce()
        runners = [bench.run(ModbusBridge, ModbusSettings(port=0), name) for name in ("one", "two")]
        await until(lambda: all(runner.bridge.units for runner in runners))
        assert {bridge for bridge, _ in samples("connections")} == {"one", "two"}
        assert generate_latest(REGISTRY).count(b"# TYPE sems_gateway_modbus_connections gauge") == 1
        await runners[0].stop()
        assert {bridge for bridge, _ in samples("connections")} == {"two"}
    assert b"modbus" not in generate_latest(REGISTRY)


# Settings


@pytest.mark.parametrize(
    ("settings", "where", "says"),
    [
        ({"ports": 0}, "ports", "greater than or equal to 1"),
        ({"port": 65_000, "ports": 256}, "", ""),
        ({"port": 65_500, "ports": 256}, "ports", "256 ports from 65500 on end above 65535; begin at 65280 or below"),
        ({"allow": []}, "allow", "at least 1 item"),
        ({"allow": ["10.0.0.5/24"]}, "allow", "write 10.0.0.0/24 for the network, or 10.0.0.5 for the machine"),
        ({"allow": ["plant"]}, "allow", "this is no network; write e.g. 192.168.1.0/24"),
        ({"listeners": [{}]}, "listeners", "Field required"),
        ({"listeners": [{"port": 5020}]}, "listeners", "listeners[0].port: port 5020 on 127.0.0.1 meets port 5020 of"),
        ({"listeners": [{"port": 5020, "host": "0.0.0.0"}]}, "listeners", "choose a port that keeps clear of it"),
        ({"listeners": [{"port": 5020, "host": "127.0.0.2"}]}, "", ""),
        (
            {"ports": 3, "listeners": [{"port": 5018}]},
            "listeners",
            "ports 5018 to 5020 on 127.0.0.1 meets ports 5020 to 5022 of port",
        ),
        ({"ports": 2, "listeners": [{"port": 802}, {"port": 803}]}, "listeners", "of listeners[0].port"),
        ({"ports": 3, "listeners": [{"port": 65_534}]}, "listeners", "3 ports from 65534 on end above"),
        ({"listeners": [{"port": 0}, {"port": 0}], "port": 0}, "", ""),
        ({"units": {"a": {"unit": 1, "port": 5021}}}, "", ""),
        ({"units": {"a": {"unit": 1, "port": 5019}}}, "units", "port 5019 of a is not among ports 5020 to 5275"),
        (
            {"units": {"a": {"unit": 1, "port": 5021}}, "ports": 1},
            "units",
            "port 5021 of a is not among port 5020; choose one",
        ),
        ({"units": {"a": {"unit": 1, "port": 5021}}, "port": 0}, "units", "give `port` a number"),
        ({"units": {"a": {"unit": 1, "port": 5021}, "b": 1}, "ports": 2}, "", ""),
        ({"units": {"a": {"unit": 1, "port": 5020}, "b": 1}}, "units", "1 is given to both a and b"),
        ({"units": {"a": {"port": 5020}}}, "units", "Field required"),
        ({"tls": {"key": "x"}}, "tls", "Field required"),
    ],
)
def test_settings_that_contradict_each_other_are_told(settings, where, says):
    if not where:
        assert Settings(**settings)
        return
    with pytest.raises(ValidationError) as caught:
        Settings(**settings)
    assert all(error["loc"][0] == where for error in caught.value.errors())
    assert says in str(caught.value)


CONFIG = """\
bridges:
  scada:
    type: modbus
    port: 5020
    listeners:
      - port: 802
        allow: [10.0.0.5/24]
        tls:
          certificate: server.pem
          key: server.key
          client_ca: ca.pem
"""


def test_check_names_line_and_remedy_and_finds_files_beside_the_configuration(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG)
    with pytest.raises(ConfigError) as caught:
        Config.load(config, installed())
    lines = caught.value.lines()
    assert any(line.startswith(f"{config}:7: ") and "write 10.0.0.0/24 for the network" in line for line in lines)
    assert any(line.startswith(f"{config}:8: ") and f"{tmp_path}/server.pem can't be read" in line for line in lines)


def test_free_ports_are_free():
    assert free_port() != 0
