"""A session with one account, against a server that misbehaves as told, over real HTTP."""

import asyncio
import base64
import fcntl
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID

import pytest
import structlog.testing

from gateway.core.errors import NotSentError
from gateway.sems.budget import Budget, Priority
from gateway.sems.catalogue import load
from gateway.sems.errors import (
    BadAnswerError,
    BudgetSpentError,
    HttpStatusError,
    KeptOutError,
    LoginHeldError,
    LoginRefusedError,
    NoAnswerError,
    RateLimitedError,
    ServerError,
    TokenExpiredError,
    UnreachableError,
)
from gateway.sems.login import MAX_LOGINS_AN_HOUR
from gateway.sems.session import Credentials, Session
from tests.kit.ports import free_port
from tests.sems.kit import HANG_UP, SILENCE, Clock, http, serving, session

OK_TOKEN = {"code": 0, "msg": "", "data": {"token": "T"}}
PLANTS = {"code": "0", "data": {"list": []}}
EXPIRED = {"code": "100002", "msg": "expired"}
REFUSED = {"code": 100001, "msg": "wrong password"}
LONG_TOKEN = "eyJ" + "x" * 2000
OAUTH_TOKEN = http({"access_token": LONG_TOKEN, "expires_in": 1800})
STATIONS = {"code": "00000", "data": {"list": []}}


@asynccontextmanager
async def both(tmp_path, clock, **options):
    async with serving() as (server, url), session(url, tmp_path, clock, **options) as it:
        server.scripts = {"GetToken": [OK_TOKEN], "GetUserPlantList": [PLANTS]}
        yield server, it


@asynccontextmanager
async def developer(tmp_path, clock):
    async with serving("developer") as (server, url), session(url, tmp_path, clock, api="developer") as it:
        server.scripts = {"Token": [OAUTH_TOKEN], "StationList": [STATIONS]}
        yield server, it


@asynccontextmanager
async def classic_server():
    async with serving() as (server, url):
        server.scripts = {"GetToken": [OK_TOKEN], "GetUserPlantList": [PLANTS]}
        yield server, url


async def plants(session, **options):
    return await session.call("GetUserPlantList", {"page": 1, "page_size": 100}, **options)


async def stations(session, **options):
    return await session.call("StationList", {"page": 1, "page_size": 100}, **options)


@pytest.fixture
def clock():
    return Clock()


# Login


async def test_one_login_serves_many_calls_and_restarts(tmp_path, clock):
    async with classic_server() as (server, url):
        async with session(url, tmp_path, clock) as first:
            await plants(first)
            await plants(first)
        async with session(url, tmp_path, clock) as second:
            await plants(second)
        assert server.names().count("GetToken") == 1
        assert server.calls[0].body == {"account": "me", "pwd": "5ebe2294ecd0e0f08eab7690d2a6ee69"}
        assert {call.headers.get("token") for call in server.calls if call.name != "GetToken"} == {"T"}
        assert (tmp_path / "s.json").stat().st_mode & 0o077 == 0
        clock.pass_time(7200)
        async with session(url, tmp_path, clock) as third:
            await plants(third)
        assert server.names().count("GetToken") == 2


async def test_a_wall_clock_that_jumps_costs_no_login(tmp_path, clock):
    async with both(tmp_path, clock) as (server, it):
        await plants(it)
        for jump in (-1e8, 2e8):
            clock.jump(jump)
            await plants(it)
        assert server.names().count("GetToken") == 1


async def test_another_password_does_not_use_the_kept_token(tmp_path, clock):
    async with classic_server() as (server, url):
        for password in ("one", "two"):
            async with session(url, tmp_path, clock, password=password) as it:
                await plants(it)
        assert server.names().count("GetToken") == 2


async def test_an_expired_token_is_one_login_and_one_repeat(tmp_path, clock):
    async with both(tmp_path, clock) as (server, it):
        server.scripts["GetUserPlantList"] = [EXPIRED, PLANTS]
        await plants(it)
        assert server.names() == ["GetToken", "GetUserPlantList", "GetToken", "GetUserPlantList"]


async def test_calls_at_once_share_one_login(tmp_path, clock):
    async with both(tmp_path, clock) as (server, it):
        await asyncio.gather(*(plants(it) for _ in range(10)))
        assert server.names().count("GetToken") == 1
        server.scripts["GetToken"] = [{"code": 0, "data": {"token": "T2"}}]
        server.scripts["GetUserPlantList"] = [lambda call: PLANTS if call.headers["token"] == "T2" else EXPIRED]
        await asyncio.gather(*(plants(it) for _ in range(10)))
        assert server.names().count("GetToken") == 2
        assert server.names().count("GetUserPlantList") == 10 + 20


async def test_a_refused_login_backs_off_and_the_back_off_outlives_a_restart(tmp_path, clock):
    async with classic_server() as (server, url):
        server.scripts["GetToken"] = [REFUSED]
        waits = []
        for _ in range(12):
            async with session(url, tmp_path, clock) as it:
                with pytest.raises(LoginRefusedError, match="account and password do not") as caught:
                    await plants(it)
                wait = caught.value.retry_after
                await asyncio.gather(*(plants(it) for _ in range(5)), return_exceptions=True)
                clock.jump(1e7)
                with pytest.raises(LoginRefusedError):
                    await plants(it)
                clock.jump(-1e7)
            clock.pass_time(wait - 1)
            async with session(url, tmp_path, clock) as it:
                with pytest.raises(LoginRefusedError):
                    await plants(it)
            clock.pass_time(1)
            waits.append(wait)
        assert waits[:3] == [60, 120, 240]
        assert waits[-1] == 6 * 3600
        assert len(server.calls) == 12
        assert "secret" not in str(caught.value)
        assert "me" not in str(caught.value).split()


async def test_a_wall_clock_set_back_does_not_lengthen_the_back_off(tmp_path, clock):
    async with classic_server() as (server, url):
        server.scripts["GetToken"] = [REFUSED, OK_TOKEN]
        async with session(url, tmp_path, clock) as it:
            with pytest.raises(LoginRefusedError):
                await plants(it)
        clock.jump(-1e7)
        async with session(url, tmp_path, clock) as it:
            clock.pass_time(60)
            await plants(it)


async def test_an_impatient_caller_does_not_undo_the_back_off(tmp_path, clock):
    async with both(tmp_path, clock) as (server, it):
        server.scripts["GetToken"] = [REFUSED]
        server.held = asyncio.Event()
        for _ in range(5):
            with pytest.raises(UnreachableError, match="login in time"):
                await plants(it, timeout=0.02)
        server.held.set()
        with pytest.raises(LoginRefusedError):
            await plants(it)
        assert server.names() == ["GetToken"]


async def test_a_login_that_is_under_way_at_the_end_is_heard(tmp_path, clock):
    async with classic_server() as (server, url):
        server.scripts["GetToken"] = [REFUSED]
        async with session(url, tmp_path, clock) as it:
            server.held = asyncio.Event()
            with pytest.raises(UnreachableError):
                await plants(it, timeout=0.02)
            asyncio.get_running_loop().call_later(0.05, server.held.set)
        async with session(url, tmp_path, clock) as it:
            with pytest.raises(LoginRefusedError):
                await plants(it)
        assert server.names() == ["GetToken"]


async def test_tokens_that_are_never_taken_are_not_asked_for_again_and_again(tmp_path, clock):
    async with classic_server() as (server, url):
        server.scripts["GetUserPlantList"] = [EXPIRED]
        for logins, wait in ((2, 60), (3, 120), (4, 240)):
            for _ in range(3):
                async with session(url, tmp_path, clock) as it:
                    with pytest.raises(NotSentError) as caught:
                        await plants(it)
                    assert isinstance(caught.value, (TokenExpiredError, LoginHeldError))
                    assert server.names().count("GetToken") == logins
            clock.pass_time(wait)
        server.scripts["GetUserPlantList"] = [PLANTS, EXPIRED]
        async with session(url, tmp_path, clock) as it:
            await plants(it)
            with pytest.raises(TokenExpiredError):
                await plants(it)
            with pytest.raises(LoginHeldError, match="next login at 2026") as caught:
                await plants(it)
            assert caught.value.retry_after == 60


async def test_one_interface_that_takes_no_token_costs_itself_alone(tmp_path, clock):
    async with both(tmp_path, clock) as (server, it):
        server.scripts["GetUserPlantList"] = [PLANTS]
        server.scripts["GetInverterDetail"] = [EXPIRED]
        for round_ in range(20):
            for serial in "ABC":
                await plants(it)
                with pytest.raises((TokenExpiredError, KeptOutError)) as caught:
                    await it.call("GetInverterDetail", {"serial": serial})
                assert round_ == 0 or isinstance(caught.value, KeptOutError)
        assert server.names().count("GetToken") <= 3
        clock.pass_time(3600)
        server.scripts["GetInverterDetail"] = [{"code": 0, "data": {"sn": "A"}}]
        await it.call("GetInverterDetail", {"serial": "A"})


async def test_somebody_else_who_ends_our_tokens_does_not_make_us_log_in_with_every_call(tmp_path, clock):
    async with both(tmp_path, clock) as (server, it):
        server.scripts["GetUserPlantList"] = [PLANTS, *[EXPIRED, PLANTS] * MAX_LOGINS_AN_HOUR]
        for _ in range(MAX_LOGINS_AN_HOUR):
            await plants(it)
        clock.pass_time(60)
        with pytest.raises(LoginHeldError, match=f"{MAX_LOGINS_AN_HOUR} logins") as caught:
            await plants(it)
        assert caught.value.retry_after == 3540
        assert server.names().count("GetToken") == MAX_LOGINS_AN_HOUR
        clock.pass_time(3540)
        await plants(it)


async def test_no_answer_to_the_login_is_certain_not_to_have_sent_the_call(tmp_path, clock):
    async with both(tmp_path, clock) as (server, it):
        server.scripts["GetToken"] = [http(b"", 500), {"code": 0, "data": {}}, {"code": 0, "data": {"token": "a\nb"}}]
        with pytest.raises(UnreachableError, match="500"):
            await plants(it)
        for _ in range(2):
            with pytest.raises(UnreachableError, match="without a token"):
                await plants(it)
        server.scripts["GetToken"] = [http(b"", 404)]
        with pytest.raises(UnreachableError, match="404; is the url right"):
            await plants(it)
        server.scripts["GetToken"] = [OK_TOKEN]
        await plants(it)
        server.scripts["GetUserPlantList"] = [SILENCE]
        with pytest.raises(NoAnswerError, match="in time"):
            await plants(it, timeout=0.5)


@pytest.mark.parametrize("kept", [b"not json", b'{"token": 5}', None])
async def test_a_store_that_cannot_be_read_costs_a_login_no_more(tmp_path, clock, kept):
    store = tmp_path / "s.json"
    store.write_bytes(kept) if kept is not None else store.mkdir()
    async with both(tmp_path, clock) as (server, it):
        await plants(it)
        assert len(server.calls) == 2


# The developer platform


async def test_a_client_enters_with_basic_auth_and_a_bearer_token_and_each_call_has_an_id(tmp_path, clock):
    async with developer(tmp_path, clock) as (server, it):
        assert await stations(it) == {"list": []}
        await stations(it)
        login, first, second = server.calls
        assert login.headers["authorization"] == "Basic " + base64.b64encode(b"me:secret").decode()
        assert login.headers["content-type"] == "application/x-www-form-urlencoded"
        assert login.body == {"grant_type": "client_credentials"}
        assert first.headers["authorization"] == f"Bearer {LONG_TOKEN}"
        assert len({UUID(call.headers["request-id"]) for call in (login, first, second)}) == 3
        clock.pass_time(1800 - 180 - 1)
        await stations(it)
        assert server.names().count("Token") == 1
        clock.pass_time(1)
        await stations(it)
        assert server.names().count("Token") == 2


@pytest.mark.parametrize("lifetime", [None, 0, -5, "soon"])
async def test_a_login_that_does_not_say_how_long_lasts_as_the_catalogue_has_it(tmp_path, clock, lifetime):
    async with developer(tmp_path, clock) as (server, it):
        server.scripts["Token"] = [{"access_token": "T", "expires_in": lifetime}]
        await stations(it)
        clock.pass_time(3600 - 301)
        await stations(it)
        assert server.names().count("Token") == 1
        clock.pass_time(1)
        await stations(it)
        assert server.names().count("Token") == 2


async def test_nested_fields_and_what_only_one_setpoint_sends(tmp_path, clock):
    async with developer(tmp_path, clock) as (server, it):
        args = {"serials": ["a", "b"], "type": "storage"}
        server.scripts["DeviceTelemetry"] = [{"code": "00000", "data": {"deviceData": []}}]
        await it.call("DeviceTelemetry", args)
        assert server.calls[-1].body == {"sns": ["a", "b"], "deviceType": 1}
        with pytest.raises(KeyError):
            await it.call("DeviceTelemetry", {"serials": []})
        assert len(server.calls) == 2


async def test_a_setpoint_goes_along(tmp_path, clock):
    catalogue = load("developer")
    control = next(i for i in catalogue.interfaces if any(row.only for row in i.request))
    only = {row.only: row.field for row in control.request if row.only}
    async with developer(tmp_path, clock) as (server, it):
        server.scripts[control.name] = [{"code": "00000", "data": {"taskId": "1"}}]
        start, end = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
        known = {"serial": "S", "serials": ["S"], "begins": start, "ends": end, "type": "storage"}
        options = {row.arg: next(iter(row.options)) for row in control.request if row.options}
        args = {row.arg: 1 for row in control.request if row.arg} | options | known
        for setpoint in only:
            await it.call(control.name, args, setpoint=setpoint, priority=Priority.CONTROL)
            assert server.calls[-1].body == control.parameters(args, setpoint)


@pytest.mark.parametrize("answer", [http(b"", 401), http({"code": "GY0401"}, 401), {"code": "GY0401"}])
async def test_http_401_is_an_expired_token(tmp_path, clock, answer):
    async with developer(tmp_path, clock) as (server, it):
        server.scripts["StationList"] = [answer, STATIONS]
        await stations(it)
        assert server.names() == ["Token", "StationList"] * 2


@pytest.mark.parametrize(
    "answer",
    [
        http({"error": "invalid_client", "error_description": "Bad credentials"}, 401),
        http({"error": "invalid_client"}, 400),
        http({"error": "unauthorized_client"}, 400),
        http({"error": "invalid_client"}, 200),
        http(b"<html>no</html>", 403),
        http(b"", 401),
    ],
)
async def test_a_client_that_is_refused_backs_off(tmp_path, clock, answer):
    async with developer(tmp_path, clock) as (server, it):
        server.scripts["Token"] = [answer, answer, OAUTH_TOKEN]
        for wait in (60, 120):
            with pytest.raises(LoginRefusedError, match="client id and client secret") as caught:
                await stations(it)
            assert caught.value.retry_after == wait
            clock.pass_time(wait - 1)
            with pytest.raises(LoginRefusedError):
                await stations(it)
            clock.pass_time(1)
        await stations(it)
        assert server.names() == ["Token", "Token", "Token", "StationList"]


async def test_a_platform_can_limit_logins_too(tmp_path, clock):
    async with developer(tmp_path, clock) as (server, it):
        server.scripts["Token"] = [{"code": "GY0429"}, OAUTH_TOKEN]
        with pytest.raises(RateLimitedError):
            await stations(it)
        clock.pass_time(299)
        with pytest.raises(RateLimitedError):
            await stations(it)
        clock.pass_time(1)
        await stations(it)


# Limits


@pytest.mark.parametrize(
    ("answer", "wait"),
    [
        ({"code": "GY0429"}, 300),
        (http({"code": "GY0429"}, 403), 300),
        (http(b"", 429), 300),
        (http(b"", 429, "Retry-After: 17\r\n"), 17),
        (http(b"", 429, "Retry-After: 0\r\n"), 1),
        (http(b"", 429, "Retry-After: 99999999999\r\n"), 24 * 3600),
        (http(b"", 429, "Retry-After: soon\r\n"), 300),
        # Noon is the clock's now; the server's own clock goes before.
        (http(b"", 429, "Retry-After: Sun, 21 Jun 2026 12:02:00 GMT\r\n"), 120),
        (http(b"", 429, "Retry-After: Sun, 21 Jun 2026 11:02:00 GMT\r\n"), 1),
        (http(b"", 429, "Retry-After: Wed, 21 Oct 2026 07:28:00 GMT\r\nDate: Wed, 21 Oct 2026 07:27:30 GMT\r\n"), 30),
        (http(b"", 429, "Retry-After: Wed, 21 Oct 2026 07:28:00 -0000\r\nDate: Wed, 21 Oct 2026 07:27:30 GMT\r\n"), 30),
    ],
)
async def test_rate_limited_waits_as_told_without_asking_again(tmp_path, clock, answer, wait):
    async with both(tmp_path, clock) as (server, it):
        server.scripts["GetUserPlantList"] = [answer, PLANTS]
        with pytest.raises(RateLimitedError) as caught:
            await plants(it)
        assert caught.value.retry_after == wait
        calls = len(server.calls)
        clock.pass_time(wait - 0.5)
        with pytest.raises(RateLimitedError):
            await plants(it, priority=Priority.REVERT)
        assert len(server.calls) == calls
        clock.pass_time(0.5)
        await plants(it)


async def test_a_limit_holds_for_both_sessions_of_an_account(tmp_path, clock):
    budget = Budget.shared(tmp_path / "budget.json", 100, clock)
    async with (
        both(tmp_path / "one", clock, budget=budget) as (server, one),
        both(tmp_path / "two", clock, budget=Budget.shared(tmp_path / "budget.json", 100, clock)) as (_, two),
    ):
        server.scripts["GetUserPlantList"] = [{"code": "GY0429"}]
        with pytest.raises(RateLimitedError):
            await plants(one)
        with pytest.raises(RateLimitedError):
            await plants(two)
        clock.pass_time(300)
        await plants(two)
        assert budget.used == 4


async def test_the_budget_is_never_overrun_and_each_priority_has_its_share(tmp_path, clock):
    async with both(tmp_path, clock, per_hour=20) as (server, it):
        it.budget.plan("sems", it.budget.for_polling)
        made = dict.fromkeys(Priority, 0)
        for priority in Priority:
            while not it.budget.wait(priority):
                await plants(it, priority=priority)
                made[priority] += 1
            with pytest.raises(BudgetSpentError) as caught:
                await plants(it, priority=priority)
        assert all(made.values())
        assert len(server.calls) == 20 == it.budget.used
        clock.pass_time(caught.value.retry_after)
        await plants(it, priority=Priority.REVERT)


async def test_no_login_is_made_for_a_call_that_cannot_be(tmp_path, clock):
    async with both(tmp_path, clock, per_hour=20) as (server, it):
        while not it.budget.wait(Priority.POLLING):
            it.budget.spend(Priority.POLLING)
        with pytest.raises(BudgetSpentError):
            await plants(it)
        assert server.calls == []
        await plants(it, priority=Priority.CONTROL)


async def test_a_budget_outlives_a_restart(tmp_path, clock):
    async with classic_server() as (server, url):
        for _ in range(2):
            budget = Budget.shared(tmp_path / "b.json", 20, clock)
            async with session(url, tmp_path, clock, budget=budget) as it:
                while not it.budget.wait(Priority.REVERT):
                    await plants(it, priority=Priority.REVERT)
                with pytest.raises(BudgetSpentError):
                    await plants(it, priority=Priority.REVERT)
            del budget, it
        assert len(server.calls) == 20


# Being away


async def test_nobody_there(tmp_path, clock):
    async with session(f"http://127.0.0.1:{free_port()}", tmp_path, clock) as it:
        with pytest.raises(UnreachableError, match="can't be reached"):
            await plants(it)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "http://127.0.0.1/\x01"])
async def test_an_address_that_is_none(tmp_path, clock, url):
    async with session(url, tmp_path, clock) as it:
        with pytest.raises(UnreachableError, match="no address that can be asked"):
            await plants(it)


async def test_not_started(tmp_path, clock):
    it = Session(load("open_api"), "http://x", Credentials("a", "b"), tmp_path / "s", clock, Budget(10, clock))
    with pytest.raises(UnreachableError, match="not open"):
        await plants(it)


async def test_nothing_is_sent_once_time_is_up(tmp_path, clock):
    async with both(tmp_path, clock) as (server, it):
        await plants(it)
        with pytest.raises(UnreachableError, match="no time was left"):
            await plants(it, timeout=0)
        assert len(server.calls) == 2


async def test_nothing_is_sent_when_the_disk_takes_all_the_time(tmp_path, clock):
    budget = Budget.shared(tmp_path / "b.json", 100, clock)
    async with both(tmp_path, clock, budget=budget) as (server, it):
        await plants(it)
        with (tmp_path / "b.json.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            clock.pass_time(300)  # the lease is over
            with pytest.raises(UnreachableError, match="no time was left"):
                await plants(it, timeout=0.05)
        await plants(it)
        assert len(server.calls) == 3


async def test_a_get_asks_in_its_query(tmp_path, clock):
    async with both(tmp_path, clock) as (server, it):
        server.scripts["GetInverterBySN"] = [{"code": 0, "data": {"sn": "S"}}]
        assert await it.call("GetInverterBySN", {"serial": "S"}) == {"sn": "S"}
        assert server.calls[-1].query == {"invertersn": "S"}
        assert server.calls[-1].body is None


def test_what_is_kept_of_an_account_is_one_file_for_all_bridges_and_tells_nothing(tmp_path):
    one, renewed, other = Credentials("me", "secret"), Credentials("me", "new"), Credentials("you", "secret")
    file = one.file(tmp_path, "open_api", "budget")
    assert file == renewed.file(tmp_path, "open_api", "budget")
    assert file != other.file(tmp_path, "open_api", "budget")
    assert file != one.file(tmp_path, "developer", "budget")
    assert file.parent == tmp_path
    assert not {"me", "secret"} & set(file.name.split("-"))


async def test_a_store_that_cannot_be_written_costs_a_login_with_each_restart_and_is_said(tmp_path, clock):
    async with classic_server() as (server, url):
        (tmp_path / "file").write_text("")
        for _ in range(2):
            with structlog.testing.capture_logs() as log:
                async with session(url, tmp_path / "file", clock) as it:
                    await plants(it)
                    await plants(it)
            assert "the token can't be kept over a restart" in [entry["event"] for entry in log]
        assert server.names().count("GetToken") == 2


async def test_an_error_is_of_its_class_for_what_is_done_next(tmp_path, clock):
    async with both(tmp_path, clock) as (server, it):
        for answer, error in (
            (HANG_UP, NoAnswerError),
            (http(b"", 502), ServerError),
            (http(b"", 302, "Location: /login\r\n"), HttpStatusError),
            (http(b"", 204), BadAnswerError),
        ):
            server.scripts["GetUserPlantList"] = [answer]
            with pytest.raises(error):
                await plants(it)
