"""Who may read and who may command, and what strangers can do to the listener."""

import asyncio
import ssl

import httpx
import pytest
from pydantic import ValidationError

import gateway.bridges.web.commands as commands_module
import gateway.http_guesses as guesses_module
import gateway.http_server as server_module
from gateway.bridges.web import WebSettings
from gateway.bridges.web.door import Door
from gateway.bridges.web.problems import ProblemError
from tests.bridges.web.conftest import READER, SN, WRITER, served
from tests.kit.bench import until
from tests.kit.certificates import Authority

LIMIT = "active_power_limit"
SET = f"/api/v1/devices/{SN}/set"
READS = ["/api/v1/devices", f"/api/v1/devices/{SN}", "/api/v1/commands/none", "/api/v1/bridges", "/metrics"]


# tokens


async def test_commands_need_a_token_that_writes_also_on_this_machine(it):
    unknown, reading = (401, "unauthorized"), (403, "read_only_token")
    for token, (status, reason) in ((None, unknown), ("wrong", unknown), (READER, reading)):
        for method, path in (("POST", SET), ("DELETE", "/api/v1/commands/none")):
            answer = await it.ask(method, path, token, json={LIMIT: 50})
            assert (answer.status_code, answer.json()["reason"]) == (status, reason)
            assert (answer.headers.get("www-authenticate") == "Bearer") is (status == 401)
    assert not it.controller.sent


@pytest.mark.parametrize(
    "given", ["Basic eA==", WRITER, "Bearer", f"Token {WRITER}", f"Bearer {WRITER}x", "Bearer \xff"]
)
async def test_what_is_no_token_of_ours(it, given):
    answer = await it.ask("POST", SET, json={LIMIT: 50}, headers={"Authorization": given.encode("latin-1")})
    assert answer.status_code == 401
    assert WRITER not in answer.text


async def test_the_scheme_has_no_case(it):
    answer = await it.ask("POST", SET, json={LIMIT: 50}, headers={"Authorization": f"bEARER {WRITER}"})
    assert answer.status_code == 202


@pytest.mark.parametrize("path", READS)
async def test_with_a_reader_s_token_set_reading_needs_one(tmp_path, path):
    async with served(tmp_path, token="one-for-prometheus") as it:
        assert (await it.get(path)).status_code == 401
        assert (await it.get(path, "wrong")).status_code == 401
        for token in ("one-for-prometheus", READER, WRITER):
            assert (await it.get(path, token)).status_code in (200, 404)
        assert (await it.set({LIMIT: 50}, "one-for-prometheus")).status_code == 403


async def test_all_tokens_are_compared_whichever_fits(it, monkeypatch):
    compared = []

    def compare(one, other):
        assert len(one) == len(other)
        compared.append(one)
        return one == other

    monkeypatch.setattr("gateway.bridges.web.door.hmac.compare_digest", compare)
    for token in (WRITER, READER, "x", "y" * 10_000):
        compared.clear()
        await it.get("/api/v1/bridges", token)
        assert len(set(compared)) == 3


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tokens": {"a": {"token": "short"}}}, "16 random characters"),
        ({"tokens": {"a/b": {"token": WRITER}}}, "should match pattern"),
        ({"tokens": {"a:b": {"token": WRITER}}}, "should match pattern"),
        ({"tokens": {"a": {"token": WRITER}, "b": {"token": WRITER}}}, "tokens.b is the same as tokens.a"),
        ({"token": WRITER, "tokens": {"b": {"token": WRITER}}}, "tokens.b is the same as token;"),
        ({"token": ""}, "the token is empty"),
        ({"tokens": {"a": {"token": WRITER, "writes": True}}}, "Extra inputs"),
        ({"host": "0.0.0.0"}, "set token or tokens"),
        ({"tls": {"certificate": "/nowhere.pem", "key": "/nowhere.key"}}, "certificate: /nowhere.pem can't be read"),
        ({"max_connections": 0}, "greater than or equal to 1"),
    ],
)
def test_settings_that_make_no_sense(settings, words):
    with pytest.raises(ValidationError, match=words):
        WebSettings(**settings)


def test_a_token_shows_itself_nowhere():
    assert WRITER not in repr(WebSettings(tokens={"a": {"token": WRITER}}))


class Asked:
    """As much of a request as the door looks at."""

    def __init__(self, source, **headers):
        self.headers = headers
        self.client = type("Client", (), {"host": source})()


async def test_strangers_who_guess_are_not_listened_to_for_a_while(it, capsys):
    door = Door(WebSettings(host="0.0.0.0", tokens={"a": {"token": WRITER, "write": True}}), it.runner)
    for _ in range(guesses_module.FAILURES):
        with pytest.raises(ProblemError) as refused:
            door.reader(Asked("192.0.2.7", authorization="Bearer guess"))
        assert refused.value.kind == "unauthorized"
    with pytest.raises(ProblemError) as refused:
        door.reader(Asked("::ffff:192.0.2.7", authorization=f"Bearer {WRITER}"))
    assert (refused.value.kind, refused.value.retry_after > 0) == ("guessing", True)
    assert door.writer(Asked("192.0.2.8", authorization=f"Bearer {WRITER}")).origin == "web/a:192.0.2.8"
    assert capsys.readouterr().out.count("too many wrong secrets") == 1


async def test_on_this_machine_one_with_an_old_token_locks_out_nobody(it):
    for _ in range(guesses_module.FAILURES + 1):
        assert (await it.get("/api/v1/bridges", "an-old-one")).status_code == 401
    assert (await it.get("/api/v1/bridges", WRITER)).status_code == 200


# web pages of others in a browser on this machine


@pytest.mark.parametrize("path", READS)
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:9090", "127.0.0.1.evil.example", "192.0.2.1", "", "[::1.evil"]
)
async def test_a_name_that_was_made_to_lead_here_reads_nothing(it, path, host):
    answer = await it.get(path, headers={"Host": host})
    assert (answer.status_code, answer.json()["reason"]) == (403, "foreign_host")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9090", "127.0.0.1:80", "[::1]:9090", "127.9.9.9"])
async def test_this_machine_s_own_names_do(it, host):
    assert (await it.get("/api/v1/bridges", headers={"Host": host})).status_code == 200


async def test_with_a_token_the_name_does_not_matter(it):
    headers = {"Host": "gateway.example.com"}
    assert (await it.get("/api/v1/bridges", READER, headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "content",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        None,
        "text/plain; application/json",
    ],
)
async def test_what_a_form_can_send_is_no_command(it, content):
    headers = {} if content is None else {"Content-Type": content}
    answer = await it.ask("POST", SET, WRITER, content=b'{"active_power_limit": 50}', headers=headers)
    assert (answer.status_code, answer.json()["reason"]) == (415, "not_json")
    assert not it.controller.sent


async def test_nobody_elses_page_is_told_that_it_may(it):
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    answer = await it.ask("OPTIONS", SET, headers=headers)
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.startswith("access-control")]


# the listener


async def raw(it, *parts, pause=0.0):
    reader, writer = await asyncio.open_connection("127.0.0.1", it.runner.bridge.port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


def head(length):
    lines = [f"POST {SET} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {WRITER}"]
    return "\r\n".join([*lines, "Content-Type: application/json", length, "", ""]).encode()


async def test_the_server_does_not_say_what_it_is(it):
    answer = await it.get("/healthz")
    assert "server" not in answer.headers
    assert (await it.get("/api/v1/bridges")).headers["cache-control"] == "no-store"


@pytest.mark.parametrize("part", [b"", b"POST /api/v1", b"POST /api/v1 HTTP/1.1\r\nHost: localhost\r\nA: b\r\n"])
async def test_who_never_finishes_the_head_is_cut_off(it, monkeypatch, part):
    monkeypatch.setattr(server_module, "HEAD_TIMEOUT", 0.15)
    assert await raw(it, part) == b""


async def test_who_never_finishes_the_body_is_answered_and_cut_off(it, monkeypatch):
    monkeypatch.setattr(commands_module, "BODY_TIMEOUT", 0.1)
    answer = await raw(it, head("Content-Length: 100"), b"{")
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"reason":"timed_out"' in answer


@pytest.mark.parametrize("length", ["Content-Length: 65537", "Transfer-Encoding: chunked"])
async def test_more_than_the_limit_is_not_read(it, length):
    parts = [] if "Content" in length else [b"4000\r\n" + b" " * 0x4000 + b"\r\n"] * 5
    answer = await raw(it, head(length), *parts)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b'"reason":"too_large"' in answer


async def test_a_body_as_large_as_the_limit_is_read(it):
    body = b'{"active_power_limit": 50}'.ljust(commands_module.BODY_LIMIT)
    answer = await it.ask(
        "POST", SET, WRITER, content=body, headers={"Content-Type": "application/json; charset=utf-8"}
    )
    assert answer.status_code == 202


async def test_a_packed_body_is_not_unpacked(it):
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert (await it.ask("POST", SET, WRITER, content=b"x", headers=headers)).status_code == 415


async def test_a_head_without_end_is_refused(it):
    assert (await raw(it, b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 40_000)).startswith(b"HTTP/1.1 400")


async def test_connections_are_limited(tmp_path):
    async with served(tmp_path, max_connections=3) as it:
        held = [await asyncio.open_connection("127.0.0.1", it.runner.bridge.port) for _ in range(3)]

        async def status():
            return (await it.get("/healthz")).status_code

        async with asyncio.timeout(10):
            while await status() != 503:
                pass
        for _, writer in held:
            writer.close()
        async with asyncio.timeout(10):
            while await status() != 200:
                pass


async def test_it_speaks_tls(tmp_path):
    authority = Authority(tmp_path)
    certificate, key = authority.sign("web", server=True)
    async with served(tmp_path / "data", tls={"certificate": str(certificate), "key": str(key)}) as it:
        trust = ssl.create_default_context(cafile=str(authority.pem))
        async with httpx.AsyncClient(verify=trust, trust_env=False) as client:
            answer = await client.get(f"https://localhost:{it.runner.bridge.port}/api/v1/bridges")
            assert answer.status_code == 200
        with pytest.raises(httpx.HTTPError):
            await it.get("/healthz")


async def test_clear_text_on_an_open_address_is_warned_of(tmp_path, capsys):
    async with served(tmp_path, host="0.0.0.0") as it:
        assert (await it.get("/api/v1/bridges")).status_code == 401
        assert (await it.get("/api/v1/bridges", READER)).status_code == 200
    assert "in clear text" in capsys.readouterr().out


async def test_when_it_stops_who_waits_is_let_go(it):
    it.controller.gate.clear()
    waits = asyncio.create_task(it.set({LIMIT: 50}, query="?wait=300"))
    await until(lambda: it.controller.sent)
    await it.runner.stop()
    outcome = (await asyncio.gather(waits, return_exceptions=True))[0]
    assert isinstance(outcome, httpx.HTTPError) or outcome.status_code >= 500
    assert not it.runner.bridge._commands._waiting
    it.controller.gate.set()
