"""What a whole gateway keeps from one run to the next, and what it does not start."""

import asyncio
import shutil
import sqlite3
from contextlib import closing

import pytest

from gateway.api.registry import installed
from gateway.core.model import GATEWAY, Alarm, Device, DeviceKind, Snapshot
from gateway.journal import journal, store
from gateway.journal.audit import AuditAction, Note
from gateway.journal.file import JournalError
from gateway.run import app
from gateway.run.app import Gateway
from gateway.run.settings import Config
from tests.bridges.open_api.kit import cloud
from tests.kit.bench import until
from tests.kit.clock import NOON
from tests.kit.ports import free_port

DEVICE = Device(serial="SN1", kind=DeviceKind.INVERTER)


@pytest.fixture
def gateway(tmp_path):
    def make(bridges="web: {type: web, port: 0}"):
        file = tmp_path / "config.yaml"
        file.write_text(f"bridges:\n  {bridges}\n")
        return Gateway(Config.load(file, installed()))

    return make


async def test_active_alarms_are_kept_over_a_restart(gateway):
    first = gateway()
    await first.start()
    first.router.announce("web", DEVICE)
    first.router.alarms("web", "SN1", [Alarm(serial="SN1", id="1", raised=NOON)])
    await first.stop()
    second = gateway()
    await second.start()
    mailbox = second.router.attach("test")
    second.router.announce("web", DEVICE)
    second.router.alarms("web", "SN1", [])
    await second.stop()
    assert [(alarm.id, alarm.cleared is not None) for alarm in (await mailbox.take()).alarms] == [("1", True)]


async def halted_at_the_next_start(gateway):
    again = gateway()
    await again.start()
    halted = again._halting.current
    await again.stop()
    return halted.reason if halted else ""


def remove(directory, *patterns):
    for pattern in patterns:
        for path in directory.glob(pattern):
            path.unlink()


@pytest.mark.parametrize("gone", [["journal.sqlite*"], ["journal.sqlite", "journal.sqlite.head", "journal.sqlite-shm"]])
async def test_a_journal_that_is_gone_from_where_a_gateway_ran_closes_control(gateway, tmp_path, gone):
    it = gateway()
    await it.start()
    await until((tmp_path / "data" / "version.json").exists)
    await it.stop()
    assert await halted_at_the_next_start(gateway) == "", "nothing is missing"
    remove(tmp_path / "data", *gone)
    if len(gone) > 1:  # as a kill leaves it
        remove(tmp_path / "data", "version.json")
        (tmp_path / "data" / "journal.sqlite-wal").write_bytes(b"x" * 4096)
    assert "all is missing" in await halted_at_the_next_start(gateway)


@pytest.mark.parametrize("stopped", [True, False])
async def test_a_journal_without_the_log_of_its_changes_and_its_head_closes_control(gateway, tmp_path, stopped):
    data, killed = tmp_path / "data", tmp_path / "killed"
    it = gateway()
    await it.start()
    await until((data / "version.json").exists)
    await it._journal.note(Note(action=AuditAction.DRIFTED, time=NOON, origin=GATEWAY))
    with closing(sqlite3.connect(data / "journal.sqlite")) as database:
        database.execute("PRAGMA wal_checkpoint(FULL)")
    shutil.copytree(data, killed, ignore=shutil.ignore_patterns("*-wal", "*-shm", "*.sock", "lock"))
    await it.stop()
    if not stopped:
        shutil.rmtree(data)
        killed.rename(data)
    (data / "journal.sqlite.head").write_bytes(bytes(85))
    found = await halted_at_the_next_start(gateway)
    assert found == "" if stopped else "its end may be missing" in found


async def test_a_journal_that_the_disk_cannot_read_closes_control_until_it_can(gateway, tmp_path, monkeypatch):
    it = gateway()
    await it.start()
    await it.stop()
    monkeypatch.setattr(journal, "REOPEN", 0.01)

    def broken(*_):
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorname = "SQLITE_IOERR_READ"
        raise error

    def unread(*_):
        raise OSError(5, "Input/output error")

    again = gateway()
    with monkeypatch.context() as patch:
        patch.setattr(store, "connect", broken)
        patch.setattr(shutil, "copyfile", unread)
        await again.start()
        assert "disk I/O error" in again._journal.trouble
        with pytest.raises(JournalError):
            await again._journal.note(Note(action=AuditAction.DRIFTED, time=NOON, origin=GATEWAY))
    await until(lambda: not again._journal.trouble)
    await again._journal.note(Note(action=AuditAction.DRIFTED, time=NOON, origin=GATEWAY))
    assert again._halting.current is None
    await again.stop()


async def test_alarms_that_cannot_be_stored_do_not_keep_it_from_stopping(gateway, tmp_path, capsys):
    it = gateway()
    await it.start()
    (tmp_path / "data" / "alarms.json.new").mkdir()
    it.router.announce("web", DEVICE)
    it.router.alarms("web", "SN1", [Alarm(serial="SN1", id="1", raised=NOON)])
    await it.stop()
    assert "active alarms can't be stored" in "".join(capsys.readouterr()).replace("\\'", "'")


async def test_where_all_devices_go_stale_at_once_others_get_their_turn_in_between(gateway, monkeypatch):
    monkeypatch.setattr(app, "AGEING", 0.01)
    it = gateway()
    await it.start()
    sizes, age = [], it.router.age
    monkeypatch.setattr(it.router, "age", lambda serials: sizes.append(len(serials)) or age(serials))
    for n in range(1000):
        it.router.announce("web", Device(serial=f"SN{n}", kind=DeviceKind.INVERTER))
        now = it._clock.now()
        it.router.publish(Snapshot(serial=f"SN{n}", time=now, source="web", interval=0.1, values={"ac_power": 1.0}))
    await until(lambda: all(state.quality == "stale" for state in it.router.states()))
    await it.stop()
    assert sum(sizes) >= 1000
    assert max(sizes) <= app.AGED_PER_TURN


async def test_to_discover_opens_no_listener(gateway):
    it = gateway("push: {type: push, port: 0, secret: a-secret-that-nobody-guesses}\n  web: {type: web, port: 0}")
    await it.discover(timeout=120)
    assert it.router.bridges() == []


@pytest.mark.parametrize("password", ["wrong", "unreachable"])
async def test_to_discover_ends_at_a_refusal(gateway, password):
    """Who asks at a terminal waits no half minute for a login that is refused."""
    async with asyncio.timeout(150), cloud() as simulator:
        url = f"http://127.0.0.1:{free_port()}" if password == "unreachable" else simulator.url
        it = gateway(f"sems: {{type: open_api, account: demo, password: {password}, url: '{url}'}}")
        await it.discover(timeout=3600)
    (status,) = it.router.bridges()
    assert not status.up
    assert ("refused" if password == "wrong" else "can't be reached") in status.detail


async def test_a_bridge_that_still_connects_is_not_up(gateway):
    """A broker that accepts and says nothing: nobody may take the gateway for ready."""
    async with cloud() as simulator:
        held = []
        silent = await asyncio.start_server(lambda _, writer: held.append(writer), "127.0.0.1", 0)
        port = silent.sockets[0].getsockname()[1]
        it = gateway(
            f"sems: {{type: open_api, account: demo, password: demo, url: '{simulator.url}'}}\n"
            f"  mqtt: {{type: mqtt, host: 127.0.0.1, port: {port}}}"
        )
        await it.start()
        status = {one.name: one.up for one in it.router.bridges()}
        assert status == {"cli": False, "sems": False, "mqtt": False}
        await until(lambda: {one.name: one.up for one in it.router.bridges()}["sems"])
        assert not {one.name: one.up for one in it.router.bridges()}["mqtt"]
        await it.stop()
        for writer in held:
            writer.close()
        silent.close()


async def test_what_rules_name_and_nobody_has_is_told_also_where_a_cloud_was_found_late(gateway, monkeypatch, capsys):
    monkeypatch.setattr(app, "SUMMED_UP_WITHIN", 0.0)
    monkeypatch.setattr(app, "AGEING", 0.01)
    it = gateway(
        "web: {type: web, port: 0}\ncontrol: {enabled: true, allow: [{devices: [NOBODY], setpoints: [running]}]}"
    )
    found = []
    monkeypatch.setattr(it, "_found", lambda: bool(found))
    await it.start()
    await until(lambda: it._summed_up)
    assert "NOBODY" not in capsys.readouterr().out
    found.append("all")
    await until(lambda: it._unmet_told)
    await it.stop()
    assert "NOBODY" in capsys.readouterr().out
