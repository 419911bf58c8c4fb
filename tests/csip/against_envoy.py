"""The bridge against envoy, by `make csip`: registration, programs, events and their ends, responses, telemetry.

In order, on one server, for its start takes a quarter of a minute; each test has a device and programs of its own.
"""

import signal
from contextlib import asynccontextmanager

import msgspec
import pytest

from gateway.api.testing import DEVICE, eventually
from gateway.api.testing.bench import Bench
from gateway.bridges.csip import CsipBridge
from gateway.bridges.csip.identity import lfdi_of
from gateway.commands.policy.policy import ControlSettings, Rule
from gateway.core.model import Range, Snapshot
from tests.csip.envoy import ENVOY, envoy
from tests.kit.certificates import Authority
from tests.kit.process import eventually as eventually_now
from tests.system import conftest as inverters
from tests.system.conftest import Plant

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

    async def answers(self, wanted):
        try:
            await eventually(lambda: self.server.responses(self.site) == wanted, "", 60)
        except TimeoutError:
            raise AssertionError(f"{self.server.responses(self.site)}, not {wanted}") from None


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
        server.control(group, it.site, 2, 15, export_limit_watts=2500, generation_limit_watts=4000)
        await it.comes("export_limit", 2500)
        await it.comes("active_power_limit", 80)
        await it.comes("export_limit", 1500)
        await it.comes("active_power_limit", 100)
        await it.answers([[1, 2, 3]])
        limit = next(each for each in it.bench.carried.sent if each.value == 2500)
        assert limit.revert_value == 1500
        assert (limit.expires - limit.created).total_seconds() <= 15


async def test_an_event_is_cancelled(server, tmp_path):
    group = server.group(2)
    async with served(server, tmp_path) as it:
        server.control(group, it.site, 0, 600, set_energized=False)
        await it.comes("running", False)
        server.cancel_all(group)
        await it.comes("running", True)
        await it.answers([[1, 2, 6]])


async def test_a_program_that_counts_more_supersedes(server, tmp_path):
    more, less = server.group(10), server.group(20)
    async with served(server, tmp_path) as it:
        server.control(less, it.site, 0, 600, generation_limit_watts=3000)
        await it.comes("active_power_limit", 60)
        server.control(more, it.site, 2, 15, generation_limit_watts=1000)
        await it.comes("active_power_limit", 20)
        await it.comes("active_power_limit", 100)
        await eventually(lambda: [1, 2, 3] in server.responses(it.site), "it is answered", 60)
        first, second = server.responses(it.site)
        assert first[:2] == [1, 2]
        assert first[-1] in {7, 14}
        assert second == [1, 2, 3]


async def test_an_event_that_is_not_applicable_is_refused(server, tmp_path):
    group = server.group(3)
    async with served(server, tmp_path) as it:
        server.control(group, it.site, 0, 600, load_limit_watts=1000)
        await it.answers([[252]])


async def test_what_the_device_is_and_measures_arrives(server, tmp_path):
    server.group(4)
    async with served(server, tmp_path, connection_point="1234567890") as it:
        values = {"ac_power": 3000.0, "grid_power": 500.0, "l1_voltage": 230.5, "ac_reactive_power": 100.0}
        at = it.bench.clock.now()
        values |= {"status": "normal", "battery_soc": 55.0}
        it.bench.router.publish(Snapshot(serial=DEVICE.serial, time=at, source="kit", interval=60, values=values))
        readings = (
            "SELECT role_flags, uom, value, power_of_ten_multiplier FROM site_reading "
            f"JOIN site_reading_type USING (site_reading_type_id) WHERE site_id = {it.site} ORDER BY 1, 2"
        )
        await eventually(lambda: len(server.rows(readings)) == 5, "readings", 60)
        assert server.rows(readings) == [
            ["3", "29", "2305", "-1"],
            ["3", "38", "500", "0"],
            ["73", "29", "2305", "-1"],
            ["73", "38", "-3000", "0"],
            ["73", "63", "-100", "0"],
        ]
        rating = f"SELECT max_w_value, doe_modes_supported, der_type FROM site_der_rating WHERE site_id = {it.site}"
        assert server.rows(rating) == [["5000", "5", "83"]]
        settings = f"SELECT max_w_value, doe_modes_enabled FROM site_der_setting WHERE site_id = {it.site}"
        assert server.rows(settings) == [["5000", "5"]]
        status = f"SELECT state_of_charge_status, inverter_status FROM site_der_status WHERE site_id = {it.site}"
        assert server.rows(status) == [["5500", "4"]]
        assert server.rows(f"SELECT nmi FROM site WHERE site_id = {it.site}") == [["1234567890"]]


async def test_a_wrong_pin_takes_nothing(server, tmp_path):
    group = server.group(5)
    server.default(group, export=100)
    certificate, key = server.authority.sign("other")
    tls = {"certificate": certificate, "key": key, "ca": server.authority.pem}
    given = {"url": server.url, "tls": tls, "device": DEVICE.serial, "poll_least": 1, "register_device": True}
    async with Bench(tmp_path, ALL) as bench:
        bench.announce(INVERTER)
        bench.make(CsipBridge, CsipBridge.Settings.model_validate(given | {"pin": 222220})).start()
        await eventually(lambda: any("another PIN" in s.detail for s in bench.router.bridges()), "it is down", 60)
        assert bench.carried.sent == []


async def test_a_certificate_of_another_ca_is_told_in_words(server, tmp_path):
    stranger = Authority(tmp_path, "stranger")
    certificate, key = stranger.sign("device")
    tls = {"certificate": certificate, "key": key, "ca": server.authority.pem}
    given = {"url": server.url, "tls": tls, "device": DEVICE.serial}
    async with Bench(tmp_path, ALL) as bench:
        bench.make(CsipBridge, CsipBridge.Settings.model_validate(given)).start()
        await eventually(lambda: any("certificate" in s.detail for s in bench.router.bridges()), "it is told", 60)


CONFIG = """\
gateway: {{id: csip-test}}
bridges:
  sems:
    {{type: open_api, account: demo, password: demo, url: "http://127.0.0.1:{sems}", poll_interval: 1,
      calls_per_hour: 1000000}}
  utility:
    type: csip
    url: {server.url}
    tls: {{certificate: {certificate}, key: {key}, ca: {server.authority.pem}}}
    device: {INVERTER}
    register_device: true
    pin: 111115
    poll_least: 1
control:
  enabled: true
  allow: [{{origins: [utility], devices: ["{INVERTER}"], setpoints: [active_power_limit]}}]
"""


def test_the_power_of_a_simulated_inverter_follows_through_a_kill(server, tmp_path):
    """envoy, the gateway and the simulated SEMS as programs, and the gateway killed in the middle of an event."""
    group = server.group(0)
    server.default(group, generation=5000)
    certificate, key = server.authority.sign("house")
    plant = Plant(tmp_path)
    text = CONFIG.format(sems=plant.sems, server=server, certificate=certificate, key=key, INVERTER=inverters.INVERTER)
    plant.config.write_text(text)
    lfdi = lfdi_of(certificate)
    with plant.simulator():
        with plant.gateway() as gateway:
            site = eventually_now(lambda: server.site(lfdi), otherwise="it does not register")["site_id"]
            eventually_now(lambda: plant.true_limit() not in {None, 100.0}, otherwise="the default does not come")
            default = plant.true_limit()
            server.control(group, site, 0, 40, generation_limit_watts=1000)
            eventually_now(lambda: plant.true_limit() < default, otherwise="the event does not come")
            limited = plant.true_limit()
            assert limited == pytest.approx(default / 5, abs=1)
            eventually_now(lambda: server.responses(site) == [[1, 2]])
            kept = tmp_path / "data" / "utility-csip.json"
            eventually_now(lambda: kept.exists() and '"started"' in kept.read_text(), otherwise="it is not kept")
            gateway.end(signal.SIGKILL)
        with plant.gateway():
            assert plant.true_limit() == limited
            eventually_now(lambda: plant.true_limit() == default, otherwise="the event does not end")
            eventually_now(lambda: server.responses(site) == [[1, 2, 3]])
        readings = "SELECT count(*) FROM site_reading JOIN site_reading_type USING (site_reading_type_id)"
        [[count]] = server.rows(f"{readings} WHERE site_id = {site}")
        assert int(count) > 3, "readings were posted"
