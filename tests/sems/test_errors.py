"""Every way in which a call to SEMS goes wrong: its class, one line in the log, its counter, its row in the docs."""

import asyncio
import gzip
import re
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog.testing
from prometheus_client import generate_latest
from prometheus_client.registry import REGISTRY

from gateway.core.errors import NotSentError, RefusedError, UnsureError
from gateway.sems import errors
from gateway.sems.budget import Priority
from gateway.sems.error_tracker import FORGET, MAX_SUBJECTS, ErrorTracker
from gateway.sems.errors import CallError
from gateway.sems.login import MAX_LOGINS_AN_HOUR
from gateway.sems.wire import MAX_ANSWER
from tests.kit.ports import free_port
from tests.sems.kit import HANG_UP, SILENCE, Clock, http, serving, session

DOC = Path(__file__).parents[2] / "docs" / "errors.md"
KINDS = {
    error.kind: error
    for error in vars(errors).values()
    if isinstance(error, type) and issubclass(error, CallError) and "kind" in vars(error)
}
TOKEN = {"code": 0, "data": {"token": "T"}}
PLANT = {"code": 0, "data": {"plant_id": "P"}}
EXPIRED = {"code": 100002}
GZIPPED = gzip.compress(b'{"code": 0, "data": {"plant_id": "P"}}')


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def log():
    with structlog.testing.capture_logs() as entries:
        yield entries


@asynccontextmanager
async def both(tmp_path, clock, **options):
    async with serving() as (server, url), session(url, tmp_path, clock, **options) as it:
        server.scripts = {"GetToken": [TOKEN], "GetPlantDetail": [PLANT], "GetInverterList": [{"code": 0, "data": []}]}
        yield server, it


async def detail(session, plant="P", **options):
    return await session.call("GetPlantDetail", {"plant": plant}, **options)


def counted(name, **labels):
    return REGISTRY.get_sample_value(f"sems_gateway_sems_{name}", {"bridge": "cloud", **labels}) or 0


def said(log, kind):
    """The lines about a kind of trouble: begun and over."""
    return [entry["event"] for entry in log if entry.get("error") == kind]


ANSWERS = [
    # kind, what SEMS answers, of which class that is, what the error says
    ("rate_limited", {"code": "GY0429"}, NotSentError, "next in 300 s"),
    ("rate_limited", {"code": "GY0429", "description": "too fast"}, NotSentError, "too fast.*next in 300 s"),
    ("rate_limited", http(b"", 429, "Retry-After: 7\r\n"), NotSentError, "next in 7 s"),
    ("timed_out", SILENCE, UnsureError, "in time"),
    ("connection_lost", HANG_UP, UnsureError, "broke off"),
    ("connection_lost", b"garbage\r\n\r\n", UnsureError, "broke off"),
    (
        "connection_lost",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\nx",
        UnsureError,
        "broke off",
    ),
    ("server_error", http(b"<html>", 500), UnsureError, "HTTP 500"),
    ("server_error", http({"code": 0, "data": {}}, 503), UnsureError, "HTTP 503"),
    ("http_status", http(b"", 404), UnsureError, "HTTP 404; is the url right"),
    ("http_status", http(b"", 302, "Location: /\r\n"), UnsureError, "HTTP 302"),
    ("http_status", http({"code": 404}, 404), UnsureError, "HTTP 404"),
    ("web_page", http(b"\xef\xbb\xbf <!DOCTYPE html><html>maintenance</html>"), UnsureError, "a web page"),
    ("truncated", http(b'{"code": 0, "data": {"li'), UnsureError, "ends after 24 bytes"),
    ("truncated", http(b""), UnsureError, "ends after 0 bytes"),
    ("not_json", http(b"OK"), UnsureError, "not JSON"),
    ("not_json", http(b'{"code": 0} trailing'), UnsureError, "not JSON"),
    ("not_json", http(b'"\xff"'), UnsureError, "not JSON"),
    ("not_json", http(b"[" * 100_000 + b"]" * 100_000), UnsureError, "not JSON"),
    ("bad_encoding", http(b"no gzip at all", 200, "Content-Encoding: gzip\r\n"), UnsureError, "unpacked"),
    ("bad_encoding", http(b"{}", 200, "Content-Encoding: br\r\n"), UnsureError, "not asked for: br"),
    ("bad_encoding", http(GZIPPED + b"more", 200, "Content-Encoding: gzip\r\n"), UnsureError, "goes on"),
    ("truncated", http(GZIPPED[:-9], 200, "Content-Encoding: gzip\r\n"), UnsureError, "packed"),
    ("too_long", http(gzip.compress(b" " * (MAX_ANSWER + 1)), 200, "Content-Encoding: x-gzip\r\n"), UnsureError, "MiB"),
    ("too_long", http(b" " * (MAX_ANSWER + 1)), UnsureError, "MiB"),
    ("no_code", http(b"[]"), UnsureError, "without a code"),
    ("no_code", {"data": {}}, UnsureError, "without a code"),
    ("no_data", {"code": 0, "data": None}, UnsureError, "without data"),
    ("no_data", {"code": "0"}, UnsureError, "without data"),
    ("no_code", {"code": {"a": 1}, "errorMsg": "odd"}, UnsureError, "without a code; it says: odd"),
    ("refused", {"code": "X1", "msg": "no"}, RefusedError, "X1: no"),
    ("refused", {"code": 7, "msg": None}, RefusedError, "7: no reason given"),
    ("system_error", {"code": 100000, "msg": "system error"}, UnsureError, "100000 to GetPlantDetail: system error"),
    (
        "wrong_parameter",
        {"code": "100004"},
        RefusedError,
        r"100004: no reason given \(GetPlantDetail was sent plant_id",
    ),
    ("wrong_parameter", {"code": "P0214", "errorMsg": "missing"}, RefusedError, "P0214: missing"),
    ("wrong_parameter", http({"code": "S0327", "description": "dimension"}, 400), RefusedError, "S0327: dimension"),
    ("no_right", {"code": "100025", "msg": "no right"}, RefusedError, "100025: no right"),
    ("not_done", {"code": "R0305", "msg": "not reached"}, RefusedError, "R0305: not reached"),
    ("not_done", {"code": "P0215"}, RefusedError, "P0215"),
    ("http_status", http({"code": "X1", "description": "why"}, 404), UnsureError, "HTTP 404.*it says: why"),
    ("server_error", http({"message": "down until noon"}, 503), UnsureError, "HTTP 503; it says: down until noon"),
]


@pytest.mark.parametrize(("kind", "answer", "class_", "says"), ANSWERS)
async def test_what_sems_answers_wrongly(tmp_path, clock, log, kind, answer, class_, says):
    async with both(tmp_path, clock) as (server, it):
        await detail(it)
        before, calls = counted("errors_total", error=kind), counted("calls_total", interface="GetPlantDetail")
        server.scripts["GetPlantDetail"] = [answer]
        for _ in range(3):
            with pytest.raises(KINDS[kind], match=says) as caught:
                await detail(it, timeout=0.5 if answer is SILENCE else None)
            assert isinstance(caught.value, class_)
            assert type(caught.value) is KINDS[kind]
            clock.pass_time(301)
        server.scripts["GetPlantDetail"] = [PLANT]
        assert said(log, kind) == [KINDS[kind].words]
        await detail(it)
        await detail(it)
        assert said(log, kind) == [KINDS[kind].words, f"over: {KINDS[kind].words}"]
        (begun, over) = (entry for entry in log if entry.get("error") == kind)
        assert (begun["log_level"], begun["interface"], begun["bridge"]) == ("warning", "GetPlantDetail", "cloud")
        assert begun["advice"] == KINDS[kind].advice
        assert (over["log_level"], over["times"], over["since"]) == ("info", 3, "2026-06-21T12:00:00.000Z")
        assert counted("errors_total", error=kind) == before + 3
        again = answer is HANG_UP  # the first, over a connection that was kept open
        assert counted("calls_total", interface="GetPlantDetail") == calls + 5 + again


async def test_an_expired_token(tmp_path, clock, log):
    async with both(tmp_path, clock) as (server, it):
        server.scripts["GetPlantDetail"] = [EXPIRED, PLANT]
        await detail(it)
        words = KINDS["token_expired"].words
        assert said(log, "token_expired") == [words, f"over: {words}"]
        assert counted("errors_total", error="token_expired") == 1
        server.scripts["GetPlantDetail"] = [EXPIRED]
        for _ in range(3):
            with pytest.raises(NotSentError):
                await detail(it)
        assert said(log, "token_expired") == [words, f"over: {words}", words]
        assert said(log, "login_held") == [KINDS["login_held"].words]
        assert server.names().count("GetToken") == 3
        server.scripts["GetPlantDetail"] = [PLANT]
        clock.pass_time(60)
        await detail(it)
        assert said(log, "login_held")[1:] == [f"over: {KINDS['login_held'].words}"]
        assert said(log, "token_expired")[3:] == [f"over: {words}"]


async def test_a_refused_login(tmp_path, clock, log):
    async with both(tmp_path, clock) as (server, it):
        server.scripts["GetToken"] = [{"code": 100001, "msg": "wrong password"}, TOKEN]
        for _ in range(3):
            with pytest.raises(KINDS["login_refused"], match=r"wrong password|last login"):
                await detail(it)
        assert said(log, "login_refused") == [KINDS["login_refused"].words]
        assert log[0]["advice"] == "check account and password"
        assert sum("check account and password" in str(entry) for entry in log) == 1
        assert said(log, "refused") == []
        assert counted("errors_total", error="login_refused") == 3
        clock.pass_time(60)
        await detail(it)
        assert said(log, "login_refused")[1:] == [f"over: {KINDS['login_refused'].words}"]


async def test_a_refused_client_is_told_so_once_in_each_run(tmp_path, clock, log):
    async with serving("developer") as (server, url):
        server.scripts["Token"] = [http({"error": "invalid_client"}, 401)]
        for run in range(1, 4):
            async with session(url, tmp_path, clock, api="developer") as it:
                for _ in range(3):
                    with pytest.raises(KINDS["login_refused"], match="client id and client secret do not"):
                        await it.call("StationList", {"page": 1, "page_size": 100})
            assert said(log, "login_refused") == [KINDS["login_refused"].words] * run
        assert all(entry["advice"] == "check client id and client secret" for entry in log)
        assert server.names() == ["Token"]


async def test_a_gateway_that_starts_while_sems_is_away_still_says_that_the_login_is_refused(tmp_path, clock, log):
    port = free_port()
    async with session(f"http://127.0.0.1:{port}", tmp_path, clock) as it:
        for _ in range(3):
            with pytest.raises(KINDS["unreachable"]):
                await detail(it)
        assert said(log, "unreachable") == [KINDS["unreachable"].words]
        async with serving() as (server, _):
            server.scripts["GetToken"] = [{"code": "100001"}]
            listener = await asyncio.start_server(server.handle, "127.0.0.1", port)
            async with listener:
                for _ in range(3):
                    with pytest.raises(KINDS["login_refused"]):
                        await detail(it)
                assert said(log, "login_refused") == [KINDS["login_refused"].words]
                server.scripts = {"GetToken": [TOKEN], "GetPlantDetail": [PLANT]}
                clock.pass_time(60)
                await detail(it)
                listener.close()
        for kind in ("unreachable", "login_refused"):
            assert said(log, kind)[1:] == [f"over: {KINDS[kind].words}"]
        assert [entry["times"] for entry in log if "times" in entry] == [3, 3]
        assert counted("errors_total", error="unreachable") == 3


async def test_a_trouble_of_the_login_is_counted_once_however_many_calls_wait_for_it(tmp_path, clock, log):
    async with both(tmp_path, clock) as (server, it):
        server.scripts["GetToken"] = [http(b"", 500)]
        found = await asyncio.gather(*(detail(it, str(n)) for n in range(5)), return_exceptions=True)
        assert all(type(error) is KINDS["unreachable"] for error in found)
        assert counted("errors_total", error="server_error") == 1
        assert counted("errors_total", error="unreachable") == 0
        assert [(entry["error"], entry["interface"]) for entry in log] == [("server_error", "GetToken")]


async def test_logins_that_are_held_back(tmp_path, clock, log):
    async with both(tmp_path, clock) as (server, it):
        server.scripts["GetPlantDetail"] = [PLANT, *[EXPIRED, PLANT] * MAX_LOGINS_AN_HOUR]
        for _ in range(MAX_LOGINS_AN_HOUR):
            await detail(it)
        server.scripts["GetPlantDetail"] = [EXPIRED]
        for _ in range(3):
            with pytest.raises(KINDS["login_held"]):
                await detail(it)
        assert said(log, "login_held") == [KINDS["login_held"].words]
        clock.pass_time(3600)
        server.scripts["GetPlantDetail"] = [PLANT]
        await detail(it)
        assert said(log, "login_held")[1:] == [f"over: {KINDS['login_held'].words}"]


async def test_a_budget_that_is_used_up(tmp_path, clock, log):
    async with both(tmp_path, clock, per_hour=20) as (server, it):
        for _ in range(17):
            await detail(it)
        for _ in range(2):
            with pytest.raises(KINDS["budget_spent"], match="20 calls an hour are used up for polling"):
                await detail(it)
        # Control goes on meanwhile; that does not mean that polling could.
        await detail(it, priority=Priority.CONTROL)
        with pytest.raises(KINDS["budget_spent"]):
            await detail(it)
        assert said(log, "budget_spent") == [KINDS["budget_spent"].words]
        assert counted("errors_total", error="budget_spent") == 3
        assert counted("budget_calls") == 20
        assert counted("budget_used") == len(server.calls) == 19
        clock.pass_time(3660)
        await detail(it)
        assert said(log, "budget_spent")[1:] == [f"over: {KINDS['budget_spent'].words}"]


async def test_one_device_that_works_does_not_end_what_another_has(tmp_path, clock, log):
    async with both(tmp_path, clock) as (server, it):
        for _ in range(3):
            for plant, answer in (("a", PLANT), ("b", {"code": 0, "data": None}), ("c", {"code": 0, "data": None})):
                server.scripts["GetPlantDetail"] = [answer]
                await asyncio.gather(detail(it, plant), return_exceptions=True)
        assert said(log, "no_data") == [KINDS["no_data"].words]
        server.scripts["GetPlantDetail"] = [PLANT]
        await detail(it, "b")
        assert len(said(log, "no_data")) == 1
        await detail(it, "c")
        assert len(said(log, "no_data")) == 2


async def test_a_call_that_is_not_made_again_does_not_keep_a_trouble_for_ever(tmp_path, clock, log):
    async with both(tmp_path, clock) as (server, it):
        server.scripts["GetPlantDetail"] = [{"code": "5"}, PLANT]
        with pytest.raises(KINDS["refused"]):
            await detail(it, "gone")
        clock.pass_time(FORGET)
        await detail(it, "here")
        assert len(said(log, "refused")) == 1
        clock.pass_time(1)
        await it.call("GetInverterList", {"plant": "here"})
        assert len(said(log, "refused")) == 2


def test_the_subjects_of_a_trouble_are_not_remembered_without_end(clock):
    with structlog.testing.capture_logs() as log:
        troubles = ErrorTracker(structlog.get_logger(), clock)
        for n in range(MAX_SUBJECTS + 10):
            troubles.met(KINDS["no_data"]("nothing"), "X", (n,))
        for n in range(MAX_SUBJECTS):
            assert len(log) == 1
            troubles.well("X", (n,))
        assert [entry.get("times") for entry in log] == [None, MAX_SUBJECTS + 10]


async def test_metrics_name_no_account_and_go_when_the_session_does(tmp_path, clock):
    async with both(tmp_path, clock, password="hush-hush") as (_, it):
        await detail(it)
        text = generate_latest(REGISTRY).decode()
        assert 'sems_gateway_sems_calls_total{bridge="cloud",interface="GetToken"} 1.0' in text
        labels = re.findall(r"^sems_gateway_sems_\w+\{(.*)\}", text, re.MULTILINE)
        assert {key for label in labels for key in re.findall(r"(\w+)=", label)} <= {"bridge", "interface", "error"}
        assert "hush-hush" not in text
        assert '"me"' not in text
    assert "sems_gateway_sems" not in generate_latest(REGISTRY).decode()


def test_the_table_in_the_docs_has_every_error_as_it_is():
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in DOC.read_text().splitlines()]
    table = {
        cells[1].strip("`"): cells for cells in rows if len(cells) == 5 and cells[1][0] == "`" and cells[1] != "`error`"
    }
    assert table.keys() == KINDS.keys()
    for kind, (words, _, means, does, advice) in table.items():
        assert words == KINDS[kind].words
        assert KINDS[kind].advice in advice
        assert means
        assert does


def test_no_two_errors_share_a_name_and_each_says_what_is_done_next():
    concrete = [
        c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, CallError) and "kind" in vars(c)
    ]
    assert len(KINDS) == len(concrete)
    assert len({c.words for c in concrete}) == len(concrete)
    assert all(sum(issubclass(c, base) for base in (NotSentError, RefusedError, UnsureError)) == 1 for c in concrete)
