"""Who may read and who may command, and what strangers can do to the listener."""

import asyncio
import ssl
from collections import Counter

import httpx
import pytest
from pydantic import ValidationError

import gateway.bridges.web.commands as commands_module
import gateway.http.connection as connection_module
import gateway.http.login_throttle as guesses_module
from gateway.bridges.web import WebSettings
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

    monkeypatch.setattr("gateway.bridges.web.access_policy.hmac.compare_digest", compare)
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
        ({"trusted_proxies": ["127.0.0.1"]}, "through a proxy"),
        ({"hosts": ["localhost"]}, "localhost is known already"),
        ({"max_connections": 0}, "greater than or equal to 1"),
    ],
)
def test_settings_that_make_no_sense(settings, words):
    with pytest.raises(ValidationError, match=words):
        WebSettings(**settings)


def test_a_token_shows_itself_nowhere():
    assert WRITER not in repr(WebSettings(tokens={"a": {"token": WRITER}}))


async def test_wrong_tokens_are_limited_logged_and_counted_from_loopback_too(it, capsys):
    # D9: a guesser on this machine, or whoever comes through a proxy on it.
    statuses = Counter()
    for n in range(30):
        statuses[(await it.get("/api/v1/bridges", f"guess-{n}")).status_code] += 1
    # The clock runs on: one may have been looked at meanwhile.
    assert statuses[401] < 20
    assert statuses.total() == statuses[401] + statuses[429]
    answer = await it.get("/api/v1/bridges", WRITER)
    if answer.status_code != 200:
        assert answer.json()["reason"] == "guessing"
        assert 0 < int(answer.headers["retry-after"]) <= guesses_module.EVERY
    metrics = (await it.get("/metrics")).text
    assert f'sems_gateway_http_refused_total{{bridge="web",reason="unauthorized"}} {statuses[401]}.0' in metrics
    line = next(line for line in capsys.readouterr().out.splitlines() if "too many wrong secrets" in line)
    assert "127.0.0.1" in line


async def test_one_with_an_old_token_locks_out_nobody(it):
    for _ in range(guesses_module.FAILURES + 1):
        assert (await it.get("/api/v1/bridges", "an-old-one")).status_code == 401
    assert (await it.get("/api/v1/bridges", WRITER)).status_code == 200


async def test_behind_a_trusted_proxy_a_guesser_locks_out_himself_alone(tmp_path):
    async with served(tmp_path, trusted_proxies=["127.0.0.1"]) as it:

        async def ask(token, source):
            return await it.get("/api/v1/bridges", token, headers={"X-Forwarded-For": source})

        statuses = {(await ask(f"guess-{n}", "192.0.2.7")).status_code for n in range(30)}
        assert statuses == {401, 429}
        assert (await ask(WRITER, "192.0.2.8")).status_code == 200
        answer = await it.set({LIMIT: 50}, headers={"X-Forwarded-For": "198.51.100.1, 192.0.2.8"})
        id_ = answer.json()["commands"][0]["id"]
        assert (await it.get(f"/api/v1/commands/{id_}")).json()["origin"] == "web/scada:192.0.2.8"


@pytest.mark.parametrize("trusted", [[], ["127.0.0.1"]])
async def test_who_comes_through_a_proxy_is_not_of_this_machine(tmp_path, trusted):
    async with served(tmp_path, trusted_proxies=trusted) as it:
        assert (await it.get("/api/v1/bridges")).status_code == 200
        for source in ("192.0.2.7", "127.0.0.1"):
            assert (await it.get("/api/v1/bridges", headers={"X-Forwarded-For": source})).status_code == 401


# web pages of others in a browser on this machine: tests/http/test_origin.py and test_browser.py have more


@pytest.mark.parametrize("path", [*READS, "/healthz", "/readyz"])
@pytest.mark.parametrize("token", [None, WRITER])
@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:9090", ""])
async def test_a_name_that_was_made_to_lead_here_reads_nothing(it, path, host, token):
    answer = await it.get(path, token, headers={"Host": host})
    assert (answer.status_code, answer.json()["reason"]) == (403, "foreign_host")


async def test_a_name_of_the_settings_leads_here(tmp_path):
    async with served(tmp_path, hosts=["gateway.example.com"]) as it:
        for host in ("gateway.example.com", "Gateway.Example.com:443"):
            assert (await it.get("/api/v1/bridges", READER, headers={"Host": host})).status_code == 200
        headers = {"Host": f"127.0.0.1:{it.runner.bridge.port}", "Origin": "https://gateway.example.com"}
        assert (await it.set({LIMIT: 50}, headers=headers)).status_code == 202
        headers["Origin"] = "https://evil.example"
        answer = await it.set({LIMIT: 50}, headers=headers)
        assert (answer.status_code, answer.json()["reason"]) == (403, "foreign_origin")


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
    assert answer.status_code == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]


# the listener


async def raw(it, *parts, pause=0.0):
    reader, writer = await asyncio.open_connection("127.0.0.1", it.runner.bridge.port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)
        return await asyncio.wait_for(reader.read(), 120)
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
    monkeypatch.setattr(connection_module, "HEAD_TIMEOUT", 0.15)
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
    assert (await raw(it, b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 40_000)).startswith(b"HTTP/1.1 431")


async def test_connections_are_limited(tmp_path):
    async with served(tmp_path, max_connections=3) as it:
        held = [await asyncio.open_connection("127.0.0.1", it.runner.bridge.port) for _ in range(3)]
        with pytest.raises(httpx.HTTPError):
            await it.get("/healthz")
        for _, writer in held:
            writer.close()
        await until(lambda: not it.runner.bridge.http.connections)
        assert (await it.get("/healthz")).status_code == 200


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
