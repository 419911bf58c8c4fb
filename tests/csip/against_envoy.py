"""The bridge against envoy, by `make csip`: registration, programs, events and their ends, responses, telemetry.

In order, on one server, for its start takes a quarter of a minute; each test has a device and programs of its own.
"""

import signal
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import groupby

import msgspec
import pytest

from gateway.api.testing import DEVICE, eventually
from gateway.api.testing.bench import Bench
from gateway.bridges.csip import CsipBridge
from gateway.bridges.csip.identity import draws_of, lfdi_of
from gateway.bridges.csip.mapping import DEFAULTS
from gateway.commands.policy.policy import ControlSettings, Rule
from gateway.core.clock import SystemClock
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
        "battery_power_target": Range(0, 3000, 1),
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
        self.runner = None

    @property
    def status(self):
        return next(iter(self.bench.router.bridges()))

    @property
    def events(self):
        """Events as the bridge has read them."""
        return [c for program in self.runner.bridge._memory.programs or () for c in program.controls]

    def values(self, setpoint):
        """What it was set to, one after the other, each once."""
        sent = [each.value for each in self.bench.carried.sent if each.setpoint == setpoint]
        return [value for value, _ in groupby(sent)]

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
async def served(server, directory, signed=None, **settings):
    certificate, key = signed or server.authority.sign(next(NAMES))
    tls = {"certificate": certificate, "key": key, "ca": server.authority.pem}
    given = {
        "url": server.url, "tls": tls, "device": DEVICE.serial, "poll_least": 1, "register_device": True, "pin": 111115,
    }  # fmt: skip
    async with Bench(directory, ALL) as bench:
        bench.announce(INVERTER)
        it = Served(server, bench, settings.get("lfdi") or lfdi_of(certificate))
        it.runner = bench.make(CsipBridge, CsipBridge.Settings.model_validate(given | settings))
        it.runner.start()
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


async def test_starts_are_moved_by_what_was_drawn(server, tmp_path):
    """Some begin when envoy, which goes by the letter, lists them no more."""
    group = server.group(21)
    async with served(server, tmp_path) as it:
        asked = {"generation_limit_watts": 4000}, {"set_energized": False}
        for what in asked:
            server.control(group, it.site, 5, 15, randomize_start_seconds=20, **what)
        await eventually(lambda: len(it.events) == 2, "they are known", 60)
        events, offset = it.events, it.runner.bridge._memory.offset
        await it.answers([[1, 2, 3]] * 2)
        await it.comes("active_power_limit", 100)
        await it.comes("running", True)
        assert it.values("active_power_limit") == [80, 100]
        assert it.values("running") == [False, True]
        for event in events:
            assert event.random_start == 20
            [mode] = event.modes
            drawn = draws_of(it.lfdi, event.mrid)[0] * 20
            first = next(each for each in it.bench.carried.sent if each.setpoint == DEFAULTS[mode][0])
            begun = first.created.timestamp() + offset
            assert begun >= event.start + drawn - 2, "not before what was drawn; the server tells whole seconds"


async def test_what_is_cancelled_at_random_ends_within_that_time(server, tmp_path):
    group = server.group(22)
    async with served(server, tmp_path) as it:
        server.control(group, it.site, 0, 600, randomize_start_seconds=5, generation_limit_watts=1000)
        await it.comes("active_power_limit", 20)
        server.cancel_all(group)
        await it.comes("active_power_limit", 100)
        await it.answers([[1, 2, 6]])


async def test_events_in_a_row_leave_no_gap_whatever_was_drawn(server, tmp_path):
    """Made at once, so all of one creation time."""
    group = server.group(23)
    async with served(server, tmp_path) as it:
        rows = [{"generation_limit_watts": watts, "duration_seconds": 12} for watts in (1000, 2000, 3000)]
        server.controls(group, it.site, 4, [row | {"randomize_start_seconds": 6} for row in rows])
        await it.comes("active_power_limit", 60)
        await it.comes("active_power_limit", 100)
        assert it.values("active_power_limit") == [20, 40, 60, 100]
        await it.answers([[1, 2, 3]] * 3)


async def test_the_time_of_the_server_counts(server, tmp_path, monkeypatch):
    """Ours is an hour ahead."""
    monkeypatch.setattr(SystemClock, "now", lambda _: datetime.now(UTC) + timedelta(hours=1))
    group = server.group(24)
    async with served(server, tmp_path) as it:
        server.control(group, it.site, 2, 15, generation_limit_watts=2500)
        await it.comes("active_power_limit", 50)
        await it.comes("active_power_limit", 100)
        await it.answers([[1, 2, 3]])
        assert it.runner.bridge._memory.offset == pytest.approx(-3600, abs=5)


async def test_an_event_goes_on_while_the_server_fails_and_hangs(server, tmp_path):
    group = server.group(25)
    async with served(server, tmp_path, timeout=5) as it:
        server.control(group, it.site, 0, 3600, generation_limit_watts=1000)
        await it.comes("active_power_limit", 20)
        await it.answers([[1, 2]])
        for trouble, words in (
            (server.answering(500), "500"), (server.answering(404), "404"), (server.hanging(), "can't be reached"),
        ):  # fmt: skip
            with trouble:
                await eventually(lambda words=words: words in it.status.detail, words, 120)
                assert it.in_force("active_power_limit") == 20
            await eventually(lambda: it.status.up, "it is up again", 120)
        assert it.values("active_power_limit") == [20]
        assert server.responses(it.site) == [[1, 2]]


async def test_a_list_is_read_as_often_as_the_server_says(server, tmp_path):
    server.group(26)
    server.ask("POST", "/server_config/run_time", json={"edevl_pollrate_seconds": 3600})
    try:
        async with served(server, tmp_path) as it:
            events, devices = (server.asked(path) for path in (f"/edev/{it.site}/derp", "/edev?"))
            await eventually(lambda: server.asked(f"/edev/{it.site}/derp") > events + 3, "events are read", 120)
            assert server.asked("/edev?") == devices
    finally:
        server.ask("POST", "/server_config/run_time", json={"edevl_pollrate_seconds": 1})


async def test_an_aggregators_certificate_serves_each_of_its_devices_its_own(server, tmp_path):
    signed = server.authority.sign("aggregator")
    server.aggregator(lfdi_of(signed[0]))
    group = server.group(27)
    lfdis = [f"{n:02d}" * 20 for n in (11, 22)]
    for name in lfdis:
        (tmp_path / name).mkdir()
    async with (
        served(server, tmp_path / lfdis[0], signed, lfdi=lfdis[0]) as one,
        served(server, tmp_path / lfdis[1], signed, lfdi=lfdis[1]) as other,
    ):
        assert one.site != other.site
        server.control(group, one.site, 2, 15, generation_limit_watts=1000)
        server.control(group, other.site, 2, 15, generation_limit_watts=2000)
        await one.comes("active_power_limit", 20)
        await other.comes("active_power_limit", 40)
        for each, value in ((one, 20), (other, 40)):
            await each.comes("active_power_limit", 100)
            await each.answers([[1, 2, 3]])
            assert each.values("active_power_limit") == [value, 100]


async def test_a_certificate_that_has_expired_is_told_in_words(server, tmp_path):
    certificate, key = server.authority.sign("expired", days=-1)
    tls = {"certificate": certificate, "key": key, "ca": server.authority.pem}
    given = {"url": server.url, "tls": tls, "device": DEVICE.serial}
    async with Bench(tmp_path, ALL) as bench:
        bench.make(CsipBridge, CsipBridge.Settings.model_validate(given)).start()
        await eventually(lambda: any("has expired" in s.detail for s in bench.router.bridges()), "it is told", 60)


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
        values |= {"status": "normal", "battery_soc": 55.0, "battery_power": 800.0, "battery_capacity": 9.6}
        values |= {"available_up": 2000.0}
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
        numbers = "max_w_value, max_wh_value, max_charge_rate_w_value, max_discharge_rate_w_value"
        rating = f"SELECT {numbers}, doe_modes_supported, der_type FROM site_der_rating WHERE site_id = {it.site}"
        await eventually(lambda: server.rows(rating)[0][1] == "9600", "what it stores", 60)
        assert server.rows(rating) == [["5000", "9600", "3000", "3000", "5", "83"]]
        settings = f"SELECT {numbers}, doe_modes_enabled FROM site_der_setting WHERE site_id = {it.site}"
        assert server.rows(settings) == [["5000", "9600", "3000", "3000", "5"]]
        status = "SELECT state_of_charge_status, inverter_status, storage_mode_status FROM site_der_status"
        assert server.rows(f"{status} WHERE site_id = {it.site}") == [["5500", "4", "1"]]
        room = f"SELECT estimated_w_avail_value FROM site_der_availability WHERE site_id = {it.site}"
        assert server.rows(room) == [["2000"]]
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

    def answered(wanted):
        eventually_now(
            lambda: server.responses(site) == [wanted], otherwise=lambda: f"{server.responses(site)}, not {wanted}"
        )

    with plant.simulator():
        with plant.gateway() as gateway:
            site = eventually_now(lambda: server.site(lfdi), otherwise="it does not register")["site_id"]
            eventually_now(lambda: plant.true_limit() not in {None, 100.0}, otherwise="the default does not come")
            default = plant.true_limit()
            ends = time.time() + 60
            server.control(group, site, 0, 60, generation_limit_watts=1000)
            eventually_now(lambda: plant.true_limit() < default, otherwise="the event does not come")
            limited = plant.true_limit()
            assert limited == pytest.approx(default / 5, abs=1)
            answered([1, 2])
            kept = tmp_path / "data" / "utility-csip.json"
            eventually_now(
                lambda: kept.exists() and all(word in kept.read_text() for word in ('"started"', '"replies":[]')),
                otherwise="it is not kept",
            )
            gateway.end(signal.SIGKILL)
        with plant.gateway():
            eventually_now(lambda: plant.true_limit() != limited, otherwise="the event does not end")
            assert time.time() > ends - 2, "it ends before its time (the server tells whole seconds)"
            eventually_now(lambda: plant.true_limit() == default, otherwise="the default does not come back")
            answered([1, 2, 3])
        readings = "SELECT count(*) FROM site_reading JOIN site_reading_type USING (site_reading_type_id)"
        [[count]] = server.rows(f"{readings} WHERE site_id = {site}")
        assert int(count) > 3, "readings were posted"
