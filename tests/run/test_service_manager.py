"""A service manager hears when all is up, that the loop goes on, and when it ends; and the unit is what it says."""

import asyncio
import os
import socket
import subprocess
import time
from contextlib import closing, suppress

import pytest

from gateway.run.service_manager import ServiceManager
from tests.bridges.open_api.kit import cloud
from tests.kit.mosquitto import need
from tests.kit.process import PATIENCE, ROOT, sems_gateway

UNIT = ROOT / "deploy" / "systemd" / "sems-gateway.service"


@pytest.fixture
def manager(tmp_path):
    """What systemd is to a service: a datagram socket."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as hears:
        hears.bind(str(tmp_path / "notify"))
        hears.settimeout(PATIENCE)
        yield hears


@pytest.mark.system
async def test_a_gateway_says_when_it_is_up_that_it_lives_and_when_it_ends(tmp_path, manager):
    def heard():
        config = tmp_path / "config.yaml"
        config.write_text(
            f"bridges: {{sems: {{type: open_api, account: demo, password: demo, url: '{simulator.url}'}}}}"
        )
        env = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "600000"}
        said = []
        with sems_gateway("run", config, env=env):
            while not {"READY=1\nSTATUS=started", "WATCHDOG=1"} <= {*said} or "devices" not in "".join(said):
                said.append(manager.recv(4096).decode())
        while "STOPPING=1" not in said:
            said.append(manager.recv(4096).decode())
        return said

    async with cloud() as simulator:
        said = await asyncio.to_thread(heard)
    assert [line for line in said if "plants" in line] == ["STATUS=3 plants, 18 devices; control off"]
    assert said.count("WATCHDOG=1") > 1


async def test_a_loop_that_hangs_says_nothing(tmp_path, manager):
    it = ServiceManager.of({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "30000"})
    beating = asyncio.create_task(it.keep_alive())
    await asyncio.to_thread(manager.recv, 100)
    time.sleep(0.2)  # noqa: ASYNC251 - the loop is to hang: of what it would have said meanwhile nothing comes
    beating.cancel()
    await asyncio.gather(beating, return_exceptions=True)
    manager.setblocking(False)
    with suppress(BlockingIOError):
        manager.recv(100)  # at most one that was under way
    with pytest.raises(BlockingIOError):
        manager.recv(100)


@pytest.mark.parametrize(
    "environment",
    [{}, {"NOTIFY_SOCKET": "/nowhere/at/all"}, {"NOTIFY_SOCKET": "@nobody", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}],
)
async def test_where_nobody_listens_nothing_happens(environment):
    it = ServiceManager.of(environment)
    it.ready("x")
    it.stopping()
    if "WATCHDOG_PID" in environment or not environment:
        await asyncio.wait_for(it.keep_alive(), PATIENCE)


@pytest.mark.system
def test_the_unit_is_closed_to_what_a_service_does_not_need():
    done = subprocess.run(
        [need("systemd-analyze"), "security", "--offline=true", "--threshold=30", UNIT],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-300:]


def test_the_unit_waits_for_as_long_as_the_gateway_may_take():
    lines = dict(line.split("=", 1) for line in UNIT.read_text().splitlines() if "=" in line and line[0] != "#")
    assert lines["Type"] == "notify"
    assert int(lines["TimeoutStopSec"]) > 5
    assert int(lines["WatchdogSec"]) >= 30
