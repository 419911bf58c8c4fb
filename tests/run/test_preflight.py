"""`doctor` before a gateway runs: each thing that it would need is tried, and what is wrong comes with what to do."""

import asyncio
import contextlib
import json
import os
import socket
import ssl
import sys
from datetime import timedelta

import pytest
from typer.testing import CliRunner

from gateway.api.bridge import tcp_ports
from gateway.api.registry import installed
from gateway.cli import app
from gateway.core.clock import SystemClock
from gateway.run import preflight
from gateway.run.data_dir import hold
from gateway.run.settings import Config
from gateway.sems import probe as cloud_probe
from tests.bridges.open_api.kit import cloud
from tests.kit.certificates import Authority
from tests.kit.mosquitto import mosquitto
from tests.kit.ports import free_port


@pytest.fixture
def look(tmp_path):
    """Look at a configuration's needs; returns bridge → about → (mark, text, remedy)."""

    async def look(bridges):
        file = tmp_path / "config.yaml"
        file.write_text(f"bridges:\n  {bridges}\n")
        file.chmod(0o600)
        found = {}
        async for bridge, probe in preflight.looked_at(Config.load(file, installed())):
            found.setdefault(bridge, {}).setdefault(probe.about, []).append((probe.mark.name, probe.text, probe.remedy))
        return found

    return look


async def test_the_machine(look, tmp_path):
    found = await look("web: {type: web, port: 0}")
    assert {about: [mark for mark, *_ in some] for about, some in found[""].items()} == {
        "data_dir": ["WELL"], "disk": ["WELL"], "descriptors": ["WELL"]
    }  # fmt: skip
    lock = hold(tmp_path / "data")
    ((mark, text, _),) = (await look("web: {type: web, port: 0}"))[""]["data_dir"]
    os.close(lock)
    assert (mark, "in use" in text or "holds" in text or "runs" in text) == ("WRONG", True), text


async def test_a_port_that_another_has_is_told_with_its_process(look):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        found = await look(f"a: {{type: modbus, port: {port}}}\n  b: {{type: web, port: {free_port()}}}")
    ((mark, text, remedy),) = found["a"]["port"]
    assert (mark, f"pid {os.getpid()}" in remedy) == ("WRONG", True), (text, remedy)
    assert found["b"]["port"][0][0] == "WELL"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other numbers")
def test_a_port_below_1024_says_what_gives_the_right(monkeypatch):
    def refused(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(preflight.socket.socket, "bind", refused)
    (claim,) = tcp_ports("127.0.0.1", 502)
    assert "CAP_NET_BIND_SERVICE" in preflight._port(claim).remedy


@pytest.mark.system
async def test_brokers(look, tmp_path):
    async with mosquitto(tmp_path, users={"me": "right"}) as broker:
        it = f"type: mqtt, host: 127.0.0.1, port: {broker.port}, username: me"
        found = await look(
            f"good: {{{it}, password: right, client_id: a}}\n  bad: {{{it}, password: wrong, client_id: b}}\n"
            f"  none: {{type: mqtt, host: 127.0.0.1, port: {free_port()}}}"
        )
    assert [mark for mark, *_ in found["good"]["broker"]] == ["WELL", "WELL"]
    assert "grants sems/+/set" in found["good"]["broker"][1][1]
    ((mark, text, _),) = found["bad"]["broker"]
    assert (mark, "password" in text) == ("WRONG", True), text
    ((mark, text, _),) = found["none"]["broker"]
    assert (mark, "refused the connection" in text) == ("WRONG", True), text


async def test_a_cloud_that_is_there(look):
    async with cloud() as simulator:
        found = await look(f"sems: {{type: open_api, account: demo, password: demo, url: '{simulator.url}'}}")
    assert {about: some[0][0] for about, some in found["sems"].items()} == {
        "dns": "WELL", "connection": "WELL", "clock": "WELL"
    }  # fmt: skip


async def test_a_cloud_that_is_not_there(look):
    found = await look(f"sems: {{type: open_api, account: a, password: b, url: 'http://127.0.0.1:{free_port()}'}}")
    ((mark, text, remedy),) = found["sems"]["connection"]
    assert (mark, "refuses the connection" in text, "firewall" in remedy) == ("WRONG", True, True)


class Off(SystemClock):
    """Wrong by so much."""

    def __init__(self, by):
        super().__init__()
        self.by = by

    def now(self):
        return super().now() + self.by


@contextlib.asynccontextmanager
async def tls_cloud(directory, monkeypatch, **made):
    """A server that says what time it is."""
    authority = Authority(directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.sign("cloud", server=True, **made))
    monkeypatch.setattr(cloud_probe, "trusted", lambda: ssl.create_default_context(cafile=authority.pem))

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        date = SystemClock().now().strftime("%a, %d %b %Y %H:%M:%S GMT")
        writer.write(f"HTTP/1.1 404 Not Found\r\ndate: {date}\r\n\r\n".encode())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    ("days", "by", "marks", "says"),
    [
        (365, timedelta(), ("WELL", "WELL"), "clock is right"),
        (5, timedelta(), ("NOTE", "WELL"), "certificate by ca until"),
        (365, timedelta(hours=3), ("WELL", "WRONG"), "3 h ahead of the cloud's"),
        (365, timedelta(minutes=-5), ("WELL", "WRONG"), "behind the cloud's"),
        (3650, timedelta(days=90), ("WELL", "WRONG"), "ahead of the cloud's"),
    ],
)
async def test_certificate_and_clock(tmp_path, monkeypatch, days, by, marks, says):
    async with tls_cloud(tmp_path, monkeypatch, days=days) as url:
        found = [probe async for probe in cloud_probe.probe_cloud(url, Off(by))]
    assert [probe.about for probe in found] == ["dns", "tls", "clock"]
    assert tuple(probe.mark.name for probe in found[1:]) == marks
    assert any(says in probe.text for probe in found)


@pytest.mark.system
async def test_a_kafka_cluster(look, kafka):
    topic = kafka.topic("telemetry")
    nobody = f"127.0.0.1:{free_port()}"
    found = await look(
        f"t: {{type: kafka, connection: {{bootstrap_servers: '{kafka.plaintext}'}}, "
        f"telemetry: {{topics: [{topic}, nowhere]}}}}\n"
        f"  n: {{type: batch, supplier: x, whitelist: '*', connection: {{bootstrap_servers: '{nobody}'}}}}"
    )
    assert [mark for mark, *_ in found["t"]["kafka"]] == ["WELL", "WELL", "WRONG"]
    ((mark, text, _),) = found["n"]["kafka"]
    assert (mark, "can't be reached" in text) == ("WRONG", True), text


async def test_the_command_logs_in_once_and_says_what_the_account_has(tmp_path):
    async with cloud() as simulator:
        file = tmp_path / "config.yaml"
        file.write_text(f"bridges: {{sems: {{type: open_api, account: demo, password: demo, url: '{simulator.url}'}}}}")
        file.chmod(0o600)
        done = await asyncio.to_thread(CliRunner().invoke, app, ["doctor", str(file), "--json"])
    report = json.loads(done.stdout)
    assert report["well"], report
    (devices,) = [line for line in report["lines"] if line["about"] == "devices"]
    assert "plants" in devices["text"]
    assert "inverters" in devices["text"]
