"""The bridge in a gateway's core, before a server over mutual TLS."""

import asyncio
import gc
import ssl
import warnings
from contextlib import asynccontextmanager
from datetime import timedelta

import msgspec
import pytest

from gateway.api.testing import DEVICE, eventually
from gateway.api.testing.bench import NAME, Bench
from gateway.bridges.csip import CsipBridge
from gateway.bridges.csip.settings import FallbackSettings
from gateway.commands.policy.policy import ControlSettings, Rule
from gateway.core.model import Range, Snapshot
from gateway.core.probe import Mark
from tests.bridges.csip.server import PIN, SPACES, listed, running, watts

ALL = ControlSettings(enabled=True, allow=[Rule(devices=["*"], setpoints=["*"])], max_per_minute=100_000)
SETPOINTS = {"export_limit": Range(0, 10_000, 1), "active_power_limit": Range(0, 100, 1), "running": Range()}
STORAGE = msgspec.structs.replace(DEVICE, rated_power=5000.0, setpoints=SETPOINTS)


@pytest.fixture(autouse=True)
def _hasty(monkeypatch):
    for name in ("AGAIN", "LOOK"):
        monkeypatch.setattr(f"gateway.bridges.csip.bridge.{name}", 0.1)


class Kit:
    def __init__(self, server, bench, settings):
        self.server, self.bench, self.settings = server, bench, settings
        self.runner = None

    def begin(self, **more):
        made = CsipBridge.Settings.model_validate(self.settings | more)
        self.runner = self.bench.make(CsipBridge, made)
        self.runner.start()

    def sent(self, setpoint="export_limit"):
        return [each for each in self.bench.carried.sent if each.setpoint == setpoint]

    async def comes(self, setpoint, value):
        await eventually(
            lambda: self.sent(setpoint) and self.sent(setpoint)[-1].value == value, f"{setpoint} {value}", 60
        )

    @property
    def status(self):
        return next(iter(self.bench.router.bridges()), None)

    async def down(self, words):
        await eventually(lambda: self.status and words in self.status.detail, words, 60)

    async def up(self):
        await eventually(lambda: self.status and self.status.up, "it is up", 60)

    def publish(self, age=0.0, interval=60.0, **values):
        at = self.bench.clock.now() - timedelta(seconds=age)
        self.bench.router.publish(
            Snapshot(serial=DEVICE.serial, time=at, source="kit", interval=interval, values=values)
        )

    def got(self, root):
        return [node for _, _, node in self.server.sent if node.name == root]


@asynccontextmanager
async def kit(directory, control=ALL, newest=ssl.TLSVersion.TLSv1_3):
    async with running(directory, newest) as (server, reached), Bench(directory, control) as bench:
        bench.announce(STORAGE)
        yield Kit(server, bench, {"device": DEVICE.serial, "poll_least": 1, "pin": PIN} | reached)


async def test_default_event_and_back_with_timers_and_responses(tmp_path):
    async with kit(tmp_path) as it:
        it.server.ahead = 5000  # its clock counts
        it.server.default = watts("opModExpLimW", 15, 2)
        it.server.control("E1", 0, 3, watts("opModExpLimW", 2500) + watts("opModGenLimW", 4000))
        it.begin()
        await it.comes("active_power_limit", 80)
        await it.comes("export_limit", 1500)
        await it.comes("active_power_limit", 100)
        limit = it.sent()[0]
        assert limit.value == 2500
        assert limit.revert_value == 1500, "a gateway that dies falls back to the default"
        assert 30 < limit.revert_after <= 33
        assert limit.expires - limit.created <= timedelta(seconds=3), "it is not carried out after its end"
        assert it.sent()[-1].revert_after is None
        assert limit.origin.startswith("under-test")
        await eventually(lambda: len(it.server.responses()) == 3, "three responses")
        assert it.server.responses() == [("E1", 1), ("E1", 2), ("E1", 3)]
        answered = it.got("DERControlResponse")[0]
        assert answered.string("endDeviceLFDI") == it.server.lfdi


async def test_a_silent_server_leads_to_the_fallback_and_a_restart_forgets_nothing(tmp_path):
    async with kit(tmp_path) as it:
        it.server.default = watts("opModExpLimW", 9000) + watts("opModGenLimW", 4500)
        it.server.control("E1", 0, 3600, watts("opModExpLimW", 2500))
        it.begin()
        await it.comes("export_limit", 2500)
        await it.comes("active_power_limit", 90)
        await eventually(lambda: len(it.server.responses()) == 2, "responses")
        it.server.down = True
        await it.down("what is known of events goes on")
        assert it.sent("active_power_limit")[-1].value == 90, "not silent for long enough yet"
        await it.runner.stop()
        it.bench.carried.sent.clear()
        it.begin(fallback=FallbackSettings.model_construct(after=0.5, limits={"opModGenLimW": 2000.0}))
        await it.comes("active_power_limit", 40)
        await it.comes("export_limit", 2500)
        it.server.down = False
        await it.comes("active_power_limit", 90)
        assert len(it.server.responses()) == 2, "nothing is said twice"


async def test_a_crash_has_one_response_told_twice_at_most(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.bridges.csip.bridge.SAVE", 3600.0)
    kept, waiting = tmp_path / f"{NAME}-csip.json", []

    def replies():
        return [each["status"] for each in msgspec.json.decode(kept.read_bytes())["replies"]] if kept.exists() else None

    async with kit(tmp_path) as it:
        answer = it.server._answer

        def looked(method, path, query, body):
            if path == "/rsp":
                waiting.append(replies())
            return answer(method, path, query, body)

        it.server._answer = looked
        it.server.control("E1", -5, 3600, watts("opModExpLimW", 2500))
        it.begin()
        await eventually(lambda: len(it.server.responses()) == 2, "responses")
        assert waiting == [[1, 2], [2]], "what a crash during each response would have told again"
        await eventually(lambda: replies() == [], "what was told is kept")
        crashed = kept.read_bytes()
        await it.runner.stop()
        kept.write_bytes(crashed)
        it.begin()
        asked = len(it.server.asked)
        await eventually(lambda: len(it.server.asked) > asked + 12, "a round or two")
        assert it.server.responses() == [("E1", 1), ("E1", 2)], "nothing is said twice"


async def test_what_is_in_force_no_more_is_let_go_of(tmp_path):
    async with kit(tmp_path) as it:
        it.server.control("E1", 0, 3600, watts("opModExpLimW", 2500))
        it.begin()
        await it.comes("export_limit", 2500)
        assert it.sent()[-1].revert_value == "none"
        it.server.controls.clear()
        it.server.control("E1", 0, 3600, watts("opModExpLimW", 2500), status=2)
        await it.comes("export_limit", "none")
        await eventually(lambda: ("E1", 6) in it.server.responses(), "cancelled")


async def test_what_policy_refuses_is_told_at_the_end(tmp_path):
    closed = ControlSettings(enabled=True, allow=[Rule(devices=["*"], setpoints=["running"])])
    async with kit(tmp_path, closed) as it:
        it.server.control("E1", 0, 2, watts("opModExpLimW", 2500))
        it.begin()
        await eventually(lambda: ("E1", 10) in it.server.responses(), "no participation")
        assert it.sent() == []


async def test_a_limit_that_the_device_can_not_keep_is_told_as_met_in_part(tmp_path):
    async with kit(tmp_path) as it:
        low = msgspec.structs.replace(STORAGE, setpoints=SETPOINTS | {"active_power_limit": Range(20, 100, 1)})
        it.bench.announce(low)
        it.server.control("E1", 0, 2, watts("opModGenLimW", 100))
        it.begin()
        await it.comes("active_power_limit", 20)
        await eventually(lambda: ("E1", 8) in it.server.responses(), "in part")


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (b'<!DOCTYPE x [<!ENTITY a "aaaa">]><x xmlns="urn:ieee:std:2030.5:ns">&a;</x>', "document type"),
        (f"<DeviceCapability {SPACES}>".encode() + b"<TimeLink/>" * 30_000 + b"</DeviceCapability>", "elements"),
        (b" " * 2_000_000, "max_bytes"),
        (b"\xff\xfe<", "no XML"),
        (500, "500"),
        (
            f'<DeviceCapability {SPACES}><EndDeviceListLink href="https://127.0.0.2/edev"/></DeviceCapability>',
            "another server",
        ),
        (f"<DeviceCapability {SPACES}/>", "does not know our certificate"),
    ],
)
async def test_a_server_that_is_of_no_use_is_told_in_words(tmp_path, document, words):
    async with kit(tmp_path) as it:
        it.server.documents["/dcap"] = document
        it.begin()
        await it.down(words)
        it.server.serve()
        await it.up()


async def test_nothing_is_taken_where_the_pin_or_the_lfdi_is_another(tmp_path):
    async with kit(tmp_path) as it:
        it.server.default = watts("opModExpLimW", 1)
        it.server.serve()
        it.begin(pin=222220)
        await it.down("another PIN")
        await it.runner.stop()
        it.begin(lfdi="00" * 20)
        await it.down("no EndDevice")
        assert it.bench.carried.sent == []


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_certificate_that_is_refused_is_told_in_words(tmp_path, newest):
    other = tmp_path / "other"
    other.mkdir()
    async with kit(tmp_path, newest=newest) as it, running(other) as (_, stranger):
        it.begin(tls=it.settings["tls"] | {k: stranger["tls"][k] for k in ("certificate", "key")})
        await it.down("refuses our certificate")
        await it.runner.stop()
        it.begin(tls=it.settings["tls"] | {"ca": stranger["tls"]["ca"]})
        await it.down("unknown CA")


async def test_a_handshake_that_is_cut_off_leaves_no_socket_behind(tmp_path):
    begun = asyncio.Event()

    async def silent(reader, writer):
        await reader.read(1)
        begun.set()
        await reader.read()
        writer.transport.abort()

    with warnings.catch_warnings(record=True) as left:
        warnings.simplefilter("always")
        async with kit(tmp_path) as it, await asyncio.start_server(silent, "127.0.0.1", 0) as listener:
            it.begin(url=f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}/dcap")
            await begun.wait()
            await it.runner.stop()
            gc.collect()
    assert not [str(each.message) for each in left if "unclosed" in str(each.message)]


async def test_doctor_says_who_we_are_and_whether_the_server_answers(tmp_path):
    async with kit(tmp_path) as it:
        bridge = it.bench.make(CsipBridge, CsipBridge.Settings.model_validate(it.settings)).bridge
        found = [each async for each in bridge.probe()]
        assert [each.mark for each in found] == [Mark.WELL, Mark.WELL]
        assert it.server.lfdi in found[0].text
        it.server.down = True
        assert [each async for each in bridge.probe()][-1].mark is Mark.WRONG


async def test_lists_are_read_page_by_page(tmp_path):
    async with kit(tmp_path) as it:
        it.server.control("E1", 0, 3600, watts("opModExpLimW", 2500))
        it.server.control("E2", 0, 3600, watts("opModGenLimW", 2500))
        first, second = it.server.controls
        it.server.documents["/P1/c"] = lambda query: listed("DERControl", second if "s=1" in query else first, total=2)
        it.begin()
        await it.comes("export_limit", 2500)
        await it.comes("active_power_limit", 50)


async def test_telemetry_is_of_the_newest_good_state_and_posted_once(tmp_path):
    async with kit(tmp_path) as it:
        it.publish(grid_power=1200.0, ac_power=3000.0, l1_voltage=230.5, battery_soc=55.0, status="normal")
        it.begin()
        await eventually(lambda: len(it.got("MirrorUsagePoint")) == 2, "usage points of site and DER")
        site, der = it.got("MirrorUsagePoint")
        assert [each.string("roleFlags") for each in (site, der)] == ["0003", "0049"]
        assert values(site) == {"38": 1200, "29": 2305}
        assert values(der) == {"38": -3000, "29": 2305}
        [status] = it.got("DERStatus")
        assert status.one("stateOfChargeStatus").needed("value") == 5500
        assert status.one("genConnectStatus").string("value") == "07"
        assert it.got("DERCapability")[0].string("doeModesSupported") == "05"
        assert it.got("DERSettings")[0].one("setMaxW").needed("value") == 5000
        asked = len(it.server.asked)
        await eventually(lambda: len(it.server.asked) > asked + 12, "a round or two")
        assert len(it.got("DERStatus")) == 1
        assert it.got("MirrorMeterReadingList") == []
        it.publish(ac_power=100.0, grid_power=0.0)
        await eventually(lambda: len(it.got("MirrorMeterReadingList")) == 2, "new readings")


async def test_what_a_battery_is_and_does_is_told_once_it_is_known(tmp_path):
    async with kit(tmp_path) as it:
        takes = SETPOINTS | {"battery_mode": Range(), "battery_power_target": Range(0, 3000, 1)}
        it.bench.announce(msgspec.structs.replace(STORAGE, setpoints=takes))
        it.publish(
            age=40, ac_power=0.0, battery_soc=55.0, battery_power=-1200.0, status="normal", available_up=40_000.0
        )
        it.begin()
        await eventually(lambda: it.got("DERAvailability"), "availability")
        [status], [room] = it.got("DERStatus"), it.got("DERAvailability")
        assert status.one("storageModeStatus").needed("value") == 0
        assert room.one("statWAvail").needed("value") * 10 ** room.one("statWAvail").needed("multiplier") == 40_000
        it.publish(ac_power=0.0, battery_soc=55.0, battery_power=900.0, status="normal", battery_capacity=9.6)
        await eventually(lambda: len(it.got("DERSettings")) == 2, "the capacity is known now")
        for root, prefix in (("DERCapability", "rtg"), ("DERSettings", "set")):
            first, second = it.got(root)
            assert first.one(f"{prefix}MaxWh") is None
            assert second.one(f"{prefix}MaxWh").needed("value") == 9600
            for name in ("MaxChargeRateW", "MaxDischargeRateW"):
                assert second.one(prefix + name).needed("value") == 3000
        await eventually(lambda: len(it.got("DERStatus")) == 2, "the status too")
        assert it.got("DERStatus")[1].one("storageModeStatus").needed("value") == 1


@pytest.mark.parametrize("status", [404, 500])
async def test_what_the_server_does_not_take_keeps_nothing_else_back(tmp_path, status):
    async with kit(tmp_path) as it:
        it.publish(ac_power=3000.0, status="normal")
        it.server.documents["PUT /der/c"] = status
        it.begin()
        await eventually(lambda: it.got("MirrorUsagePoint"), "readings")
        assert it.got("DERStatus")
        assert it.got("DERSettings")
        del it.server.documents["PUT /der/c"]
        asked = len(it.got("DERCapability"))
        await eventually(lambda: len(it.got("DERCapability")) == asked + 1, "it is told again")


@pytest.mark.parametrize("status", [404, 500])
async def test_events_are_followed_where_what_the_device_is_can_not_be_told(tmp_path, status):
    async with kit(tmp_path) as it:
        it.server.default = watts("opModExpLimW", 1500)
        it.server.serve()
        it.server.documents["/der"] = status
        it.begin()
        await it.comes("export_limit", 1500)
        await it.up()


@pytest.mark.parametrize("path", ["/edev", "/fsa", "/derp", "/P1/c"])
@pytest.mark.parametrize("status", [404, 500])
async def test_a_server_with_a_part_missing_is_told_and_what_is_known_goes_on(tmp_path, path, status):
    async with kit(tmp_path) as it:
        it.server.control("E1", 0, 3600, watts("opModExpLimW", 2500))
        it.begin()
        await it.comes("export_limit", 2500)
        it.server.documents[path] = status
        await it.down(f"GET {path}")
        assert it.sent()[-1].value == 2500
        it.server.serve()
        await it.up()
        assert it.sent()[-1].value == 2500
        assert ("E1", 6) not in it.server.responses(), "that a list can't be read cancels nothing"


async def test_a_server_that_is_slow_is_told_and_heard_again(tmp_path):
    async with kit(tmp_path) as it:
        it.server.default = watts("opModExpLimW", 1500)
        it.server.serve()
        it.server.waits.clear()
        it.begin(timeout=0.5)
        await it.down("what is known of events goes on")
        it.server.waits.set()
        await it.comes("export_limit", 1500)
        await it.up()


async def test_each_resource_is_asked_for_as_often_as_the_server_says(tmp_path):
    async with kit(tmp_path) as it:
        for path in ("/edev", "/fsa", "/derp"):
            it.server.documents[path] = it.server.documents[path].replace('pollRate="1"', 'pollRate="86400"')
        it.begin()
        await eventually(lambda: it.server.asked.count(("GET", "/P1/c?s=0&l=100")) == 4, "events are asked for")
        counts = [it.server.asked.count(("GET", f"{path}?s=0&l=100")) for path in ("/edev", "/fsa", "/derp")]
        assert counts == [1, 1, 1]


async def test_readings_are_posted_as_often_as_the_usage_point_says(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.bridges.csip.telemetry.POLL_RATE", 0)
    async with kit(tmp_path) as it:
        it.server.documents["/edev"] = it.server.documents["/edev"].replace("<postRate>1</postRate>", "")
        it.publish(age=50, ac_power=3000.0)
        it.begin(telemetry={"post_rate": 86_400})
        await eventually(lambda: it.got("MirrorUsagePoint"), "a usage point")
        for age in (40, 30):
            it.publish(age=age, ac_power=100.0)
            posted = len(it.got("MirrorMeterReadingList"))
            await eventually(lambda posted=posted: len(it.got("MirrorMeterReadingList")) > posted, "the next ones")
        made = len(it.got("MirrorUsagePoint"))
        it.server.documents["/mup/1"] = 404
        it.publish(age=20, ac_power=100.0)
        await eventually(lambda: len(it.got("MirrorUsagePoint")) > made, "one that is lost is made again")


@pytest.mark.parametrize(("days", "begins", "words"), [(-1, -1, "has expired"), (30, 2, "is valid from")])
async def test_a_certificate_out_of_its_time_is_told_whatever_the_server_says(tmp_path, days, begins, words):
    async with kit(tmp_path) as it:
        certificate, key = it.server.authority.sign("old", days=days, begins=begins)
        tls = it.settings["tls"] | {"certificate": certificate, "key": key}
        it.begin(tls=tls)
        await it.down(words)
        bridge = it.bench.make(CsipBridge, CsipBridge.Settings.model_validate(it.settings | {"tls": tls})).bridge
        assert words in next(each.text for each in [p async for p in bridge.probe()] if each.mark is Mark.WRONG)


async def test_a_stale_value_is_not_posted(tmp_path):
    async with kit(tmp_path) as it:
        it.publish(age=1000, interval=1, ac_power=3000.0)
        it.begin()
        await it.up()
        await eventually(lambda: it.got("DERCapability"), "what does not age is posted")
        asked = len(it.server.asked)
        await eventually(lambda: len(it.server.asked) > asked + 12, "a round or two")
        assert not it.got("MirrorUsagePoint")
        assert not it.got("DERStatus")


def values(point):
    return {
        each.one("ReadingType").string("uom"): each.one("Reading").needed("value")
        for each in point.all("MirrorMeterReading")
    }
