"""Who may push, and what strangers can do to the listener."""

import asyncio
import gzip
import json
import ssl
import warnings
import zlib
from collections import Counter

import httpx
import pytest
from prometheus_client import REGISTRY
from pydantic import ValidationError

import gateway.bridges.push.body as body_module
import gateway.http.connection as connection_module
import gateway.http.login_throttle as guesses_module
from gateway.api.registry import installed
from gateway.bridges.push import PushBridge, PushSettings
from gateway.core.clock import SystemClock
from gateway.run.settings import Config, ConfigError
from tests.bridges.push.conftest import SECRET, SN, pushed_to
from tests.kit.bench import until
from tests.kit.certificates import Authority

JSON = {"Content-Type": "application/json"}
BEGUN = "\r\n".join(
    [
        f"POST /push/{SECRET} HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        "Content-Length: 100",
        "",
        "{",
    ]
).encode()
"""A push that does not come to its end."""


def samples(name):
    return [sample for family in REGISTRY.collect() for sample in family.samples if sample.name == name]


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (f"/push/{SECRET}", {}, 204),
        ("/push", {"X-Push-Secret": SECRET}, 204),
        ("/push/wrong", {"X-Push-Secret": SECRET}, 204),
        ("/push/wrong", {}, 401),
        (f"/push/{SECRET}/", {}, 204),
        (f"//push//{SECRET}", {}, 204),
        ("/push/", {"X-Push-Secret": SECRET}, 204),
        (f"/push/{SECRET}?from=sems", {}, 204),
        ("/push/", {}, 401),
        ("/push", {}, 401),
        ("/push", {"X-Push-Secret": "wrong"}, 401),
        ("/push/%C3%BC", {}, 401),
        ("/push", [("X-Push-Secret", SECRET), ("x-push-secret", "wrong")], 400),
        ("/", {"X-Push-Secret": SECRET}, 404),
        (f"/{SECRET}", {}, 404),
        (f"/pushing/{SECRET}", {}, 404),
    ],
)
async def test_the_secret_stands_in_the_path_or_in_the_header(it, path, headers, status):
    answer = await it.post(it.inverter(1), path, headers=headers)
    assert answer.status_code == status
    assert (it.values() is not None) is (status == 204)
    if status != 204:
        assert it.counts == {"unauthorised": 1}
        assert SECRET not in answer.text


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (f"/push/{SECRET}/inverters", {}, 404),
        (f"/push/x/{SECRET}", {}, 404),
        (f"/push?secret={SECRET}", {}, 404),
        ("/push", {"Authorization": f"Bearer {SECRET}"}, 404),
        (f"/pushes/{SECRET}", {}, 404),
        ("/", {"X-Push-Secret": SECRET}, 404),
    ],
)
async def test_the_right_secret_in_a_wrong_address_is_no_guess_and_the_log_says_what_is_lost(
    it, capsys, path, headers, status
):
    for n in range(guesses_module.FAILURES + 2):
        spread = path.replace("?", f"/?n={n}&") if "?" in path else f"{path}/?n={n}"
        assert (await it.post(it.inverter(1), spread, headers=headers)).status_code == status
    out = capsys.readouterr().out
    assert "a push with the right secret is not taken" in out
    assert SECRET not in out
    assert (await it.post(it.inverter(1))).status_code == 204


async def test_where_no_guess_is_counted_the_answer_does_not_tell_a_right_secret(it):
    for path in ("/pushes/{}", "/{}"):
        answers = [await it.post(it.inverter(1), path.format(secret)) for secret in (SECRET, "guess")]
        assert len({(answer.status_code, answer.content) for answer in answers}) == 1


async def test_all_that_is_wrong_with_a_secret_is_answered_alike(it):
    answers = [await it.post(it.inverter(1), path) for path in ("/push", "/push/x", f"/push/{SECRET[:-1]}")]
    assert len({(answer.status_code, answer.content) for answer in answers}) == 1


async def test_path_and_header_may_have_other_names(tmp_path):
    async with pushed_to(tmp_path, path="/goodwe/v1", header="X-Api-Key") as it:
        assert (await it.post(it.inverter(1), "/goodwe/v1", headers={"x-api-key": SECRET})).status_code == 204
        assert (await it.post(it.inverter(1), f"/push/{SECRET}")).status_code == 404


async def test_other_methods_are_for_nobody(it):
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(f"{it.url}/push/{SECRET}")).status_code == 405


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"secret": None}, "valid string"),
        ({"secret": "short"}, "16 random characters"),
        ({"hosts": ["localhost"]}, "localhost is known already"),
        ({"hosts": ["192.0.2.1"]}, "should match pattern"),
        ({"hosts": ["gateway.example.com:8090"]}, "should match pattern"),
        ({"networks": ["10.0.0.1/8"]}, "a machine and a network at once"),
        ({"networks": [None]}, "this is no network"),
        ({"path": "push"}, "should match pattern"),
        ({"path": "/push/"}, "should match pattern"),
        ({"time_zone": "Mars/Base"}, "no time zone"),
        ({"platform": "newest"}, "there is no platform 'newest'; known here: developer, classic"),
        ({"overrides": {"interfaces": {"GetInverterBySM": {"path": "x"}}}}, "GetInverterBySN"),
        (
            {"tls": {"certificate": "/nowhere.pem", "key": "/nowhere.key"}},
            "certificate: /nowhere.pem can't be read",
        ),
    ],
)
def test_settings_that_make_no_sense(settings, words):
    with pytest.raises(ValidationError, match=words):
        PushSettings(**{"secret": SECRET} | settings)


def test_without_a_secret_the_configuration_is_refused_on_loopback_too(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("bridges:\n  push: {type: push, host: 127.0.0.1}\n")
    with pytest.raises(ConfigError, match=r"bridges\.push.*'secret' is missing here.*openssl rand -hex 24"):
        Config.load(file, installed())


# networks and proxies


async def test_only_these_networks_may_push(tmp_path):
    async with pushed_to(tmp_path, networks=["192.0.2.0/24"]) as it:
        assert (await it.post(it.inverter(1))).status_code == 403
    async with pushed_to(tmp_path, networks=["192.0.2.0/24", "127.0.0.0/8"]) as it:
        assert (await it.post(it.inverter(1))).status_code == 204


@pytest.mark.parametrize(
    ("forwarded", "status"),
    [
        ("192.0.2.7", 204),
        ("192.0.2.7:1234", 204),
        ("198.51.100.1, 192.0.2.7", 204),
        ("192.0.2.7, 198.51.100.1", 403),
        ("192.0.2.7, 127.0.0.2", 204),
        ("198.51.100.1, 127.0.0.2, 127.0.0.3", 403),
        ("192.0.2.7, nonsense", 403),
        ("[2001:db8::7]:55, 127.0.0.1", 204),
        ("::ffff:192.0.2.7", 204),
    ],
)
async def test_behind_a_proxy_the_last_one_that_is_no_proxy_counts(tmp_path, forwarded, status):
    settings = {"trusted_proxies": ["127.0.0.0/8"], "networks": ["192.0.2.0/24", "2001:db8::/32"]}
    async with pushed_to(tmp_path, **settings) as it:
        assert (await it.post(it.inverter(1), headers={"X-Forwarded-For": forwarded})).status_code == status


async def test_what_a_stranger_says_of_where_it_comes_from_is_not_believed(tmp_path, capsys):
    async with pushed_to(tmp_path, networks=["192.0.2.0/24"]) as it:
        for _ in range(2):
            assert (await it.post(it.inverter(1), headers={"X-Forwarded-For": "192.0.2.7"})).status_code == 403
    assert capsys.readouterr().out.count("not among trusted_proxies") == 1


# guessing


class LeapingClock(SystemClock):
    """Its hand can be moved on."""

    ahead = 0.0

    def monotonic(self):
        return super().monotonic() + self.ahead


async def test_who_guesses_may_try_a_few_and_then_one_every_few_seconds(tmp_path, capsys):
    clock = LeapingClock()
    async with pushed_to(tmp_path, trusted_proxies=["127.0.0.0/8"], clock=clock) as it:

        async def push(secret, source="192.0.2.7"):
            return await it.post(it.inverter(1), f"/push/{secret}", headers={"X-Forwarded-For": source})

        for n in range(guesses_module.FAILURES):
            assert (await push(f"guess-{n}")).status_code == 401
        answer = await push(SECRET)
        assert (answer.status_code, 0 < int(answer.headers["retry-after"]) <= guesses_module.EVERY) == (429, True)
        assert (await push(SECRET, "192.0.2.8")).status_code == 204
        clock.ahead += guesses_module.EVERY
        assert [(await push(f"more-{n}")).status_code for n in range(3)] == [401, 429, 429]
        clock.ahead += guesses_module.EVERY
        assert (await push(SECRET)).status_code == 204
        out = capsys.readouterr().out
        assert out.count("too many wrong secrets; now") == 1
        assert out.count("a wrong secret; more from there") == 1


async def test_wrong_secrets_are_limited_logged_and_counted_from_loopback_too(it, capsys):
    statuses = Counter()
    for n in range(30):
        statuses[(await it.post(it.inverter(1), f"/push/guess-{n}")).status_code] += 1
    # The clock runs on: one may have been looked at meanwhile.
    assert statuses[401] < 20
    assert statuses.total() == statuses[401] + statuses[429]
    counted = {s.labels["reason"]: s.value for s in samples("sems_gateway_http_refused_total")}
    assert counted == {"unauthorized": statuses[401], "guessing": statuses[429]}
    assert "127.0.0.1" in next(
        line for line in capsys.readouterr().out.splitlines() if "too many wrong secrets" in line
    )


async def test_what_strangers_do_does_not_flood_the_log(tmp_path, capsys):
    async with pushed_to(tmp_path, trusted_proxies=["127.0.0.0/8"]) as it:
        for n in range(20):
            headers = {"X-Forwarded-For": f"192.0.2.{n}"}
            assert (await it.post(it.inverter(1), "/push/x", headers=headers)).status_code == 401
            assert (await it.post(it.inverter(1), headers={"Origin": f"https://evil-{n}.example"})).status_code == 403
            assert (await it.post(it.inverter(1), headers={"Host": f"evil-{n}.example"})).status_code == 403
        lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("[warning")]
        # One of each kind a minute: it may turn while this runs.
        assert 3 <= len(lines) <= 12


async def test_the_same_wrong_secret_again_is_no_guess(it):
    for _ in range(guesses_module.FAILURES + 3):
        assert (await it.post(it.inverter(1), "/push/an-old-secret-of-ours")).status_code == 401
    assert (await it.post(it.inverter(1))).status_code == 204


async def test_who_has_an_ipv6_network_has_one_try_as_all_others(tmp_path, monkeypatch):
    monkeypatch.setattr(guesses_module, "FAILURES", 2)
    monkeypatch.setattr(guesses_module, "SOURCES", 3)
    async with pushed_to(tmp_path, trusted_proxies=["127.0.0.0/8"]) as it:

        async def guess(source):
            path = f"/push/guess-{source}"
            return (await it.post(it.inverter(1), path, headers={"X-Forwarded-For": source})).status_code

        assert [await guess(f"2001:db8::{n}") for n in (1, 2, 3)] == [401, 401, 429]
        assert await guess("2001:db8:0:1::1") == 401
        for n in range(5):
            await guess(f"192.0.2.{n}")
        assert len(it.bridge._access._guesses._failures) == 3


# bodies


async def test_too_much_is_not_taken(tmp_path):
    async with pushed_to(tmp_path, max_bytes=2000) as it:
        push = it.inverter(1) | {"padding": "x" * 2000}
        assert (await it.post(push)).status_code == 413

        async def drip():
            for _ in range(30):
                yield b"x" * 100

        assert (await it.post(content=drip(), headers=JSON)).status_code == 413
        packed = gzip.compress(json.dumps(push).encode())
        assert len(packed) < 300
        assert (await it.post(content=packed, headers=JSON | {"Content-Encoding": "gzip"})).status_code == 413
        assert it.counts == {"too_large": 3}
        assert (await it.post(it.inverter(1))).status_code == 204


async def test_a_gzip_bomb_is_not_unpacked(it):
    bomb = gzip.compress(b"0" * 200_000_000)
    assert (await it.post(content=bomb, headers=JSON | {"Content-Encoding": "gzip"})).status_code == 413


@pytest.mark.parametrize(
    ("headers", "content", "status"),
    [
        ({"Content-Type": "application/xml"}, b"{}", 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, b"a=b", 415),
        ({"Content-Type": "multipart/form-data; boundary=x"}, b"{}", 415),
        ({"Content-Type": "text/plain"}, b"{}", 415),
        ({"Content-Type": "text/plain; application/json"}, b"{}", 415),
        ({}, b"{}", 415),
        ({}, b"", 415),
        (JSON | {"Content-Encoding": "br"}, b"{}", 415),
        (JSON | {"Content-Encoding": "gzip, gzip"}, gzip.compress(gzip.compress(b"{}", mtime=0), mtime=0), 415),
        (JSON | {"Content-Encoding": "gzip"}, gzip.compress(b" ", mtime=0) * 101, 422),
        (JSON | {"Content-Encoding": "deflate"}, b"{}", 422),
        (JSON | {"Content-Encoding": "gzip"}, b"{}", 422),
        (JSON | {"Content-Encoding": "gzip"}, gzip.compress(b"{}", mtime=0)[:-4], 422),
        (JSON | {"Content-Encoding": "gzip"}, gzip.compress(b"{}", mtime=0) + b"more", 422),
        ({"Content-Type": "application/vnd.goodwe+json; charset=utf-8"}, b"{}", 422),
    ],
)
async def test_other_wrappings_are_refused(it, headers, content, status):
    assert (await it.post(content=content, headers=headers)).status_code == status


def _halves(raw, pack):
    return pack(raw[:30]) + pack(raw[30:])


def _bare(raw):
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(raw) + packer.flush()


@pytest.mark.parametrize(
    ("headers", "pack"),
    [
        ({"Content-Encoding": "x-gzip"}, gzip.compress),
        ({"Content-Encoding": "GZip"}, gzip.compress),
        ({"Content-Encoding": "identity, gzip"}, gzip.compress),
        ({"Content-Encoding": "gzip"}, lambda raw: _halves(raw, gzip.compress)),
        ({"Content-Encoding": "gzip"}, lambda raw: gzip.compress(raw) + b"\0" * 20),
        ({"Content-Encoding": "deflate"}, zlib.compress),
        ({"Content-Encoding": "deflate"}, _bare),
        ({"Content-Encoding": "identity"}, bytes),
        ({}, lambda raw: b"\xef\xbb\xbf" + raw),
        ({"Content-Encoding": "gzip"}, lambda raw: gzip.compress(b"\xef\xbb\xbf" + raw)),
        ({"Content-Type": "Application/JSON;charset=utf-8"}, bytes),
        ({"Content-Type": 'application/json; charset="ISO-8859-1"'}, lambda raw: raw.decode().encode("latin1")),
        ({"Content-Type": "application/json; charset=gb2312"}, lambda raw: raw.decode().encode("gb18030")),
        ({"Content-Type": "application/json; charset=utf-16"}, lambda raw: raw.decode().encode("utf-16")),
        ({"Content-Type": "application/json; charset=utf-16le"}, lambda raw: raw.decode().encode("utf-16-le")),
        ({"Content-Type": "application/json; charset=no-such"}, bytes),
    ],
)
async def test_a_body_is_taken_as_http_and_json_have_it(it, headers, pack):
    push = json.dumps(it.inverter(1234, note="größer"), ensure_ascii=False).encode()
    answer = await it.post(content=pack(push), headers=JSON | headers)
    assert answer.status_code == 204, answer.text
    assert it.values()["ac_power"] == 1234


async def test_a_body_in_chunks_after_a_100_continue_is_taken(it):
    push = json.dumps(it.inverter(1)).encode()
    head = (
        f"POST /push/{SECRET}/ HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", it.bridge.port)
    writer.write(head.encode())
    async with asyncio.timeout(120):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        for part in (push[:20], push[20:], b""):
            writer.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 204")
    writer.close()


# strangers that hold the line


async def raw(it, *parts, pause=0.0):
    """Send raw bytes; return what comes back until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", it.bridge.port)
    for part in parts:
        writer.write(part)
        await asyncio.sleep(pause)
    try:
        return await asyncio.wait_for(reader.read(), 120)
    finally:
        writer.close()


@pytest.mark.parametrize("parts", [(), (b"POST /push HT",), (b"POST /push HTTP/1.1\r\n", b"Host: x\r\n", b"A: b\r\n")])
async def test_who_never_finishes_the_head_is_cut_off(it, monkeypatch, parts):
    monkeypatch.setattr(connection_module, "HEAD_TIMEOUT", 0.15)
    assert await raw(it, *parts, pause=0.02) == b""


async def test_who_dawdles_after_a_first_request_is_cut_off_too(it, monkeypatch):
    monkeypatch.setattr(connection_module, "HEAD_TIMEOUT", 0.15)
    request = (
        b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n"
    )
    assert (await raw(it, request, b"POST /pu", pause=0.05)).startswith(b"HTTP/1.1 404")


async def test_who_never_finishes_the_body_is_answered_and_cut_off(it, monkeypatch):
    monkeypatch.setattr(body_module, "READ_TIMEOUT", 0.1)
    assert (await raw(it, BEGUN)).startswith(b"HTTP/1.1 408")
    assert it.counts == {"bad": 1}


async def test_who_goes_amid_the_body_harms_nobody(it):
    _, writer = await asyncio.open_connection("127.0.0.1", it.bridge.port)
    writer.write(BEGUN)
    await writer.drain()
    writer.close()
    await until(lambda: it.counts == {"bad": 1})
    assert (await it.post(it.inverter(1))).status_code == 204


async def test_a_head_without_end_is_refused(it):
    head = b"POST /push HTTP/1.1\r\nHost: x\r\n" + b"A: " + b"b" * 40_000
    assert (await raw(it, head)).startswith(b"HTTP/1.1 431")


async def test_connections_are_limited(tmp_path):
    async with pushed_to(tmp_path, max_connections=3) as it:
        held = [await asyncio.open_connection("127.0.0.1", it.bridge.port) for _ in range(3)]
        with pytest.raises(httpx.HTTPError):
            await it.post(it.inverter(1))
        for _, writer in held:
            writer.close()
        await until(lambda: not it.bridge.http.connections)
        assert (await it.post(it.inverter(1))).status_code == 204


# TLS, and the port


async def test_it_speaks_tls(tmp_path):
    authority = Authority(tmp_path)
    certificate, key = authority.sign("push", server=True)
    async with pushed_to(tmp_path / "data", tls={"certificate": str(certificate), "key": str(key)}) as it:
        trust = ssl.create_default_context(cafile=str(authority.pem))
        async with httpx.AsyncClient(verify=trust, trust_env=False) as client:
            url = f"https://localhost:{it.bridge.port}/push/{SECRET}"
            answer = await client.post(url, json=it.inverter(1))
            assert answer.status_code == 204
            assert answer.extensions["network_stream"].get_extra_info("ssl_object").version() in ("TLSv1.2", "TLSv1.3")
        with pytest.raises(httpx.HTTPError):
            await it.post(it.inverter(1))
        old = ssl.create_default_context(cafile=str(authority.pem))
        with warnings.catch_warnings(action="ignore"):
            old.minimum_version, old.maximum_version = ssl.TLSVersion.MINIMUM_SUPPORTED, ssl.TLSVersion.TLSv1_1
        async with httpx.AsyncClient(verify=old, trust_env=False) as client:
            with pytest.raises(httpx.ConnectError):
                await client.post(url, json=it.inverter(1))


def test_files_that_do_not_fit_are_named(tmp_path):
    authority = Authority(tmp_path)
    (certificate, key), (_, other) = authority.sign("one", server=True), authority.sign("two", server=True)
    PushSettings(secret=SECRET, tls={"certificate": certificate, "key": key})
    with pytest.raises(ValidationError, match="the key it was made with"):
        PushSettings(secret=SECRET, tls={"certificate": certificate, "key": other})
    context = {"directory": tmp_path}
    settings = PushSettings.model_validate(
        {"secret": SECRET, "tls": {"certificate": "one.pem", "key": "one.key"}}, context=context
    )
    assert settings.tls.certificate == tmp_path / "one.pem"


def test_an_encrypted_key_is_not_asked_for_on_the_terminal(tmp_path):
    from cryptography.hazmat.primitives import serialization

    certificate, key = Authority(tmp_path).sign("one", server=True)
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        )
    )
    with pytest.raises(ValidationError, match="the key is encrypted"):
        PushSettings(secret=SECRET, tls={"certificate": certificate, "key": key})


async def test_clear_text_on_an_open_address_is_warned_of(tmp_path, capsys):
    async with pushed_to(tmp_path, host="0.0.0.0") as it:
        assert (await it.post(it.inverter(1))).status_code == 204
    assert "in clear text" in capsys.readouterr().out


async def test_a_port_in_use_is_said_and_taken_up_later(it):
    second = it.bench.run(PushBridge, PushSettings(port=it.bridge.port, secret=SECRET), "second")
    status = await until(lambda: next((s for s in it.bench.router.bridges() if s.name == "second"), None))
    assert not status.up
    assert "set bridges.second.port" in status.detail
    await it.runner.stop()
    async with asyncio.timeout(120):
        await until(lambda: second.bridge.port)
    assert it.bridge.port == 0


async def test_when_it_stops_what_is_under_way_is_broken_off(it):
    it.archive.open.clear()
    sending = asyncio.create_task(it.post(it.inverter(1)))
    await until(it.values)
    await it.runner.stop()
    outcome = (await asyncio.gather(sending, return_exceptions=True))[0]
    assert isinstance(outcome, httpx.HTTPError) or outcome.status_code >= 500
    assert it.bench.router.state(SN) is not None
