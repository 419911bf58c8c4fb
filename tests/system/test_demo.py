"""`sems-gateway demo`, as a newcomer meets it."""

import io
import re
import signal
import socket
import subprocess
from contextlib import suppress

import httpx
import pytest
from rich.console import Console

from gateway.bridges.modbus import registers
from gateway.demo.example import Example
from gateway.demo.selftest import SelfTest
from tests.kit.mbpoll import need_mbpoll
from tests.kit.mosquitto import need
from tests.kit.ports import free_port
from tests.kit.process import COMMAND, environment, eventually, finished, running, sems_gateway

pytestmark = pytest.mark.system
ANY = ("--mqtt-port", 0, "--modbus-port", 0, "--sems-port", 0, "--web-port", 0)
READY = (
    r"^ready mqtt=127\.0\.0\.1:(\d+) modbus=127\.0\.0\.1:(\d+) sems=(http://127\.0\.0\.1:\d+) "
    r"web=(http://127\.0\.0\.1:\d+) data_dir=(\S+)$"
)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A demo whose output a program reads: what it says of itself goes elsewhere."""
    errors = tmp_path_factory.mktemp("demo") / "stderr"
    command = [*COMMAND, "demo", *map(str, ANY)]
    with running("/bin/sh", "-c", 'exec "$@" 2>"$0"', errors, *command) as process:
        process.line(READY)
        yield process


def test_the_first_line_says_that_all_is_up_and_where(demo):
    assert re.match(READY, demo.lines[0])
    assert not any("Traceback" in line for line in demo.lines)


def test_the_lines_to_paste_work(demo):
    need("mosquitto_sub")
    need_mbpoll()
    eventually(lambda: any("Ctrl-C" in line for line in list(demo.lines)))
    lines = [line for line in demo.lines if re.match(r"mosquitto_|mbpoll ", line)]
    assert len(lines) == 9
    subscribe, limit, release, read_power, read_limit, write, export, wait, charge = lines
    with running("/bin/sh", "-c", f"exec {subscribe}") as watcher:
        watcher.line(r"^sems/9010KETU218W0001 \{")
        subprocess.run(["/bin/sh", "-c", limit], check=True, timeout=120)
        watcher.line(r'/result .*"value":10\.0,"state":"succeeded"')
        read = read_limit.replace(" -q ", " -q -1 ")
        done = subprocess.run(["/bin/sh", "-c", read], capture_output=True, text=True, timeout=120, check=True)
        assert "[5502]: \t10" in done.stdout
        done = subprocess.run(["/bin/sh", "-c", read_power], capture_output=True, text=True, timeout=120, check=True)
        assert "[3020]:" in done.stdout
        subprocess.run(["/bin/sh", "-c", write], capture_output=True, check=True, timeout=120)
        watcher.line(r'/result .*"value":80\.0,"state":"succeeded"')
        subprocess.run(["/bin/sh", "-c", release], check=True, timeout=120)
        watcher.line(r'/result .*"value":100\.0,"state":"succeeded"')
        subprocess.run(["/bin/sh", "-c", export], check=True, timeout=120)
        watcher.line(r'/result .*"value":2000\.0,"state":"succeeded"')
        subprocess.run(["/bin/sh", "-c", wait], check=True, timeout=120)
        watcher.line(r'^sems/9011KHCA223W0001/result .*"value":false,"state":"succeeded"')
        watcher.line(r'^sems/9011KHCA223W0001 \{.*"ev_status":"plugged"')
        subprocess.run(["/bin/sh", "-c", charge], check=True, timeout=120)
        watcher.line(r'^sems/9011KHCA223W0001/result .*"value":true,"state":"succeeded"')
    demo.line("active_power_limit = 80.0")


def test_the_lines_to_paste_break_an_inverter_and_the_alarm_comes(demo):
    need("mosquitto_sub")
    need("curl")
    eventually(lambda: any("Ctrl-C" in line for line in list(demo.lines)))
    subscribe = next(line for line in demo.lines if line.startswith("mosquitto_sub"))
    trip, repair = (line for line in demo.lines if line.startswith("curl") and "/sim/" in line)
    with running("/bin/sh", "-c", f"exec {subscribe}") as watcher:
        subprocess.run(["/bin/sh", "-c", trip], check=True, timeout=120)
        watcher.line(r'^sems/9010KETU218W0001/alarm .*"Isolation Failure"')
        demo.line("raised .*9010KETU218W0001 fault 512 Isolation Failure")
        subprocess.run(["/bin/sh", "-c", repair], check=True, timeout=120)
        demo.line("cleared .*9010KETU218W0001 fault 512 Isolation Failure")


def test_the_command_line_and_http_work_on_it(demo):
    need("curl")
    eventually(lambda: any("Ctrl-C" in line for line in list(demo.lines)))

    def said(begins):
        command = next(line for line in demo.lines if begins in line)
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "permitted" in said("sems-gateway explain ")
    assert "succeeded" in said("sems-gateway send ")
    assert "active_power_limit" in said("sems-gateway audit ")
    assert "control goes on" in said("sems-gateway halt ")
    assert '"value":40' in said("curl -s -H").replace(" ", "")
    url = re.match(READY, demo.lines[0])[4]
    assert httpx.get(f"{url}/healthz", trust_env=False).status_code == 200
    page, token = next(m for line in demo.lines if (m := re.match(r"(http://\S+/) +token: (\S+)$", line))).groups()
    assert page == f"{url}/"
    assert "<title>SEMS gateway</title>" in httpx.get(page, trust_env=False).text
    head = {"Authorization": f"Bearer {token}"}
    with httpx.stream("GET", f"{url}/api/v1/events", headers=head, trust_env=False, timeout=120) as stream:
        lines = stream.iter_lines()
        assert next(lines) == "event: begin"
        assert '"write":true' in next(lines)


def test_taken_ports_move_on_and_say_so():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = finished("demo", "--mqtt-port", port, "--modbus-port", 0, "--sems-port", 0, "--web-port", 0)
    assert done.returncode == 1
    assert f"port {port} for MQTT is taken" in done.stderr


def test_usual_ports_that_are_taken_are_passed_over_with_a_word():
    with socket.socket() as taken:
        with suppress(OSError):
            taken.bind(("127.0.0.1", 1883))  # or another has it
            taken.listen()
        with sems_gateway("demo", "--modbus-port", 0, "--sems-port", 0, "--web-port", 0) as process:
            assert 1883 < int(process.line(READY)[1]) < 1983
            process.line("is taken, MQTT is on")
            ends_without_a_trace(process, signal.SIGTERM)


async def test_the_self_test_says_which_leg_failed(demo, monkeypatch):
    monkeypatch.setattr("gateway.demo.selftest.LEG_TIMEOUT", 3.0)
    mqtt, modbus, sems, *_ = re.match(READY, demo.lines[0]).groups()
    register = next(r.address for r in registers.registers() if (r.point, r.type) == ("active_power_limit", "float32"))
    serial = "9050KMTU220W0005"
    async with httpx.AsyncClient(base_url=sems, trust_env=False) as client:
        await client.post("/sim/faults", json={"devices": {serial: {"obedience": "refuses"}}})

    async def verdict(**changes):
        out = io.StringIO()
        fields = {"serial": serial, "unit": 11, "limit": register, "power": 0} | changes
        test = SelfTest(mqtt=int(mqtt), modbus=int(modbus), sems=sems, device=Example(**fields))
        return await test.run(Console(file=out, width=200)), out.getvalue()

    succeeded, said = await verdict()
    assert not succeeded
    assert "failed  gateway → Open API → SEMS   inverter obeys: nothing within 3 s" in said
    succeeded, said = await verdict(serial="9010KETU218W0001", unit=99)
    assert not succeeded
    assert "Modbus answered" in said
    succeeded, said = await verdict(serial="nobody")
    assert not succeeded
    assert "state arrives" in said


async def test_the_self_test_without_anything_to_talk_to():
    out = io.StringIO()
    device = Example("9010KETU218W0001", 1, 0, 0)
    test = SelfTest(mqtt=free_port(), modbus=free_port(), sems="http://127.0.0.1:1", device=device)
    assert not await test.run(Console(file=out, width=200))
    assert "can't connect" in out.getvalue()


def test_the_self_test_does_the_round_trip_and_leaves_a_configuration_that_it_never_overwrites(tmp_path):
    file = tmp_path / "demo.yaml"
    done = finished("demo", *ANY, "--self-test", "--write-config", file)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok ") == 11
    assert "The round trip works both ways" in done.stdout
    assert finished("check", file).returncode == 0
    file.write_text("mine")
    done = finished("demo", *ANY, "--self-test", "--write-config", file)
    assert done.returncode == 1
    assert "not overwritten" in done.stderr
    assert file.read_text() == "mine"
    done = finished("demo", *ANY, "--self-test", "--write-config", tmp_path / "no" / "such" / "dir.yaml")
    assert "can't be written" in done.stderr


def test_it_ends_at_once_without_a_trace():
    with sems_gateway("demo", *ANY) as process:
        process.line(READY)
        ends_without_a_trace(process, signal.SIGINT)


def ends_without_a_trace(process, number):
    assert process.end(number) == 0
    assert "Traceback" not in process.text
    assert "error" not in process.text.lower()


def test_on_a_terminal_it_shows_a_live_table_that_fits():
    """What other widths show is tested in tests/terminal."""
    script = need("script")
    command = f"{sems_gateway_command()} demo --mqtt-port 0 --modbus-port 0 --sems-port 0 --web-port 0"
    size = {"TERM": "xterm", "COLUMNS": "80", "LINES": "50", "SHELL": "/bin/sh"}
    with running(script, "-qefc", f"exec {command}", "/dev/null", env=environment(**size)) as terminal:
        terminal.line("Solar park")
        terminal.line("9050KMTU220W0005 .*kW .*%.*normal")
        terminal.line(r"9011KHCA223W0001 .*4\.14 kW .*charging")
        terminal.line(r"91000SEC219W0001 .*kW .*normal")
        terminal.line(r"90000WSU220W0001 .*W/m² \d+ °C .*normal")
    assert "…" not in terminal.text.replace("…/", "")


def test_on_a_terminal_that_can_not_paint_it_prints_lines():
    script = need("script")
    command = f"{sems_gateway_command()} demo --mqtt-port 0 --modbus-port 0 --sems-port 0 --web-port 0"
    with running(script, "-qefc", f"exec {command}", "/dev/null", env=environment(TERM="dumb")) as terminal:
        terminal.line(r"Solar park  good  pv_power=\d+")


def sems_gateway_command():
    import sys

    return f"{sys.executable} -m gateway"
