"""An alarm is raised once and cleared once, whoever tells of it and however often the gateway starts."""

import asyncio
from datetime import timedelta

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gateway.core.mailbox as mailbox_module
from gateway.core import alarms as alarms_module
from gateway.core.alarms import FILE, Alarms
from gateway.core.model import Alarm, Severity
from gateway.core.points import POINTS
from gateway.core.router import Router
from tests.kit.bench import INVERTER
from tests.kit.clock import NOON, FakeClock, virtual, virtually

SN = INVERTER.serial
SOURCES = ("a", "b")


def alarm(id_="1", code="F1", *, minutes=0, text="Grid lost", severity=Severity.FAULT, cleared=None):
    return Alarm(
        serial=SN,
        id=id_,
        code=code,
        text=text,
        severity=severity,
        raised=NOON - timedelta(hours=1) + timedelta(minutes=minutes),
        cleared=cleared,
    )


class ResultEffect:
    """A router with a device, and what its sinks are told of alarms: `raised 1`, `cleared 1`."""

    def __init__(self, directory=None, clock=None, sources=SOURCES):
        self.clock = clock or FakeClock()
        self.router = Router(self.clock)
        if directory is not None:
            self.router.alarm_book.restore(directory, sources)
        self.mailbox = self.router.attach("sink")
        for source in SOURCES:
            self.router.announce(source, INVERTER, named=True)

    def say(self, source, *alarms):
        self.router.alarms(source, SN, alarms)

    async def all(self):
        return (await self.mailbox.take()).alarms

    async def words(self):
        return [f"{'cleared' if a.cleared else 'raised'} {a.id}" for a in await self.all()]

    @property
    def shown(self):
        return {name: v for name, v in self.router.state(SN).values.items() if name.startswith("alarm")}


@virtual
async def test_what_is_new_is_raised_and_what_is_gone_is_cleared():
    told = ResultEffect()
    told.say("a", alarm("1"), alarm("2", "F2"))
    told.say("a", alarm("1"), alarm("2", "F2"))
    assert await told.words() == ["raised 1", "raised 2"]
    told.say("a", alarm("2", "F2"), alarm("3", "F3"))
    new, gone = await told.all()
    assert (gone.id, gone.cleared) == ("1", told.clock.now())
    assert (new.id, new.cleared) == ("3", None)


@virtual
async def test_cleared_is_when_the_source_says_so():
    told = ResultEffect()
    told.say("a", alarm("1"))
    told.say("a", alarm("1", cleared=NOON - timedelta(minutes=5)))
    told.say("a", alarm("1", cleared=NOON - timedelta(minutes=5)))
    _, gone = await told.all()
    assert gone.cleared == NOON - timedelta(minutes=5)


@virtual
async def test_nothing_is_cleared_before_it_was_raised():
    told = ResultEffect()
    told.say("a", alarm("1"))
    told.say("a", alarm("1", cleared=NOON - timedelta(days=5)))
    _, gone = await told.all()
    assert gone.cleared == gone.raised


@pytest.mark.parametrize("other", [alarm("1", "another code"), alarm("77", minutes=0)])
@virtual
async def test_what_two_sources_tell_is_raised_once_and_cleared_when_neither_tells_it(other):
    told = ResultEffect()
    told.say("a", alarm("1"))
    told.say("b", other)
    assert await told.words() == ["raised 1"]
    told.say("a")
    told.say("b", other)
    assert told.shown["alarms_active"] == 1
    told.say("b")
    assert await told.words() == ["cleared 1"]


@virtual
async def test_alarms_of_one_source_differ_by_their_ids_alone():
    told = ResultEffect()
    told.say("a", alarm("1"), alarm("2"))
    told.say("b", alarm("1"), alarm("2"))
    assert await told.words() == ["raised 1", "raised 2"]


@virtual
async def test_without_an_id_code_and_time_are_one():
    told = ResultEffect()
    told.say("a", alarm(""), alarm("", minutes=1))
    told.say("a", alarm(""))
    assert [word.partition(" ")[0] for word in await told.words()] == ["raised", "raised", "cleared"]


@virtual
async def test_what_came_and_went_between_two_lists_is_told_and_what_was_before_the_first_is_not():
    told = ResultEffect()
    old, brief = (alarm(str(n), f"F{n}", cleared=NOON - timedelta(minutes=50)) for n in (1, 2))
    told.say("a", old)
    told.say("a", old, brief)
    told.say("a", old, brief)
    told.say("b")
    told.say("b", old, brief)
    assert await told.words() == ["raised 2", "cleared 2"]


@virtual
async def test_what_one_source_has_raised_is_no_news_when_another_knows_its_end():
    told = ResultEffect()
    told.say("a", alarm("1"))
    told.say("b")
    told.say("b", alarm("9", cleared=NOON))
    told.say("a")
    told.say("b")
    told.say("b", alarm("9", cleared=NOON))
    assert await told.words() == ["raised 1", "cleared 1"]


@virtual
async def test_points_show_how_many_and_the_newest():
    told = ResultEffect()
    assert told.shown == {}
    told.say("a")
    none = dict.fromkeys(("alarm_code", "alarm_text", "alarm_time"))
    assert told.shown == {"alarms_active": 0, "alarm_severity": "none", **none}
    told.say("a", alarm("1", "F1", minutes=2, text="Fan", severity=Severity.INFO), alarm("2", "F2"))
    assert told.shown == {
        "alarms_active": 2,
        "alarm_severity": "fault",
        "alarm_code": "F1",
        "alarm_text": "Fan",
        "alarm_time": "2026-06-21T11:02:00.000Z",
    }
    assert all(POINTS[name].parse(value) == value for name, value in told.shown.items())
    assert (await told.mailbox.take()).states[SN].values == told.shown


@virtual
async def test_another_text_of_an_active_alarm_is_shown_and_is_no_event():
    told = ResultEffect()
    told.say("a", alarm("1"))
    told.say("a", alarm("1", text="Grid lost, phase 2"))
    assert await told.words() == ["raised 1"]
    assert told.shown["alarm_text"] == "Grid lost, phase 2"


@virtual
async def test_a_device_that_is_withdrawn_takes_its_alarms_along_in_silence():
    told = ResultEffect()
    told.say("a", alarm("1"))
    told.say("b", alarm("2", "F2"))
    told.router.withdraw("b", SN)
    assert await told.words() == ["raised 1", "raised 2", "cleared 2"]
    told.router.withdraw("b", SN)
    told.router.withdraw("a", SN)
    updates = await told.mailbox.take()
    assert (updates.alarms, updates.removed) == ([], {SN})
    assert not list(told.router.alarm_book)
    told.say("a", alarm("1"))
    assert not told.mailbox._mail.is_set()


@virtual
async def test_they_are_bounded_and_what_is_dropped_is_counted(monkeypatch):
    monkeypatch.setattr(mailbox_module, "EVENT_BACKLOG", 3)
    told = ResultEffect()
    told.say("a", *(alarm(str(n), f"F{n}") for n in range(5)))
    assert await told.words() == ["raised 2", "raised 3", "raised 4"]
    assert told.mailbox.dropped["alarms"] == 2


# over restarts


@virtual
async def test_a_restart_raises_nothing_again_and_clears_what_went_meanwhile(tmp_path):
    before = ResultEffect(tmp_path)
    before.say("a", alarm("1"), alarm("2", "F2"))
    before.say("b", alarm("5"))
    await before.router.alarm_book.save()
    after = ResultEffect(tmp_path, before.clock)
    assert after.shown["alarms_active"] == 2
    assert [a.id for a in after.router.alarm_book.of(SN)] == ["1", "2"]
    after.say("a", alarm("1"), alarm("2", "F2", cleared=NOON - timedelta(minutes=1)))
    assert [(a.id, a.cleared) for a in await after.all()] == [("2", NOON - timedelta(minutes=1))]
    after.say("a")
    after.say("b", alarm("5"))
    after.say("b")
    assert await after.words() == ["cleared 1"]


@virtual
async def test_what_only_a_source_said_that_is_gone_is_cleared_by_the_first_to_tell_of_the_device(tmp_path):
    before = ResultEffect(tmp_path)
    before.say("a", alarm("1"), alarm("2", "F2"))
    await before.router.alarm_book.save()
    after = ResultEffect(tmp_path, before.clock, sources=["b"])
    after.router.withdraw("a", SN)
    assert after.shown["alarms_active"] == 2
    after.say("b", alarm("9"))
    assert await after.words() == ["cleared 2"]


@pytest.mark.parametrize("content", [b"", b'{"version":1,"act', b'{"version":99,"active":[]}', b"[]", b"\xff"])
@virtual
async def test_a_file_that_cannot_be_read_is_a_warning_and_is_replaced(tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    told = ResultEffect(tmp_path)
    told.say("a", alarm("1"))
    assert await told.words() == ["raised 1"]
    await told.router.alarm_book.save()
    assert ResultEffect(tmp_path, told.clock).shown["alarms_active"] == 1


@virtual
async def test_it_is_written_when_it_changes_and_not_otherwise(tmp_path, monkeypatch):
    written = []

    def replace(path, data):
        written.append(data)
        if failing:
            raise OSError(28, "No space left on device")
        path.write_bytes(data)

    failing = False
    monkeypatch.setattr(alarms_module.files, "replace", replace)
    told = ResultEffect(tmp_path)
    keeping = asyncio.create_task(told.router.alarm_book.keep())
    for _ in range(3):
        told.say("a", alarm("1"))
        await asyncio.sleep(60)
    assert len(written) == 1
    failing = True
    told.say("a")
    await asyncio.sleep(25)
    assert len(written) == 4
    failing = False
    await asyncio.sleep(25)
    assert len(written) == 5
    assert msgspec.json.decode((tmp_path / FILE).read_bytes())["active"] == []
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


@virtual
async def test_without_a_place_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written = []
    monkeypatch.setattr(alarms_module.files, "replace", lambda path, *_: written.append(path))
    told = ResultEffect()
    told.say("a", alarm("1"))
    await told.router.alarm_book.save()
    assert list(told.router.alarm_book)
    assert written == []
    assert list(tmp_path.iterdir()) == []


IDS = st.lists(st.sampled_from("1234"), unique=True)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.tuples(st.sampled_from(SOURCES), IDS, st.booleans()), max_size=30))
def test_every_raise_has_one_clear_whatever_sources_say_and_however_often_it_restarts(steps):
    @virtually
    async def run(directory):
        clock = FakeClock()
        told, events = ResultEffect(directory, clock), []
        claims = {source: set() for source in SOURCES}
        for source, ids, restart in steps:
            told.say(source, *(alarm(id_, f"F{id_}") for id_ in ids))
            claims[source] = set(ids)
            if told.mailbox._mail.is_set():
                events += await told.words()
            assert {a.id for a in told.router.alarm_book} == claims["a"] | claims["b"]
            if restart:
                await told.router.alarm_book.save()
                told = ResultEffect(directory, clock)
        for id_ in "1234":
            own = [event.partition(" ")[0] for event in events if event.endswith(id_)]
            assert own == (["raised", "cleared"] * len(own))[: len(own)]

    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as directory:
        run(Path(directory))


def test_a_book_needs_no_loop_to_be_made():
    assert list(Alarms(None, print)) == []
