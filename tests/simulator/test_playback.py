"""A recording as a cloud: `simulate --like`."""

from datetime import UTC, datetime, timedelta

import pytest

from gateway.sems.catalogue import load
from gateway.sems.recording import Answer, Recording, Writer
from gateway.simulator.playback import Playback
from gateway.simulator.requests import RefusedError
from tests.dialects.cloud import MORNING, Cloud
from tests.dialects.collect import collect
from tests.dialects.program import gateway, values
from tests.kit.process import sems_gateway
from tests.simulator.kit import HOUSE, HOUSE_SERIAL, HandClock

CATALOGUE = load("open_api")
LATER = timedelta(days=160, hours=3)
"""From summer into winter."""


def recording(*answers, api="open_api"):
    return Recording(api, MORNING, "1.0.0", tuple(answers))


def answer(interface, args, data, after=0):
    return Answer(interface, args, MORNING + timedelta(seconds=after), 200, {"code": 0, "msg": "ok", "data": data})


def played(playback, interface, now=MORNING, **params):
    return playback.answer(CATALOGUE.interface(interface), params, now).body["data"]


@pytest.fixture
async def recorded():
    async with Cloud() as cloud:
        await cloud.log_in()
        [answers] = await collect(cloud.world, [cloud])
        return recording(*answers)


async def test_each_call_gets_what_was_recorded_for_it(recorded):
    async with Cloud(recording=recorded) as cloud:
        await cloud.log_in()
        for one in recorded.answers[: len(recorded.answers) // 2]:
            interface = CATALOGUE.interface(one.interface)
            path = cloud.catalogue.url_path(interface)
            where = {"params": one.args} if interface.method == "GET" else {"json": dict(one.args)}
            said = await cloud.http.request(interface.method, path, headers={"token": cloud.token}, **where)
            assert said.json() == one.body


async def test_a_token_is_needed_as_ever(recorded):
    async with Cloud(recording=recorded) as cloud:
        assert (await cloud.call("GetUserPlantList", page=1, page_size=100))["code"] != 0


async def test_what_was_not_recorded_is_refused_by_name(recorded):
    async with Cloud(recording=recorded) as cloud:
        await cloud.log_in()
        refused = await cloud.call("GetInverterBySN", serial="9010KETU218W7777")
        assert refused["data"] is None
        assert "no answer of GetInverterBySN for invertersn=9010KETU218W7777" in refused["msg"]
        refused = await cloud.call("SetInverterSwitch", serial=HOUSE_SERIAL, running=False)
        assert "takes no orders" in refused["msg"]
        assert not cloud.sems.controls


async def test_times_are_moved_to_now_by_the_plants_clock(recorded):
    async with Cloud(recording=recorded, clock=HandClock(MORNING + LATER)) as cloud:
        await cloud.log_in()
        said = await cloud.ask("GetInverterBySN", serial=HOUSE_SERIAL)
        # 07:00 UTC in summer was 09:00 in Munich; 10:00 UTC in winter is 11:00.
        assert said["last_refresh_time"] == "2026-11-28 11:00:00"
        assert (await cloud.ask("GetPlantDetail", plant=HOUSE.id))["last_refresh_time"] == "2026-11-28 11:00:00"


@pytest.mark.parametrize(
    ("text", "moved"),
    [
        ("2026-06-21 07:00:00", "2026-06-22 08:30:00"),
        ("21/06/2026 06:59", "22/06/2026 08:29"),
        ("06.21.2026 07:00:05", "06.22.2026 08:30:05"),
        ("2026-06-21T07:00:00Z", "2026-06-22T08:30:00Z"),
        ("2026-06-21T09:00:00+02:00", "2026-06-22T10:30:00+02:00"),
        ("1782025200", "1782117000"),
        (1782025200, 1782117000),
        (1782025200000, 1782117000000),
        # what is no time of measurement
        ("2019-03-01 12:00:00", "2019-03-01 12:00:00"),
        ("2026-06-21", "2026-06-21"),
        ("01.34.122", "01.34.122"),
        (36627.29, 36627.29),
        (True, True),
    ],
)
def test_times_are_known_by_being_near(text, moved):
    playback = Playback(recording(answer("GetHomeKit", {"sn": "x"}, {"a": text})))
    assert played(playback, "GetHomeKit", MORNING + timedelta(days=1, seconds=5400), sn="x") == {"a": moved}


def test_a_day_and_month_that_may_be_either_are_read_as_the_recording_has_them():
    time = datetime(2026, 11, 12, 8, 0, tzinfo=UTC)
    one = Answer("GetHomeKit", {"sn": "x"}, time, 200, {"code": 0, "data": {"a": "12/11/2026 08:00:00"}})
    playback = Playback(recording(one))
    assert played(playback, "GetHomeKit", time + timedelta(days=1), sn="x") == {"a": "13/11/2026 08:00:00"}


def test_rounds_come_one_after_the_other_and_the_last_stays():
    playback = Playback(recording(*(answer("GetHomeKit", {"sn": "x"}, {"n": n}, 600 * n) for n in range(3))))
    times = (0, 599, 600, 1300, 90_000)
    said = [played(playback, "GetHomeKit", MORNING + timedelta(seconds=s), sn="x")["n"] for s in times]
    assert said == [0, 0, 1, 2, 2]


def test_several_devices_are_put_together_from_calls_for_each():
    playback = Playback(
        recording(
            *(
                Answer(
                    "DeviceTelemetry", {"sns": [sn], "deviceType": 0}, MORNING, 200,
                    {"code": "00000", "data": {"deviceData": [{"sn": sn}]}},
                )
                for sn in "abc"
            )
        )
    )  # fmt: skip
    interface = load("developer").interface("DeviceTelemetry")
    said = playback.answer(interface, {"sns": ["a", "c"], "deviceType": 0}, MORNING).body["data"]
    assert said == {"deviceData": [{"sn": "a"}, {"sn": "c"}]}
    with pytest.raises(RefusedError, match="no answer"):
        playback.answer(interface, {"sns": ["z"], "deviceType": 0}, MORNING)


def test_a_day_that_was_not_asked_for_gets_the_one_that_was():
    playback = Playback(recording(answer("GetInverterPower", {"invertersn": "x", "date": "2026-06-21"}, {"pv": []})))
    assert played(playback, "GetInverterPower", invertersn="x", date="2026-11-28") == {"pv": []}
    with pytest.raises(RefusedError):
        played(playback, "GetInverterPower", invertersn="y", date="2026-11-28")


async def test_devices_and_a_gateway_show_what_was_recorded(recorded, tmp_path):
    path = tmp_path / "recording.jsonl"
    with Writer(path, "open_api", MORNING, "1.0.0") as writer:
        for one in recorded.answers:
            writer.write(one)
    asked = [one for one in recorded.answers if one.args == {"invertersn": HOUSE_SERIAL}]
    recorded_values = next(one.body["data"] for one in asked if one.interface == "GetInverterBySN")
    with sems_gateway("simulate", "--port", "0", "--like", path) as program:
        url = program.line(r"ready sems=(\S+)")[1]
        assert program.line(r"answers recorded at 2026-06-21T07:00:00")
        with gateway(tmp_path, url) as (config, http):
            shown = values(http, HOUSE_SERIAL, ("ac_power", "l1_voltage", "energy_total"))
            battery = asked_about(recorded, "GetBatteryBySN", "batterysn")
            assert values(http, battery, ("battery_soc",))["battery_soc"] > 0
            with sems_gateway("devices", config) as devices:
                assert devices.wait(60) == 0
    assert shown["ac_power"] == float(recorded_values["pac"])
    assert shown["l1_voltage"] == float(recorded_values["vac1"])
    assert shown["energy_total"] == float(recorded_values["etotal"])
    assert all(serial in devices.text for serial in (HOUSE_SERIAL, battery))


def asked_about(recorded, interface, field):
    return next(one.args[field] for one in recorded.answers if one.interface == interface)


def test_a_file_that_is_none_is_an_error_with_its_line(tmp_path):
    path = tmp_path / "no.jsonl"
    path.write_text("nothing\n")
    with sems_gateway("simulate", "--port", "0", "--like", path) as program:
        assert program.wait() == 1
    assert f"{path}:1: this is no recording" in program.text
