"""The bridge against envoy, by `make csip`: registration, programs, events and their ends, responses, telemetry.

In order, on one server, for its start takes a quarter of a minute; each test has a device and programs of its own.
"""

import asyncio
import time
from contextlib import asynccontextmanager

import msgspec
import pytest

from gateway.api.testing import DEVICE, eventually
from gateway.api.testing.bench import Bench
from gateway.bridges.csip import CsipBridge
from gateway.bridges.csip.identity import lfdi_of
from gateway.commands.policy.policy import ControlSettings, Rule
from gateway.core.model import Range
from tests.csip.envoy import ENVOY, envoy

RATED = 5000.0
INVERTER = msgspec.structs.replace(
    DEVICE,
    rated_power=RATED,
    setpoints={
        "export_limit": Range(0, 5000, 1),
        "active_power_limit": Range(0, 100, 1),
        "running": Range(),
    },
)
ALL = ControlSettings(enabled=True, allow=[Rule(devices=["*"], setpoints=["*"])], max_per_minute=100_000)
NAMES = iter(f"device{n}" for n in range(1000))


@pytest.fixture(scope="module")
def server():
    if not ENVOY:
        pytest.skip("SEMS_GATEWAY_ENVOY names no Python that has envoy")
    with envoy() as it:
        rates = {f"{name}_pollrate_seconds": 1 for name in ("dcap", "edevl", "fsal", "derpl", "derl")}
        it.ask("POST", "/server_config/run_time", json=rates | {"mup_postrate_seconds": 10})
        yield it


class Served:
    """A gateway's core with the bridge in it, and what its controller carried out."""

    def __init__(self, server, bench, lfdi):
        self.server = server
        self.bench = bench
        self.lfdi = lfdi
        self.site = 0

    def in_force(self, setpoint):
        values = [each.value for each in self.bench.carried.sent if each.setpoint == setpoint]
        return values[-1] if values else None

    async def comes(self, setpoint, value):
        try:
            await eventually(lambda: self.in_force(setpoint) == value, "", 60)
        except TimeoutError:
            raise AssertionError(f"{setpoint} is {self.in_force(setpoint)}, not {value}") from None


@asynccontextmanager
async def served(server, directory, **settings):
    certificate, key = server.authority.sign(next(NAMES))
    tls = {"certificate": certificate, "key": key, "ca": server.authority.pem}
    given = {
        "url": server.url, "tls": tls, "device": DEVICE.serial, "poll_least": 1, "register_device": True, "pin": 111115,
    }  # fmt: skip
    async with Bench(directory, ALL) as bench:
        bench.announce(INVERTER)
        it = Served(server, bench, lfdi_of(certificate))
        bench.make(CsipBridge, CsipBridge.Settings.model_validate(given | settings)).start()
        site = await eventually(lambda: server.site(it.lfdi), "it registers", 60)
        it.site = site["site_id"]
        await eventually(lambda: any(s.up for s in bench.router.bridges()), "it is up", 40)
        yield it


async def test_an_event_is_carried_out_and_the_default_comes_back(server, tmp_path):
    group = server.group(1)
    server.default(group, export=1500)
    async with served(server, tmp_path) as it:
        await it.comes("export_limit", 1500)
        server.control(group, it.site, 2, 6, export_limit_watts=2500, generation_limit_watts=4000)
        await it.comes("export_limit", 2500)
        await it.comes("active_power_limit", 80)
        await it.comes("export_limit", 1500)
        await it.comes("active_power_limit", 100)
