"""Reading by the plan, on virtual time: within the account's calls, and each number's trouble its own."""

import asyncio
from datetime import timedelta
from itertools import pairwise

import pytest
from structlog.testing import capture_logs

from gateway.bridges.realtime.listing import TURN
from gateway.bridges.realtime.roster import Roster, State
from gateway.core.model import Quality
from gateway.sems.budget import HOUR
from gateway.sems.errors import (
    NoLicenceError,
    RateLimitedError,
    SemsRefusedError,
    UnauthorisedError,
    UnreachableError,
    WebPageError,
    WrongParameterError,
)
from tests.bridges.realtime.kit import World
from tests.kit.clock import FakeClock, virtual

DAY = 86_400


def fleet(count, type_="inverter"):
    return {f"SN{n:05}": type_ for n in range(count)}


def most_in_an_hour(times):
    return max(sum(at - HOUR < other <= at for other in times) for at in times)


@virtual
async def test_a_hundred_numbers_are_one_call_a_minute(tmp_path):
    async with World(tmp_path, fleet(250)) as world:
        await asyncio.sleep(600)
        reads = world.calls("inverter", since=world.clock.monotonic() - 300)
        assert len(reads) == pytest.approx(15, abs=1)
        assert {len(serials) for _, serials in reads} == {100, 50}
        assert all(world.desk.router.state(serial).quality is Quality.GOOD for serial in world.roster)
        snapshot = world.desk.published[-1][1]
        assert (snapshot.interval, snapshot.values["pv_power"]) == (60, 1000.0)
        assert world.desk.reports[-1] == (True, "")
        assert len(world.calls("alarm")) == pytest.approx(6, abs=3)


@virtual(only="virtual")  # many seconds
async def test_the_interval_is_stretched_rather_than_the_calls_overrun(tmp_path):
    async with World(tmp_path, fleet(600), per_hour=100) as world:
        await asyncio.sleep(1.5 * HOUR)
        assert world.reader.plan.interval > 120
        times = [at for at, *_ in world.sems.calls]
        assert most_in_an_hour(times) <= 90
        assert all(world.desk.router.state(serial).quality is Quality.GOOD for serial in world.roster)
        assert world.sems.budget.planned == pytest.approx(world.reader.plan.per_hour)
    assert world.sems.budget.planned == 0


@virtual
async def test_calls_are_made_in_parallel_but_no_more_than_so_many(tmp_path):
    async with World(tmp_path, fleet(1000), parallel=3) as world:
        under_way, most = set(), 0

        async def call(name, args, **_):
            nonlocal most
            under_way.add(id(args))
            most = max(most, len(under_way))
            try:
                return await answer(name, args)
            finally:
                under_way.discard(id(args))

        answer, world.sems.call = world.sems.call, call
        await asyncio.sleep(120)
        assert most == 3


@virtual
async def test_another_bridge_of_the_account_leaves_it_its_share(tmp_path):
    async with World(tmp_path, fleet(600), per_hour=100) as world:
        world.sems.budget.plan("sems", world.sems.budget.for_polling)
        await asyncio.sleep(700)
        assert world.reader.plan.limit == pytest.approx(world.sems.budget.for_polling / 2)


# types


@virtual
async def test_types_are_found_by_asking_where_nothing_lists_them(tmp_path):
    devices = {"A": "inverter", "B": "storage", "C": "battery", "D": "meter", "E": "ev_charger"}
    async with World(tmp_path, devices, lists=False) as world:
        await asyncio.sleep(120)
        assert {serial: world.roster.type_of(serial) for serial in devices} == devices
        assert [len(s) for _, s in world.calls("inverter")[:1]] == [5]
        assert world.desk.reports[-1] == (True, "")
        seeking = len(world.sems.calls)
    async with World(tmp_path, devices, lists=False, clock=world.clock) as again:
        await asyncio.sleep(30)
        assert again.calls("battery")
        assert all("A" not in serials for _, serials in again.calls("storage")), "types are kept over a restart"
        assert len(again.sems.calls) < seeking


@virtual
async def test_types_that_are_given_are_not_asked_about_and_a_wrong_one_is_said(tmp_path):
    given = {"A": "storage", "B": "battery"}
    async with World(tmp_path, {"A": "storage", "B": "inverter"}, lists=False, types=given) as world:
        await asyncio.sleep(120)
        assert not world.calls("inverter")
        assert world.values("A")
        assert world.roster.state("B") is State.UNKNOWN
        assert "1 of 2 numbers unknown to SEMS: B" in world.desk.reports[-1][1]


@virtual
async def test_a_number_that_becomes_another_type_is_found_again(tmp_path):
    async with World(tmp_path, {"A": "inverter"}, lists=False) as world:
        await asyncio.sleep(120)
        world.sems.devices["A"] = "storage"
        await asyncio.sleep(120)
        assert world.roster.type_of("A") == "storage"
        assert world.calls("storage")


# refused numbers


@virtual
async def test_a_refused_number_is_said_once_and_asked_about_daily_also_over_restarts(tmp_path):
    devices = fleet(3)
    with capture_logs() as log:
        async with World(tmp_path, devices, poll_interval=1800) as world:
            world.sems.refused["SN00001"] = "W0403"
            await asyncio.sleep(3 * DAY + 3600)
            asked = [at for at, serials in world.calls("inverter") if "SN00001" in serials]
            assert len(asked) == 4
            assert all(at - before >= DAY for before, at in pairwise(asked))
            assert world.values("SN00000")["pv_power"] == 1000.0
            assert world.values("SN00001") is None
            assert world.desk.reports[-1] == (True, "1 of 3 numbers unauthorised: SN00001")
        async with World(tmp_path, devices, clock=world.clock, poll_interval=1800) as again:
            again.sems.refused["SN00001"] = "W0403"
            await asyncio.sleep(DAY / 2)
            assert not [at for at, serials in again.calls("inverter") if "SN00001" in serials]
            again.sems.refused.clear()
            await asyncio.sleep(DAY)
            assert again.values("SN00001")["pv_power"] == 1000.0
            assert again.desk.reports[-1] == (True, "")
    lines = [entry["event"] for entry in log if entry.get("serial") == "SN00001"]
    assert lines == ["SEMS has no data for a number (unauthorised)", "SEMS answers for a number again"]


@virtual
async def test_one_that_was_read_and_is_refused_goes_stale_and_the_others_do_not(tmp_path):
    async with World(tmp_path, fleet(3)) as world:
        await asyncio.sleep(120)
        world.sems.refused["SN00001"] = "W0403"
        await asyncio.sleep(300)
        world.desk.router.age()
        states = {serial: world.desk.router.state(serial).quality for serial in world.roster}
        assert states == {"SN00000": Quality.GOOD, "SN00001": Quality.STALE, "SN00002": Quality.GOOD}


@virtual
async def test_a_cloud_that_refuses_the_whole_batch_for_one_number_is_asked_in_halves(tmp_path):
    async with World(tmp_path, fleet(100)) as world:
        world.sems.spoil = lambda name, serials: (
            UnauthorisedError("W0403", "no") if name == "inverter" and "SN00042" in serials else None
        )
        await asyncio.sleep(600)
        assert world.roster.state("SN00042") is State.UNAUTHORISED
        assert all(world.values(serial) for serial in world.roster if serial != "SN00042")
        assert world.reader.troubled == 0


def _refuses(*bad, code="100004"):
    def spoil(name, serials):
        if not set(bad) & set(serials):
            return None
        if code == "GY0404":
            return SemsRefusedError(code, "no such device")
        return WrongParameterError(code, "parameter error", name, ["sns"])

    return spoil


@virtual
@pytest.mark.parametrize("code", ["100004", "GY0404"])
@pytest.mark.parametrize("lists", [True, False])
async def test_one_bad_number_that_refuses_the_call_whole_is_found_named_and_kept(tmp_path, code, lists):
    """From the first call on, where nothing was ever answered: 100 of 100 were stale for ever."""
    devices = fleet(100)
    with capture_logs() as log:
        async with World(tmp_path, devices, lists=lists) as world:
            world.sems.spoil = _refuses("SN00042", code=code)
            await asyncio.sleep(900)
            assert [serial for serial in devices if not world.values(serial)] == ["SN00042"]
            up, said = world.desk.reports[-1]
            assert up
            assert "1 of 100 numbers unknown to SEMS: SN00042" in said
            found = len(world.sems.calls)
            assert found < 90
            await asyncio.sleep(3600)
            assert not [s for at, s in world.calls("inverter", world.clock.monotonic() - 3500) if "SN00042" in s]
        async with World(tmp_path, devices, lists=lists, clock=world.clock, poll_interval=1800) as again:
            again.sems.spoil = _refuses("SN00042", code=code)
            await asyncio.sleep(900)
            assert not [s for _, s in again.calls("inverter") if "SN00042" in s], "kept over a restart"
            assert again.values("SN00041")
            again.sems.spoil = lambda *_: None
            await asyncio.sleep(DAY)
            assert again.values("SN00042"), "right again, it comes back"
    assert len([e for e in log if e.get("serial") == "SN00042" and e["log_level"] == "warning"]) == 1


@virtual
async def test_where_calls_are_few_the_halving_goes_on_over_rounds_and_restarts(tmp_path):
    devices = fleet(100)
    bad = ("SN00000", "SN00050", "SN00099")
    clock = None
    async with World(tmp_path, devices, lists=False, per_hour=100, types=devices, poll_interval=300) as world:
        clock = world.clock
        world.sems.spoil = _refuses(*bad)
        await asyncio.sleep(3 * HOUR)
        first = sum(1 for serial in devices if world.values(serial))
        assert most_in_an_hour([at for at, *_ in world.sems.calls]) <= 100
    assert first
    async with World(
        tmp_path, devices, lists=False, per_hour=100, types=devices, poll_interval=300, clock=clock
    ) as world:
        world.sems.spoil = _refuses(*bad)
        await asyncio.sleep(3 * HOUR)
        assert [serial for serial in devices if not world.values(serial)] == list(bad)


@virtual
async def test_a_number_that_spoils_only_the_alarms_is_left_out_of_them_and_read(tmp_path):
    async with World(tmp_path, fleet(100)) as world:
        await asyncio.sleep(600)
        bad = _refuses("SN00042")
        world.sems.spoil = lambda name, serials: bad(name, serials) if name == "alarm" else None
        await asyncio.sleep(2 * HOUR)
        since = world.clock.monotonic()
        await asyncio.sleep(2 * HOUR)
        asked = [serials for _, serials in world.calls("alarm", since)]
        assert max(map(len, asked)) >= 49
        assert len([serials for serials in asked if "SN00042" in serials]) <= 4
        assert world.reader.troubled == 0
        assert world.values("SN00042")


@virtual
async def test_none_authorised_is_down_and_says_what_to_do(tmp_path):
    async with World(tmp_path, fleet(7)) as world:
        world.sems.refused = dict.fromkeys(fleet(7), "W0403")
        await asyncio.sleep(120)
        up, said = world.desk.reports[-1]
        assert not up
        assert "7 of 7 numbers unauthorised: SN00000, SN00001, SN00002, SN00003, SN00004 and 2 more" in said
        assert "whitelist" in said


@virtual
async def test_a_number_that_no_data_type_knows(tmp_path):
    async with World(tmp_path, {"A": "inverter"}, ["A", "B"], lists=False) as world:
        await asyncio.sleep(120)
        assert world.roster.state("B") is State.UNKNOWN
        assert len([at for at, s in world.calls("meter") if "B" in s]) == 1
        assert world.values("A")


# troubles of calls


@virtual
async def test_no_licence_is_asked_about_ever_more_seldom(tmp_path):
    async with World(tmp_path, fleet(3), parallel=1) as world:
        world.sems.spoil = lambda *_: NoLicenceError("GY0403", "the agreement has ended")
        await asyncio.sleep(4 * HOUR)
        assert len(world.sems.calls) <= 7
        up, said = world.desk.reports[-1]
        assert not up
        assert "no licence" in said
        assert "ask GoodWe" in said
        world.sems.spoil = lambda *_: None
        await asyncio.sleep(6 * HOUR)
        assert world.desk.reports[-1] == (True, "")


@pytest.mark.parametrize("error", [UnreachableError("SEMS can't be reached"), RateLimitedError("limited", 300.0)])
@virtual
async def test_away_and_back(tmp_path, error):
    async with World(tmp_path, fleet(3)) as world:
        await asyncio.sleep(120)
        world.sems.spoil = lambda *_: error
        before = len(world.sems.calls)
        await asyncio.sleep(HOUR)
        assert len(world.sems.calls) - before < 4 * 70
        assert world.desk.reports[-1][0] is False
        world.desk.router.age()
        assert world.desk.router.state("SN00000").quality is Quality.STALE
        world.sems.spoil = lambda *_: None
        await asyncio.sleep(400)
        assert world.desk.reports[-1] == (True, "")
        assert world.desk.router.state("SN00000").quality is Quality.GOOD


@virtual
async def test_a_batch_that_cannot_be_read_is_said_once_and_its_end_too(tmp_path):
    with capture_logs() as log:
        async with World(tmp_path, fleet(150)) as world:
            await asyncio.sleep(120)
            world.sems.spoil = lambda name, serials: WebPageError("a web page") if "SN00149" in serials else None
            await asyncio.sleep(900)
            assert 0 < world.reader.troubled < 60
            assert world.desk.reports[-1][0] is True
            world.sems.spoil = lambda *_: None
            await asyncio.sleep(900)
            assert world.reader.troubled == 0
    lines = [entry["event"] for entry in log if entry.get("serial") == "SN00149"]
    assert lines == ["device can't be read", "device can be read again"]


@virtual
async def test_an_interface_that_is_refused_is_not_asked_number_by_number(tmp_path):
    async with World(tmp_path, fleet(200)) as world:
        world.sems.spoil = lambda name, _: SemsRefusedError("GY0410", "no such interface") if name == "alarm" else None
        await asyncio.sleep(1800)
        assert 8 <= len(world.calls("alarm")) <= 2 * 7
        assert all(len(serials) == 100 for _, serials in world.calls("alarm"))


@virtual
async def test_an_answer_that_leaves_a_number_out_or_tells_of_strangers(tmp_path):
    entry = {"sn": "SN00000", "refreshTime": 0, "parameters": {"pvPower": 1}}
    answer = {"deviceData": [entry, entry | {"sn": "stranger"}, "nonsense", {"sn": 5}]}
    async with World(tmp_path, fleet(2)) as world:
        world.sems.spoil = lambda name, _: answer if name == "inverter" else None
        await asyncio.sleep(200)
        assert world.values("SN00000")["pv_power"] == 1
        assert world.desk.router.state("stranger") is None
        assert world.reader.troubled == 1


@virtual
async def test_data_that_are_old_already_are_not_shown_as_live(tmp_path):
    async with World(tmp_path, fleet(1)) as world:
        world.sems.age = 4 * HOUR
        await asyncio.sleep(120)
        assert world.desk.router.state("SN00000").quality is Quality.STALE
        assert world.clock.now() - world.desk.router.state("SN00000").time >= timedelta(hours=4)


# the whitelist


@virtual
async def test_a_file_that_changes_is_read_again(tmp_path):
    file = tmp_path / "numbers.csv"
    file.write_text("sn,owner\nSN00000,Ann # first\nSN00001,Bob\n")
    async with World(tmp_path, fleet(4), {"file": str(file)}) as world:
        await asyncio.sleep(120)
        assert list(world.roster) == ["SN00000", "SN00001"]
        file.write_text("SN00001\n# SN00002\nSN00003\n")
        await asyncio.sleep(120)
        assert list(world.roster) == ["SN00001", "SN00003"]
        assert world.desk.withdrawn == ["SN00000"]
        assert world.values("SN00003")
        with capture_logs() as log:
            file.write_text("")
            await asyncio.sleep(30)
            file.unlink()
            await asyncio.sleep(30)
        assert list(world.roster) == ["SN00001", "SN00003"]
        assert {entry["event"] for entry in log} == {"the whitelist stays as it was"}
        assert len(log) == 2


@virtual
async def test_everything_follows_the_list(tmp_path):
    async with World(tmp_path, fleet(250), "*") as world:
        await asyncio.sleep(120)
        assert len(world.roster) == 250
        del world.sems.devices["SN00007"]
        await world.listing.round()
        assert "SN00007" in world.desk.withdrawn
        assert len(world.roster) == 249


@virtual
async def test_what_was_kept_and_cannot_be_read_is_found_out_anew(tmp_path):
    (tmp_path / "numbers.json").write_text("{")
    with capture_logs() as log:
        async with World(tmp_path, fleet(2), lists=False) as world:
            await asyncio.sleep(60)
            assert world.values("SN00000")
    assert any("what was known of numbers can't be read" in entry["event"] for entry in log)


@virtual
async def test_a_clock_set_back_does_not_put_a_refused_number_off(tmp_path):
    async with World(tmp_path, fleet(2), clock=FakeClock()) as world:
        world.sems.refused["SN00001"] = "W0403"
        await asyncio.sleep(120)
        world.sems.refused.clear()
        world.clock.jump(-10 * DAY)
        await asyncio.sleep(300)
        assert world.roster.state("SN00001") is State.READ


@virtual
async def test_a_long_list_does_not_hold_the_loop(tmp_path, monkeypatch):
    """Of 50,000 devices it once took 0.2 s of CPU in one turn."""
    devices = fleet(3 * TURN)
    turns = [0]

    def counted(roster, serial, type_):
        if not turns[-1]:
            asyncio.get_running_loop().call_soon(turns.append, 0)
        turns[-1] += 1
        found(roster, serial, type_)

    found = Roster.found
    monkeypatch.setattr(Roster, "found", counted)
    world = World(tmp_path, devices, whitelist="*")
    world.roster.restore()
    world.listing.begin()
    await world.listing.round()
    assert sum(turns) == len(devices)
    assert max(turns) <= TURN
