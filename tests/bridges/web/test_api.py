"""`/api/v1` as its clients see it: over a real socket, asked by httpx."""

import asyncio
from datetime import timedelta

import pytest

from gateway.bridges.web.problems import KINDS
from gateway.commands.policy.policy import ControlSettings, Rule
from gateway.core.errors import NotSentError, RefusedError
from gateway.core.model import DeviceKind, Reason, iso
from gateway.journal.journal import JournalError
from tests.bridges.web.conftest import OTHER, READER, SN, WRITER, served
from tests.kit.bench import EVERYTHING, until
from tests.kit.journal import without_disk

LIMIT = "active_power_limit"


def states(answer):
    return [step["state"] for step in answer.json()["steps"]]


async def test_a_command_is_taken_and_what_became_of_it_can_be_asked(it):
    answer = await it.set({LIMIT: 50, "id": "mine"})
    assert answer.status_code == 202
    (step,) = answer.json()["commands"]
    assert (step["id"], step["serial"], step["setpoint"], step["value"], step["state"]) == (
        "mine",
        SN,
        LIMIT,
        50.0,
        "accepted",
    )
    assert answer.headers["location"] == "/api/v1/commands/mine"
    told = await it.get("/api/v1/commands/mine?wait=10", READER)
    assert states(told) == ["accepted", "sent", "succeeded"]
    assert (
        told.json()
        | {
            "state": "succeeded",
            "final": True,
            "value": 50.0,
            "origin": "web/scada:127.0.0.1",
            "revert_after": None,
        }
        == told.json()
    )
    assert [command.value for command in it.controller.sent] == [50.0]


async def test_who_waits_is_told_the_end(it):
    answer = await it.set({"setpoint": LIMIT, "value": 40}, query="?wait=10")
    assert answer.status_code == 200
    (step,) = answer.json()["commands"]
    assert (step["state"], step["detail"], step["verified"]) == ("succeeded", "confirmed", False)


async def test_who_waits_too_short_is_told_so_far(it):
    it.controller.gate.clear()
    answer = await it.set({LIMIT: 50}, query="?wait=0.05")
    assert answer.status_code == 202
    (step,) = answer.json()["commands"]
    assert step["state"] in ("accepted", "sent")
    waits = asyncio.create_task(it.get(f"/api/v1/commands/{step['id']}?wait=10"))
    await until(lambda: it.runner.bridge._commands._waiting)
    it.controller.gate.set()
    assert (await waits).json()["state"] == "succeeded"
    assert not it.runner.bridge._commands._waiting


async def test_a_failure_is_told_with_its_reason(it):
    it.controller.answers = [RefusedError("the inverter says no")]
    (step,) = (await it.set({LIMIT: 50}, query="?wait=10")).json()["commands"]
    assert (step["state"], step["detail"]) == ("failed", "the inverter says no")
    assert "verified" not in step


async def test_several_setpoints_are_taken_together(it):
    answer = await it.set(
        {"battery_mode": "charge", "battery_power_target": 2000, "battery_target_soc": 90, "id": "b"}, query="?wait=10"
    )
    assert answer.status_code == 200
    assert {c["id"]: c["state"] for c in answer.json()["commands"]} == {
        "b/battery_mode": "succeeded",
        "b/battery_power_target": "succeeded",
        "b/battery_target_soc": "succeeded",
    }
    assert "location" not in answer.headers
    assert (await it.get("/api/v1/commands/b/battery_mode")).json()["value"] == "charge"


async def test_or_refused_together(it):
    answer = await it.set({"battery_mode": "charge", "battery_power_target": 9_999_999})
    assert answer.status_code == 422
    problem = answer.json()
    assert problem["reason"] == "out_of_range"
    assert [c["state"] for c in problem["commands"]] == ["rejected", "rejected"]
    assert not it.controller.sent


async def test_a_dead_mans_timer_and_a_ttl_come_along(it):
    answer = await it.set(
        {"setpoint": LIMIT, "value": 30, "id": "d", "ttl": 5, "revert_after": 600, "revert_value": 80}, query="?wait=10"
    )
    assert answer.status_code == 200
    (command,) = it.controller.sent
    assert (command.revert_after, command.revert_value) == (600, 80)
    assert (command.expires - command.created).total_seconds() == 5
    told = (await it.get("/api/v1/commands/d")).json()
    assert (told["revert_after"], told["revert_value"]) == (600, 80)


async def test_the_same_wish_twice_is_one_command(it):
    first = await it.set({LIMIT: 50, "id": "once"}, query="?wait=10")
    again = await it.set({LIMIT: 50, "id": "once"})
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json() == again.json()
    other = await it.set({LIMIT: 60, "id": "once"})
    assert (other.status_code, other.json()["reason"]) == (409, "duplicate")
    assert len(it.controller.sent) == 1


async def test_what_was_said_long_ago_has_expired(it):
    answer = await it.set({LIMIT: 50, "time": "2020-01-01T00:00:00Z"})
    assert (answer.status_code, answer.json()["reason"]) == (422, "expired")
    minute = iso(it.bench.clock.now() + timedelta(seconds=100))
    future = await it.set({LIMIT: 50, "id": "f", "time": minute, "ttl": 10}, query="?wait=10")
    assert future.status_code == 200
    (command,) = it.controller.sent
    assert (command.expires - command.created).total_seconds() == 10
    for ahead in (iso(it.bench.clock.now() + timedelta(minutes=10)), "9999-12-31T23:59:59Z"):
        answer = await it.set({LIMIT: 60, "id": "g", "time": ahead})
        assert (answer.status_code, answer.json()["reason"], answer.json()["id"]) == (400, "bad_request", "g")
        assert "ahead of the gateway's clock" in answer.json()["detail"]
    assert len(it.controller.sent) == 1


@pytest.mark.parametrize(
    ("body", "serial", "status", "reason"),
    [
        ({LIMIT: 50}, "nobody", 404, "unknown_device"),
        ({"active_power_limits": 50}, SN, 422, "unknown_setpoint"),
        ({"export_limit": 50}, SN, 422, "unknown_setpoint"),
        ({LIMIT: 101}, SN, 422, "out_of_range"),
        ({LIMIT: "much"}, SN, 422, "bad_value"),
        ({LIMIT: [1]}, SN, 422, "bad_value"),
        ({}, SN, 400, "bad_request"),
        ([], SN, 400, "bad_request"),
        ({"setpoint": 7, "value": 1}, SN, 400, "bad_request"),
        ({"setpoint": LIMIT}, SN, 400, "bad_request"),
        ({"setpoint": LIMIT, "value": 1, "colour": "red"}, SN, 400, "bad_request"),
        ({LIMIT: 1, "ttl": -1}, SN, 400, "bad_request"),
        ({LIMIT: 1, "revert_value": 1}, SN, 400, "bad_request"),
    ],
)
async def test_what_is_refused_is_a_problem_with_a_reason(it, body, serial, status, reason):
    answer = await it.set(body, serial=serial)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    problem = answer.json()
    assert (problem["status"], problem["reason"], problem["type"]) == (
        status,
        reason,
        f"urn:sems-gateway:problem:{reason}",
    )
    assert all(problem[member] for member in ("title", "detail", "do"))
    assert not it.controller.sent


async def test_policy_has_the_word_on_each_token(tmp_path):
    rules = [Rule(devices=["*"], setpoints=[LIMIT], origins=["web/scada"], min=20)]
    async with served(tmp_path, control=ControlSettings(enabled=True, allow=rules)) as it:
        assert (await it.set({LIMIT: 50})).status_code == 202
        assert (await it.set({LIMIT: 10})).status_code == 422
        answer = await it.set({LIMIT: 50}, OTHER)
        assert (answer.status_code, answer.json()["reason"]) == (403, "not_permitted")
        mine = (await it.get(f"/api/v1/devices/{SN}", WRITER)).json()["setpoints"]
        assert mine == {LIMIT: {"type": "float", "unit": "%", "min": 20.0, "max": 100.0}}
        for token in (OTHER, READER, None):
            assert (await it.get(f"/api/v1/devices/{SN}", token)).json()["setpoints"] == {}


async def test_read_only_is_said(tmp_path):
    async with served(tmp_path, control=ControlSettings()) as it:
        answer = await it.set({LIMIT: 50})
        assert (answer.status_code, answer.json()["reason"]) == (403, "control_disabled")


async def test_too_often_says_when_again(tmp_path):
    rules = [Rule(devices=["*"], setpoints=[LIMIT])]
    async with served(tmp_path, control=ControlSettings(enabled=True, allow=rules, max_per_minute=1)) as it:
        await it.set({LIMIT: 50})
        answer = await it.set({LIMIT: 60})
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")


async def test_without_a_controller_it_is_unavailable(it):
    it.bench.dispatcher.use({})
    answer = await it.set({LIMIT: 50})
    assert (answer.status_code, answer.json()["reason"]) == (503, "no_controller")
    assert int(answer.headers["retry-after"]) > 0


async def test_what_the_journal_cannot_keep_is_not_promised(it, monkeypatch):
    async def broken(*_, **__):
        raise JournalError("the disk is full")

    monkeypatch.setattr(it.bench.journal, "post", without_disk("the disk is full"))
    answer = await it.set({LIMIT: 50})
    assert (answer.status_code, answer.json()["reason"]) == (503, "not_stored")
    monkeypatch.setattr(it.bench.journal, "history", broken)
    answer = await it.get("/api/v1/commands/x")
    assert (answer.status_code, answer.json()["detail"]) == (503, "the disk is full")


async def test_all_control_is_halted_and_by_whom_that_is_for_let_in_again(tmp_path):
    async with served(tmp_path, control=EVERYTHING.model_copy(update={"resume": ["web/scada"]})) as it:
        await halt_and_resume(it)


async def halt_and_resume(it):
    assert (await it.get("/api/v1/halt")).json() == {"halted": False}
    halted = await it.ask("POST", "/api/v1/halt", WRITER, json={"reason": "work on the line"})
    body = halted.json()
    assert (halted.status_code, body["halted"], body["reason"]) == (200, True, "work on the line")
    assert body["by"] == "web/scada:127.0.0.1"
    assert (await it.get("/api/v1/halt")).json() == body
    answer = await it.set({LIMIT: 50})
    assert (answer.status_code, answer.json()["reason"]) == (409, "halted")
    refused = await it.ask("POST", "/api/v1/resume", OTHER, json={})
    assert (refused.status_code, refused.json()["reason"]) == (403, "not_permitted")
    resumed = await it.ask("POST", "/api/v1/resume", WRITER, json={})
    assert resumed.json() == {"halted": False}
    assert (await it.set({LIMIT: 50})).status_code == 202


@pytest.mark.parametrize(("path", "body"), [("halt", b'{"reason": 5}'), ("halt", b'{"why": "x"}'), ("halt", b"\xff")])
async def test_a_halt_that_makes_no_sense(it, path, body):
    headers = {"Content-Type": "application/json"}
    answer = await it.ask("POST", f"/api/v1/{path}", WRITER, content=body, headers=headers)
    assert (answer.status_code, answer.json()["reason"]) == (400, "bad_request")
    assert (await it.get("/api/v1/halt")).json() == {"halted": False}


@pytest.mark.parametrize("path", ["halt", "resume"])
async def test_who_only_reads_halts_nothing(it, path):
    for token, status in ((None, 401), (READER, 403)):
        assert (await it.ask("POST", f"/api/v1/{path}", token, json={})).status_code == status
    answer = await it.ask("POST", f"/api/v1/{path}", WRITER, content=b"{}", headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415


def test_every_reason_has_a_status():
    assert {reason.value for reason in Reason} <= KINDS.keys()
    assert all(400 <= row.status < 600 and row.do for row in KINDS.values())


async def test_a_command_that_waits_can_be_cancelled(it):
    it.controller.answers = [NotSentError("SEMS is away", 60)]
    await it.set({LIMIT: 50, "id": "late"})
    answer = await it.ask("DELETE", "/api/v1/commands/late", WRITER)
    assert (answer.status_code, answer.json()["state"]) == (200, "expired")
    assert "cancelled by web/scada" in answer.json()["steps"][-1]["detail"]
    again = await it.ask("DELETE", "/api/v1/commands/late", WRITER)
    assert (again.status_code, again.json()["reason"]) == (409, "not_cancellable")
    assert not it.controller.sent


async def test_what_left_is_not_called_back(it):
    it.controller.gate.clear()
    await it.set({LIMIT: 50, "id": "gone"})
    await until(lambda: it.controller.sent)
    answer = await it.ask("DELETE", "/api/v1/commands/gone", WRITER)
    assert (answer.status_code, answer.json()["reason"]) == (409, "not_cancellable")
    it.controller.gate.set()


async def test_only_who_may_set_may_cancel(tmp_path):
    rules = [Rule(devices=["*"], setpoints=[LIMIT], origins=["web/scada"])]
    async with served(tmp_path, control=ControlSettings(enabled=True, allow=rules)) as it:
        it.controller.answers = [NotSentError("SEMS is away", 60)]
        await it.set({LIMIT: 50, "id": "late"})
        for token, reason in ((OTHER, "not_permitted"), (READER, "read_only_token")):
            answer = await it.ask("DELETE", "/api/v1/commands/late", token)
            assert (answer.status_code, answer.json()["reason"]) == (403, reason)
        answer = await it.ask("DELETE", "/api/v1/commands/nothing", WRITER)
        assert (answer.status_code, answer.json()["reason"]) == (404, "unknown_command")


async def test_devices_are_listed_in_pages_and_by_what_they_are(it):
    for n in range(5):
        it.bench.announce(serial=f"s{n}", kind=DeviceKind.METER, plant="plant-2")
    it.bench.publish(age=3, ac_power=1.5, status="normal")
    listed = (await it.get("/api/v1/devices?offset=1&limit=2")).json()
    assert (listed["total"], listed["offset"], len(listed["devices"])) == (6, 1, 2)
    (storage,) = (await it.get("/api/v1/devices?kind=storage")).json()["devices"]
    assert storage | {"serial": SN, "name": "House", "model": "GW10K-ET", "quality": "good"} == storage
    assert (await it.get("/api/v1/devices?plant=plant-2")).json()["total"] == 5
    one = (await it.get(f"/api/v1/devices/{SN}")).json()
    assert one["values"] == {"ac_power": 1.5, "status": "normal"}
    assert (one["source"], one["rated_power"], one["time"][-1]) == ("scripted", 10_000.0, "Z")


@pytest.mark.parametrize(
    "query", ["offset=-1", "limit=0", "limit=5001", "limit=x", "kind=toaster", "offset=" + "9" * 99]
)
async def test_a_query_that_makes_no_sense(it, query):
    answer = await it.get(f"/api/v1/devices?{query}")
    assert (answer.status_code, answer.json()["reason"]) == (400, "bad_request")


@pytest.mark.parametrize("wait", ["-1", "301", "nan", "inf", "soon"])
async def test_a_wait_that_makes_no_sense(it, wait):
    answer = await it.set({LIMIT: 50}, query=f"?wait={wait}")
    assert (answer.status_code, answer.json()["reason"]) == (400, "bad_request")
    assert not it.controller.sent


async def test_what_is_not_there(it):
    answers = [
        await it.get(path) for path in ("/api/v1/devices/nobody", "/api/v1/commands/none", "/api/v2", "/static/")
    ]
    assert [(a.status_code, a.json()["reason"]) for a in answers] == [
        (404, "unknown_device"),
        (404, "unknown_command"),
        (404, "not_found"),
        (404, "not_found"),
    ]
    answer = await it.ask("PUT", f"/api/v1/devices/{SN}/set", WRITER, json={LIMIT: 1})
    assert (answer.status_code, answer.json()["reason"], answer.headers["allow"]) == (405, "method_not_allowed", "POST")


async def test_how_bridges_do(it):
    it.runner.report(up=False, detail="broken for a test")
    bridges = (await it.get("/api/v1/bridges")).json()["bridges"]
    assert bridges["web"] | {"type": "web", "up": False, "detail": "broken for a test"} == bridges["web"]


async def test_a_failure_of_ours_says_nothing_of_the_inside(it, monkeypatch, capsys):
    async def broken(*_, **__):
        raise ZeroDivisionError("inside")

    monkeypatch.setattr(it.bench.journal, "history", broken)
    answer = await it.get("/api/v1/commands/x")
    assert (answer.status_code, answer.json()["reason"]) == (500, "failed")
    assert "inside" not in answer.text
    assert "inside" in capsys.readouterr().out
