"""SIGTERM ends the gateway soon, whatever hangs; each time through the real program."""

import asyncio
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.kit.mosquitto import mosquitto
from tests.kit.ports import free_port
from tests.kit.process import ROOT, environment, eventually, running, sems_gateway
from tests.reliability.small_disk import small_disk

pytestmark = pytest.mark.system

SOON = 5.0
"""Seconds that a stop may take: what service managers wait for is twice as much and more."""
SLACK = 4
"""Times as long on a machine that runs other tests too; what hangs takes longer than that."""
BASE = """\
gateway: {data_dir: state}
control:
  enabled: true
  allow: [{devices: ["*"], setpoints: [active_power_limit]}]
bridges:
"""
LOCKER = """\
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
db.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
time.sleep(600)
"""
FLOCKER = """\
import fcntl, sys, time
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("locked", flush=True)
time.sleep(600)
"""


@pytest.fixture
def config(tmp_path):
    def write(bridges, base=BASE):
        file = tmp_path / "config.yaml"
        file.write_text(base + "".join(f"  {line}\n" for line in bridges))
        return file

    return write


@contextmanager
def gateway(file, **options):
    with sems_gateway("run", file, **options) as process:
        yield process


def up(process, file):
    """Wait until the command line could talk to it."""
    eventually((file.parent / "state" / "control.sock").exists, otherwise=lambda: process.text)


def ends_soon(process, number=signal.SIGTERM, code=0):
    began = time.monotonic()
    process.send_signal(number)
    assert process.wait(10 * SOON) == code, process.text
    took = time.monotonic() - began
    assert took < SLACK * SOON, f"{took:.1f} s\n{process.text}"


@contextmanager
def another_process(script, path):
    """Has a lock held by another process."""
    holder = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "locked\n"
        yield
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


@contextmanager
def silent_server(drip=b""):
    """Accepts, and says nothing, or a byte each second; `came` is set once somebody is connected."""
    listener = socket.create_server(("127.0.0.1", 0))
    ended, came = threading.Event(), threading.Event()

    def serve():
        held = []
        listener.settimeout(0.1)
        while not ended.is_set():
            with suppress(TimeoutError):
                held.append(listener.accept()[0])
                came.set()
                if drip:
                    held[-1].sendall(
                        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n"
                    )
            for connection in held:
                with suppress(OSError):
                    connection.sendall(drip)
        for connection in held:
            connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1], came
    finally:
        ended.set()
        thread.join()
        listener.close()


SEMS = "sems: {{type: open_api, account: demo, password: demo, url: 'http://127.0.0.1:{port}'}}"


def test_with_nothing_wrong_it_ends_in_good_order(config):
    file = config(["web: {type: web, port: 0}"])
    for number in (signal.SIGTERM, signal.SIGINT):
        with gateway(file) as process:
            up(process, file)
            ends_soon(process, number)
            process.line('"event": "stopped"')


def test_what_python_does_at_its_end_is_not_waited_for(config, tmp_path):
    """On a busy machine it takes seconds, and the kernel ended what had stopped in good order."""
    (tmp_path / "sitecustomize.py").write_text("import atexit, time\natexit.register(time.sleep, 600)\n")
    file = config(["web: {type: web, port: 0}"])
    with gateway(file, env=environment(PYTHONPATH=str(tmp_path))) as process:
        up(process, file)
        ends_soon(process)
        process.line('"event": "stopped"')


@pytest.mark.parametrize("drip", [b"", b"{"])
def test_a_cloud_that_hangs_or_drips(config, drip):
    with silent_server(drip) as (port, came):
        file = config([SEMS.format(port=port)])
        with gateway(file) as process:
            assert came.wait(150), process.text
            ends_soon(process)
            process.line('"event": "stopped"')


def test_a_cloud_that_hangs_with_commands_on_their_way(config):
    with sems_gateway("simulate", "--port", "0") as simulator:
        port = int(simulator.line(r"http://127\.0\.0\.1:(\d+)")[1])
        file = config([SEMS.format(port=port)])
        with gateway(file) as process:
            up(process, file)
            process.line('"bridge": "sems".*"event": "up"')
            body = json.dumps({"answer_delay": 60}).encode()
            urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/sim/faults", body), timeout=120)
            words = ("send", file, "--fleet", "active_power_limit", "60", "--yes", "--wait")
            with sems_gateway(*words):
                eventually(lambda: accepted(file) >= 9)
                ends_soon(process)
                process.line('"event": "stopped"')
            simulator.send_signal(signal.SIGKILL)


def accepted(file):
    with sqlite3.connect(f"file:{file.parent}/state/journal.sqlite?mode=ro", uri=True) as db:
        return db.execute("SELECT count(*) FROM command").fetchone()[0]


def test_a_journal_that_another_process_holds_while_it_runs(config):
    file = config(["web: {type: web, port: 0}"])
    journal = file.parent / "state" / "journal.sqlite"
    with gateway(file) as process:
        up(process, file)
        with another_process(LOCKER, journal):
            ends_soon(process)
            said = process.line("journal.sqlite can't be written").string
            assert "another program has locked it" in said
            assert str(journal) in said


def test_a_journal_that_another_process_holds_at_the_start(config):
    file = config(["web: {type: web, port: 0}"])
    with gateway(file) as process:
        up(process, file)
        process.end()
    journal = file.parent / "state" / "journal.sqlite"
    readers_too = LOCKER.replace("db.execute(", 'db.execute("PRAGMA locking_mode = EXCLUSIVE"); db.execute(', 1)
    for script in (LOCKER, readers_too):
        with another_process(script, journal), gateway(file) as process:
            assert str(journal) in process.line("another program has locked it").string
            up(process, file)  # data go on
            ends_soon(process)


def test_the_count_of_calls_that_another_process_locks(config):
    """It blocked a thread for ever, and the log blamed the network."""
    with sems_gateway("simulate", "--port", "0") as simulator:
        port = int(simulator.line(r"http://127\.0\.0\.1:(\d+)")[1])
        file = config([SEMS.format(port=port)])
        state = file.parent / "state"
        with gateway(file) as process:
            process.line('"bridge": "sems".*"event": "up"')
            process.end()
        (lock,) = state.glob("*budget*.lock")
        with another_process(FLOCKER, lock), gateway(file) as process:
            said = process.line("counted in memory only").string
            assert f"{lock} is locked by another process" in said
            process.line('"bridge": "sems".*"event": "up"')
            ends_soon(process)
            process.line('"event": "stopped"')


async def test_a_broker_that_is_frozen(config, tmp_path):
    async with mosquitto(tmp_path) as broker:
        line = f"mqtt: {{type: mqtt, host: 127.0.0.1, port: {broker.port}}}"
        file = config([line])

        def run():
            with gateway(file) as process:
                process.line('"bridge": "mqtt".*"event": "up"')
                broker.process.send_signal(signal.SIGSTOP)
                try:
                    ends_soon(process)
                finally:
                    broker.process.send_signal(signal.SIGCONT)

        await asyncio.to_thread(run)


def test_a_broker_that_does_not_answer(config):
    with silent_server() as (port, came):
        file = config([f"mqtt: {{type: mqtt, host: 127.0.0.1, port: {port}}}"])
        with gateway(file) as process:
            assert came.wait(150)
            up(process, file)
            ends_soon(process)


BATCH = (
    "batch: {{type: batch, connection: {{bootstrap_servers: '127.0.0.1:{port}'}}, supplier: acme, "
    "whitelist: [SN1], announce: inverter}}"
)


def test_a_kafka_that_is_away(config):
    file = config([BATCH.format(port=free_port())])
    with gateway(file) as process:
        process.line('"bridge": "batch".*"event": "down"')
        ends_soon(process)


def test_a_kafka_that_does_not_answer(config):
    with silent_server() as (port, came):
        file = config([BATCH.format(port=port)])
        with gateway(file) as process:
            assert came.wait(150), process.text
            up(process, file)
            ends_soon(process)


def test_a_client_of_the_socket_that_does_not_read(config):
    file = config(["web: {type: web, port: 0}"])
    with gateway(file) as process, socket.socket(socket.AF_UNIX) as client:
        up(process, file)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        client.connect(str(file.parent / "state" / "control.sock"))
        client.sendall(b'{"type": "devices"}\n')
        ends_soon(process)


def test_a_disk_that_is_full(config, tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        file = config(["web: {type: web, port: 0}"], BASE.replace("state", str(disk.inside)))
        with sems_gateway("run", file) if not disk.prefix else pytest.skip("needs root") as process:
            eventually((disk.outside / "control.sock").exists)
            disk.fill()
            ends_soon(process)
            process.line('"event": "stopped"')


def test_nobody_reads_the_log(config):
    """Once the pipe is full, every line waits for ever."""
    file = config(["web: {type: web, port: 0}"])
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"\0" * 4096)
    os.set_blocking(writing, True)
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "run", str(file)], stderr=writing, stdin=subprocess.DEVNULL
    )
    os.close(writing)
    try:
        eventually((file.parent / "state" / "lock").exists)
        time.sleep(1)
        process.terminate()
        began = time.monotonic()
        process.wait(10 * SOON)
        assert time.monotonic() - began < SLACK * SOON
    finally:
        process.kill()
        process.wait()
        os.close(reading)


def test_the_loop_itself_hangs_and_it_is_said_where(config, tmp_path):
    """What must not be can still be: a call that never comes back, on the loop and in a thread."""
    (tmp_path / "hanging.py").write_text(
        "import asyncio, threading, time, gateway.run.app, gateway.cli\n"
        "async def hang(self):\n"
        "    threading.Thread(target=time.sleep, args=(600,), name='stuck').start()\n"
        "    print('hanging', flush=True)\n"
        "    time.sleep(600)\n"
        "gateway.run.app.Gateway._age = hang\n"
        "gateway.cli.main()\n"
    )
    file = config(["web: {type: web, port: 0}"])
    with running(
        sys.executable, str(tmp_path / "hanging.py"), "run", str(file), env=os.environ | {"PYTHONPATH": str(ROOT)}
    ) as process:
        process.line("hanging")
        ends_soon(process, code=1)
        said = process.line("ends without good order").string
        assert "stuck" in said
        assert "hanging.py:5 hang" in said


def test_a_thread_that_never_ends_does_not_keep_it(config, tmp_path):
    (tmp_path / "hanging.py").write_text(
        "import asyncio, threading, time, gateway.run.app, gateway.cli\n"
        "async def hang(self):\n"
        "    task = asyncio.create_task(asyncio.to_thread(time.sleep, 600))\n"
        "    print('hanging', flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "gateway.run.app.Gateway._age = hang\n"
        "gateway.cli.main()\n"
    )
    file = config(["web: {type: web, port: 0}"])
    with running(
        sys.executable, str(tmp_path / "hanging.py"), "run", str(file), env=os.environ | {"PYTHONPATH": str(ROOT)}
    ) as process:
        process.line("hanging")
        up(process, file)
        ends_soon(process, code=1)
        process.line('"event": "stopped"')
        assert "thread.py" in process.line("ends without good order").string


def ignores_sighup(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigIgn:"):
            return bool(int(line.split()[1], 16) >> signal.SIGHUP - 1 & 1)
    raise AssertionError("no SigIgn")


def test_sighup_does_not_end_it_not_even_while_it_is_loaded(config):
    file = config(["web: {type: web, port: 0}"])
    with gateway(file, fresh=True) as process:
        ignored = False
        while not ignored:
            # Looked at in this order: what is loaded by now is only loaded once SIGHUP is ignored.
            loading = "pydantic_core" in Path(f"/proc/{process.pid}/maps").read_text()
            ignored = ignores_sighup(process.pid)
            assert ignored or not loading
            assert process.code is None, process.text

        def is_up():
            process.send_signal(signal.SIGHUP)
            assert process.code is None, process.text
            said = [line for line in process.lines if '"event": "reloaded"' in line]
            return len(said) > 1  # who does not stop at the first says so at the second

        eventually(is_up)
        up(process, file)
        assert process.code is None
        ends_soon(process)
        process.line('"event": "stopped"')
