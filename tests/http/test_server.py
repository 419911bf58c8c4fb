"""The listener of both HTTP bridges: how many may connect, how long and how large a request may be (docs/http.md)."""

import asyncio
import errno
import socket
import ssl
from collections import Counter
from contextlib import asynccontextmanager
from ipaddress import ip_network

import pytest
import structlog

import gateway.http.acceptor as acceptor_module
import gateway.http.connection as connection_module
from gateway.http import descriptors
from gateway.http.acceptor import Limits
from gateway.http.connection import HEAD_BYTES, Closed
from gateway.http.server import BEGUN_PER_TURN, HttpServer, listen
from gateway.http.tls import tls_context
from tests.kit.bench import until
from tests.kit.certificates import Authority

MANY = Limits(100)
BIG = b"x" * 1_000_000


async def app(scope, receive, send):
    """Answers with how large a body was, or with a large one."""
    size, more = 0, scope["method"] == "POST"
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    parts = [BIG] * 20 if scope["path"] == "/big" else [str(size).encode()]
    length = b"%d" % sum(map(len, parts))
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    for part in parts:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body"})


@asynccontextmanager
async def serving(limits=MANY, **options):
    door = listen(options.pop("host", "127.0.0.1"), 0, "port")
    server = HttpServer(options.pop("app", app), name="web", limits=limits, **options)
    task = asyncio.create_task(server.run_on(door))
    await server.ready.wait()
    server.port = door.getsockname()[1]
    try:
        yield server
    finally:
        server.should_exit = True
        await task
        assert not server.connections


async def connect(server, source="127.0.0.1", **options):
    return await asyncio.open_connection("127.0.0.1", server.port, local_addr=(source, 0), **options)


async def answer(reader):
    """What comes until the server closes."""
    async with asyncio.timeout(60):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


async def said(server, *parts, source="127.0.0.1"):
    reader, writer = await connect(server, source)
    for part in parts:
        writer.write(part)
        await writer.drain()
    try:
        return await answer(reader)
    finally:
        writer.close()


def head(size, method="GET", last=b"Connection: close\r\n"):
    """A request whose head has so many bytes."""
    begin = f"{method} / HTTP/1.1\r\nHost: x\r\nA: ".encode()
    end = b"\r\n" + last + b"\r\n"
    return begin + b"a" * (size - len(begin) - len(end)) + end


async def test_of_hundreds_of_requests_at_once_only_some_begin_in_a_turn_of_the_loop():
    """So that what else is on the loop, such as Modbus, need not wait for all of them."""
    turn, begun = 0, []

    async def note(*_):
        begun.append(turn)

    async def others():
        nonlocal turn
        while True:
            await asyncio.sleep(0)
            turn += 1

    server = HttpServer(note)
    other = asyncio.create_task(others())
    await asyncio.gather(*(server.config.loaded_app({}, None, None) for _ in range(300)))
    other.cancel()
    assert len(begun) == 300
    assert max(Counter(begun).values()) <= BEGUN_PER_TURN
    assert len(set(begun)) <= 300 / BEGUN_PER_TURN + 1


# How large


@pytest.mark.parametrize("pieces", [1, 2, 40])
@pytest.mark.parametrize(("more", "status"), [(0, b"200"), (1, b"431"), (50_000, b"431")])
async def test_a_head_of_16_kib_is_taken_and_one_byte_more_is_not_however_it_comes(more, status, pieces):
    """TRIALS D6: a head that came in one segment was never measured."""
    request = head(HEAD_BYTES + more)
    step = -(-len(request) // pieces)
    async with serving() as server:
        reader, writer = await connect(server)
        for at in range(0, len(request), step):
            writer.write(request[at : at + step])
            await asyncio.sleep(0)
            await writer.drain()
        assert (await answer(reader)).startswith(b"HTTP/1.1 " + status)
        assert server.closed[Closed.HEAD_TOO_LARGE] == (status == b"431")
        writer.close()


async def test_a_later_head_is_measured_too_and_a_body_is_not_part_of_it():
    post = head(HEAD_BYTES, "POST", b"Content-Length: 90000\r\n") + b"b" * 90_000
    async with serving() as server:
        both = await said(server, post + head(HEAD_BYTES + 1))
        assert both.startswith(b"HTTP/1.1 200")
        assert b"90000HTTP/1.1 431" in both


async def test_padding_counts_as_it_was_sent():
    """h11 strips the spaces round a value."""
    async with serving() as server:
        request = b"GET / HTTP/1.1\r\nHost: x\r\nA:" + b" " * HEAD_BYTES + b"\r\n\r\n"
        assert (await said(server, request)).startswith(b"HTTP/1.1 431")


async def test_what_is_no_http_is_answered_and_counted():
    async with serving() as server:
        assert (await said(server, b"\x16\x03\x01\x00\r\n\r\n")).startswith(b"HTTP/1.1 400")
        assert server.closed == {Closed.MALFORMED: 1}


async def test_a_body_with_two_lengths_is_refused_and_nothing_behind_it_is_read():
    body = b"0\r\n\r\nGET /big HTTP/1.1\r\nHost: x\r\n\r\n"
    for both in (
        b"Content-Length: %d\r\nTransfer-Encoding: chunked",
        b"transfer-encoding: chunked\r\ncontent-length: %d",
    ):
        async with serving() as server:
            request = b"POST / HTTP/1.1\r\nHost: x\r\n" + both % len(body) + b"\r\n\r\n"
            reply = await said(server, request + body)
            assert reply.startswith(b"HTTP/1.1 400")
            assert (reply.count(b"HTTP/1.1"), b"connection: close" in reply.lower()) == (1, True)
            assert server.closed == {Closed.MALFORMED: 1}


@pytest.mark.parametrize(
    ("target", "host", "path", "query"),
    [
        ("http://127.0.0.1:1/a?b=c", "127.0.0.1:1", "/a", b"b=c"),
        ("HTTPS://evil.example", "evil.example", "/", b""),
        ("http://x?b", "x", "/", b"b"),
        ("/a", "other", "/a", b""),
    ],
)
async def test_a_target_in_absolute_form_says_which_host_is_meant(target, host, path, query):
    """RFC 9112, 3.2.2."""
    seen = []

    async def look(scope, receive, send):
        seen.append((dict(scope["headers"])[b"host"].decode(), scope["path"], scope["query_string"]))
        await app(scope, receive, send)

    async with serving(app=look) as server:
        request = f"GET {target} HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n"
        assert (await said(server, request.encode())).startswith(b"HTTP/1.1 200")
    assert seen == [(host, path, query)]


# How long


async def test_a_connection_without_a_further_request_is_closed():
    async with serving() as server:
        server.config.timeout_keep_alive = 0.1
        assert b"200" in await said(server, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert server.closed == {Closed.IDLE: 1}


async def test_who_does_not_read_is_cut_off_and_who_reads_slowly_is_not(monkeypatch):
    monkeypatch.setattr(connection_module, "STALL_TIMEOUT", 1.5)
    async with serving() as server, asyncio.timeout(60):
        slow, lazy = [await connect(server, limit=1024) for _ in range(2)]
        for _, writer in (slow, lazy):
            writer.write(b"GET /big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        try:
            received = 0
            while server.closed[Closed.NOT_READING] < 1:
                received += len(await slow[0].read(100_000))
                await asyncio.sleep(0.005)
            received += len(await answer(slow[0]))
        finally:
            for _, writer in (slow, lazy):
                writer.transport.abort()
        assert received > 20 * len(BIG)
        assert server.closed == {Closed.NOT_READING: 1}


# How many


async def test_beyond_the_limit_a_connection_is_closed_at_once():
    with structlog.testing.capture_logs() as logged:
        async with serving(Limits(2)) as server:
            held = [await connect(server) for _ in range(2)]
            await until(lambda: server.connections == 2)
            for _ in range(5):
                assert await said(server) == b""
            assert server.closed == {Closed.TOTAL: 5}
            for _, writer in held:
                writer.close()
            await until(lambda: not server.connections)
            assert b"200" in await said(server, head(100))
    (line,) = [entry for entry in logged if "closed at once" in entry["event"]]
    assert (line["limit"], line["setting"]) == (2, "bridges.web.max_connections")


async def test_an_address_has_a_limit_of_its_own_and_a_proxy_has_none():
    async with serving(Limits(100, 2), proxies=[ip_network("127.0.0.9/32")]) as server:
        held = [await connect(server, source) for source in ["127.0.0.2"] * 2 + ["127.0.0.9"] * 5]
        await until(lambda: server.connections == 7)
        assert await said(server, source="127.0.0.2") == b""
        assert b"200" in await said(server, head(100), source="127.0.0.3")
        assert b"200" in await said(server, head(100), source="127.0.0.9")
        assert server.closed == {Closed.ADDRESS: 1}
        held.pop(0)[1].close()
        await until(lambda: server.connections == 6)
        assert b"200" in await said(server, head(100), source="127.0.0.2")
        for _, writer in held:
            writer.close()


def test_who_has_an_ipv6_network_is_one_address():
    server = HttpServer(app, proxies=[ip_network("2001:db8:1::/48"), ip_network("10.0.0.1/32")])
    homes = {host: server._home(host) for host in ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "::ffff:1.2.3.4")}
    assert homes["2001:db8::1"] == homes["2001:db8::2"] != homes["2001:db8:0:1::1"]
    assert homes["::ffff:1.2.3.4"] == server._home("1.2.3.4")
    assert server._home("2001:db8:1::5") == server._home("::ffff:10.0.0.1") == ""


# TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def tls(authority):
    return tls_context(*authority.sign("web", server=True))


async def test_a_handshake_holds_a_seat_and_has_a_time_limit(tls, monkeypatch):
    monkeypatch.setattr(acceptor_module, "HANDSHAKE_TIMEOUT", 2)
    async with serving(Limits(2, 1), tls=tls) as server:
        silent, writer = await connect(server)
        await until(lambda: server.connections == 1)
        assert await said(server, b"\x16\x03\x01") == b"", "closed before any handshake"
        assert await answer(silent) == b""
        await until(lambda: not server.connections)
        assert server.closed == {Closed.ADDRESS: 1, Closed.TLS: 1}
        writer.close()


async def test_tls_is_as_it_should_be_today(tls, authority):
    assert tls.options & ssl.OP_NO_RENEGOTIATION
    assert tls.options & ssl.OP_NO_COMPRESSION
    assert tls.options & ssl.OP_CIPHER_SERVER_PREFERENCE
    client = ssl.create_default_context(cafile=authority.pem)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    async with serving(tls=tls) as server:
        client.set_ciphers("ECDHE-RSA-AES128-SHA:AES128-GCM-SHA256:ECDHE-ECDSA-AES128-SHA")
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            await connect(server, ssl=client, server_hostname="localhost")
        client.set_ciphers("DEFAULT")
        reader, writer = await connect(server, ssl=client, server_hostname="localhost")
        writer.write(head(100))
        assert b"200" in await reader.read(100)
        writer.close()


# Descriptors


async def test_listeners_share_what_is_not_kept_back(monkeypatch):
    monkeypatch.setattr(descriptors, "limit", lambda: 64)
    async with serving(Limits(60)) as one, serving(Limits(60, 60)) as other:
        held = []
        for server in (one, other):
            held += [await connect(server, f"127.0.0.{n % 9 + 1}") for n in range(40)]
        await until(lambda: one.closed.total() + other.closed.total() == 80 - 30)
        assert (one.connections, other.connections) == (15, 15)
        assert one.closed == {Closed.DESCRIPTORS: 25}
        assert not one.closed[Closed.TOTAL]
        for _, writer in held:
            writer.close()


async def test_without_descriptors_a_listener_waits_and_goes_on_by_itself(monkeypatch):
    monkeypatch.setattr(acceptor_module, "PAUSE", 0.2)
    failing = Counter()
    accept = socket.socket.accept

    def full(listening):
        if failing["left"]:
            failing["left"] -= 1
            failing["tries"] += 1
            raise OSError(errno.EMFILE, "Too many open files")
        return accept(listening)

    monkeypatch.setattr(socket.socket, "accept", full)
    async with serving() as server:
        failing["left"] = 3
        assert b"200" in await said(server, head(100))
        assert failing["tries"] == server.closed[Closed.DESCRIPTORS] == 3


@pytest.mark.parametrize(
    ("limit", "asked", "short"), [(1024, 768, False), (1024, 769, True), (256, 128, False), (256, 129, True)]
)
def test_a_limit_that_is_too_low_is_told(monkeypatch, limit, asked, short):
    monkeypatch.setattr(descriptors, "limit", lambda: limit)
    assert (f"raise the limit to {asked + 256}" in descriptors.shortage(asked)) is short
