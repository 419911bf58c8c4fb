"""A session with one account, against a server that misbehaves as told, over real HTTP."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from gateway.core.errors import NotSentError
from gateway.sems.budget import Budget
from gateway.sems.catalogue import load
from gateway.sems.errors import (
    BadAnswerError,
    LoginRefusedError,
    NoAnswerError,
    RateLimitedError,
    SemsRefusedError,
    UnreachableError,
)
from gateway.sems.session import MAX_ANSWER, Credentials, Session
from tests.kit.ports import free_port

OK_TOKEN = {"code": 0, "msg": "", "data": {"token": "T"}}
PLANTS = {"code": "0", "data": {"list": []}}


class Clock:
    """Moved by hand: real sockets need the real loop."""

    def __init__(self):
        from tests.kit.clock import NOON

        self.wall, self.mono = NOON, 0.0

    def now(self):
        return self.wall

    def monotonic(self):
        return self.mono

    def pass_time(self, seconds):
        from datetime import timedelta

        self.wall += timedelta(seconds=seconds)
        self.mono += seconds


class Server:
    """Answers each path from a script: dicts as JSON, bytes raw; the last entry of a script stays."""

    def __init__(self):
        self.scripts = {"GetToken": [OK_TOKEN], "GetUserPlantList": [PLANTS]}
        self.calls = []

    async def handle(self, reader, writer):
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            path = head.split()[1].rsplit("/", 1)[-1].partition("?")[0]
            headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:-2])
            length = int({k.lower(): v for k, v in headers.items()}.get("content-length", 0))
            body = await reader.readexactly(length)
            self.calls.append((path, headers.get("token"), json.loads(body) if body else None))
            script = self.scripts[path]
            answer = script.pop(0) if len(script) > 1 else script[0]
            if isinstance(answer, dict):
                answer = http(json.dumps(answer).encode())
            if answer is not None:
                writer.write(answer)
                await writer.drain()
            else:
                await asyncio.sleep(3600)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def http(body, status=200, headers=""):
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{headers}\r\n".encode() + body


@asynccontextmanager
async def serving():
    server = Server()
    listener = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    tasks_before = asyncio.all_tasks()
    try:
        yield server, f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()
        for task in asyncio.all_tasks() - tasks_before - {asyncio.current_task()}:
            task.cancel()


@asynccontextmanager
async def session(url, tmp_path, clock, *, password="secret", per_hour=3600):
    session = Session(
        load("open_api"), url, Credentials("me", password), tmp_path / "s.json", clock, Budget(per_hour, clock)
    )
    await session.start()
    try:
        yield session
    finally:
        await session.stop()


async def plants(session, **options):
    return await session.call("GetUserPlantList", {"page": 1, "page_size": 100}, **options)


@pytest.fixture
def clock():
    return Clock()


async def test_one_login_serves_many_calls_and_restarts(tmp_path, clock):
    async with serving() as (server, url):
        async with session(url, tmp_path, clock) as first:
            await plants(first)
            await plants(first)
        async with session(url, tmp_path, clock) as second:
            await plants(second)
        assert [path for path, _, _ in server.calls].count("GetToken") == 1
        assert server.calls[0][2] == {"account": "me", "pwd": "5ebe2294ecd0e0f08eab7690d2a6ee69"}
        assert {token for path, token, _ in server.calls if path != "GetToken"} == {"T"}
        assert (tmp_path / "s.json").stat().st_mode & 0o077 == 0
        clock.pass_time(7200)
        async with session(url, tmp_path, clock) as third:
            await plants(third)
        assert [path for path, _, _ in server.calls].count("GetToken") == 2


async def test_another_password_does_not_use_the_kept_token(tmp_path, clock):
    async with serving() as (server, url):
        for password in ("one", "two"):
            async with session(url, tmp_path, clock, password=password) as it:
                await plants(it)
        assert [path for path, _, _ in server.calls].count("GetToken") == 2


async def test_an_expired_token_is_one_login_and_one_repeat(tmp_path, clock):
    async with serving() as (server, url), session(url, tmp_path, clock) as it:
        server.scripts["GetUserPlantList"] = [{"code": "100002", "msg": "expired"}, PLANTS]
        await plants(it)
        assert [path for path, _, _ in server.calls] == [
            "GetToken",
            "GetUserPlantList",
            "GetToken",
            "GetUserPlantList",
        ]
        server.scripts["GetUserPlantList"] = [{"code": 100002}]
        with pytest.raises(NotSentError):
            await plants(it)


async def test_calls_at_once_share_one_login(tmp_path, clock):
    async with serving() as (server, url), session(url, tmp_path, clock) as it:
        await asyncio.gather(*(plants(it) for _ in range(10)))
        assert [path for path, _, _ in server.calls].count("GetToken") == 1


async def test_a_refused_login_backs_off_and_the_back_off_outlives_a_restart(tmp_path, clock):
    async with serving() as (server, url):
        server.scripts["GetToken"] = [{"code": 100001, "msg": "wrong password"}]
        waits = []
        for _ in range(12):
            async with session(url, tmp_path, clock) as it:
                with pytest.raises(LoginRefusedError, match="check account and password") as caught:
                    await plants(it)
                with pytest.raises(LoginRefusedError):
                    await plants(it)
                waits.append(caught.value.retry_after)
                clock.pass_time(caught.value.retry_after)
        assert waits[:3] == [60, 120, 240]
        assert waits[-1] == 6 * 3600
        assert len(server.calls) == 12
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (http(b"<html>maintenance</html>"), BadAnswerError, "a web page"),
        (http(b'{"code": 0, "data": {"li'), BadAnswerError, "not JSON"),
        (http(b"[]"), BadAnswerError, "without a code"),
        ({"code": 0, "data": None}, BadAnswerError, "without data"),
        ({"code": "R0305", "msg": "no"}, SemsRefusedError, "R0305: no"),
        (http(b"", 503), NoAnswerError, "HTTP 503"),
        (http(b"", 404), BadAnswerError, "is the url right"),
        (b"garbage\r\n\r\n", NoAnswerError, "did not answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", NoAnswerError, "did not answer"),
        (http(b" " * (MAX_ANSWER + 1)), BadAnswerError, "MiB"),
    ],
)
async def test_each_failure_has_its_own_error(tmp_path, clock, answer, error, says):
    async with serving() as (server, url), session(url, tmp_path, clock) as it:
        server.scripts["GetUserPlantList"] = [answer]
        with pytest.raises(error, match=says):
            await plants(it)
        server.scripts["GetUserPlantList"] = [PLANTS]
        await plants(it)


@pytest.mark.parametrize(
    ("answer", "wait"),
    [
        ({"code": "GY0429"}, 300),
        (http(b"", 429, "Retry-After: 17\r\n"), 17),
        (http(b"", 429, "Retry-After: Wed, 21 Oct 2026 07:28:00 GMT\r\n"), 300),
    ],
)
async def test_rate_limited_waits_as_told_without_asking_again(tmp_path, clock, answer, wait):
    async with serving() as (server, url), session(url, tmp_path, clock) as it:
        server.scripts["GetUserPlantList"] = [answer, PLANTS]
        with pytest.raises(RateLimitedError) as caught:
            await plants(it)
        assert caught.value.retry_after == wait
        calls = len(server.calls)
        clock.pass_time(wait - 1)
        with pytest.raises(RateLimitedError):
            await plants(it)
        assert len(server.calls) == calls
        clock.pass_time(1)
        await plants(it)


async def test_the_budget_is_never_overrun_and_control_has_a_share_of_its_own(tmp_path, clock):
    async with serving() as (server, url), session(url, tmp_path, clock, per_hour=20) as it:
        for _ in range(17):
            await plants(it)
        with pytest.raises(RateLimitedError):
            await plants(it)
        for _ in range(2):
            await plants(it, control=True)
        with pytest.raises(RateLimitedError, match="20 calls an hour are used up") as caught:
            await plants(it, control=True)
        assert len(server.calls) == 20 == it.budget.used
        clock.pass_time(caught.value.retry_after)
        await plants(it, control=True)


async def test_nobody_there(tmp_path, clock):
    async with session(f"http://127.0.0.1:{free_port()}", tmp_path, clock) as it:
        with pytest.raises(UnreachableError, match="can't be reached"):
            await plants(it)


async def test_not_started(tmp_path, clock):
    it = Session(load("open_api"), "http://x", Credentials("a", "b"), tmp_path / "s", clock, Budget(10, clock))
    with pytest.raises(UnreachableError):
        await plants(it)


async def test_no_answer_to_the_login_is_certain_not_to_have_sent_the_call(tmp_path, clock):
    async with serving() as (server, url), session(url, tmp_path, clock) as it:
        server.scripts["GetToken"] = [None, http(b"", 500), {"code": 0, "data": {}}, OK_TOKEN]
        with pytest.raises(UnreachableError, match="in time"):
            await plants(it, timeout=0.1)
        with pytest.raises(UnreachableError, match="500"):
            await plants(it)
        with pytest.raises(UnreachableError, match="without a token"):
            await plants(it)
        server.scripts["GetUserPlantList"] = [None]
        with pytest.raises(NoAnswerError, match="in time"):
            await plants(it, timeout=0.1)


@pytest.mark.parametrize("kept", [b"not json", b'{"token": 5}', None])
async def test_a_store_that_cannot_be_read_costs_a_login_no_more(tmp_path, clock, kept):
    store = tmp_path / "s.json"
    store.write_bytes(kept) if kept is not None else store.mkdir()
    async with serving() as (server, url), session(url, tmp_path, clock) as it:
        await plants(it)
        assert len(server.calls) == 2
