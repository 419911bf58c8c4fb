# ruff: noqa: E501 - samples are tables, and read best a row a line
"""Raw HTTP, cut anywhere: the connection's own class, the gate, the door and the application, of the web and the push bridge."""

import asyncio
from contextlib import asynccontextmanager

from gateway.bridges.push import PushBridge, PushSettings
from gateway.bridges.web import WebBridge, WebSettings
from gateway.http.connection import Connection
from tests.bridges.push.conftest import SECRET
from tests.bridges.web.conftest import TOKENS, WRITER
from tests.fuzz import dice as change
from tests.fuzz.core import core
from tests.fuzz.target import Target
from tests.fuzz.targets.doors import BODIES, PATHS, QUERIES, ServerError, Wire, make_push
from tests.kit.bench import until

TURNS = 2000
"""Milliseconds for the answers to an input."""
HEADERS = [
    "Host: 127.0.0.1:8080", "Host: evil.example", "Host: [::1]:80", "Host:", "Origin: http://evil.example", "Origin: null",
    "Origin: http://127.0.0.1:8080", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate",
    "X-Forwarded-For: 192.0.2.1, 127.0.0.1", "X-Forwarded-For: [2001:db8::1]:5", "Connection: close", "Connection: keep-alive",
    "Connection: upgrade", "Upgrade: websocket", "Upgrade: h2c", "Expect: 100-continue", "Content-Length: 5", "Content-Length: -1",
    "Content-Length: 99999999999999999999", "Transfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked", "Accept-Encoding: gzip",
    "Content-Type: text/plain", "Content-Encoding: gzip", "Authorization: Basic eDp5", "Authorization: Bearer", "Cookie: a=b", " folded",
    "X: " + "y" * 20000, "If-Match: *", "Range: bytes=0-1",
]  # fmt: skip


def make_http(dice):
    """The first byte says which bridge, the second how the rest is cut."""
    whole = b"".join(_request(dice) for _ in range(dice.choice((1, 1, 1, 2, 3))))
    whole = change.raw(dice, whole) if dice.random() < 0.5 else whole
    return bytes((dice.randrange(2), dice.choice((255, 255, dice.randrange(256))))) + whole


def _request(dice):
    if dice.random() < 0.4:
        path, body = f"/push/{SECRET}", make_push(dice)
    else:
        path, body = f"{dice.choice(PATHS)}?{dice.choice(QUERIES)}", change.json_of(dice, dice.choice(BODIES))
    method = dice.choice(("POST", "POST", "GET", "HEAD", "OPTIONS", "CONNECT", "PUT", "x" * 50))
    headers = [dice.choice(HEADERS) for _ in range(dice.randrange(4))]
    headers += ["Host: 127.0.0.1", f"Authorization: Bearer {WRITER}", "Content-Type: application/json"]
    if dice.random() < 0.3:
        headers.append("Transfer-Encoding: chunked")
        half = len(body) // 2
        body = (
            b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:half], body[half:]) if part) + b"0\r\n\r\n"
        )
    else:
        headers.append(f"Content-Length: {len(body)}")
    head = [f"{method} {path} {dice.choice(('HTTP/1.1', 'HTTP/1.1', 'HTTP/1.0', 'HTTP/2.0'))}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


class Seat:
    peer = "127.0.0.1:5"

    def leave(self):
        pass


class Client(Wire):
    """Takes every answer at once."""

    def __init__(self):
        super().__init__()
        self.got = bytearray()

    def write(self, data):
        self.got += data

    def can_write_eof(self):
        return True

    def write_eof(self):
        self.is_closed = True

    def set_write_buffer_limits(self, high=None, low=None):
        pass


@asynccontextmanager
async def open_http(directory):
    async with core(directory) as it:
        push = PushSettings(port=0, secret=SECRET, announce=True, announce_most=50, trusted_proxies=["127.0.0.1"])
        bridges = [
            it.run(WebBridge, WebSettings(port=0, tokens=TOKENS, trusted_proxies=["127.0.0.1"]), "web").bridge,
            it.run(PushBridge, push, "push").bridge,
        ]
        await until(lambda: all(bridge.port for bridge in bridges))

        async def feed(data):
            which, cut, whole = data[:1] or b"\0", data[1:2] or b"\0", data[2:]
            server = bridges[which[0] % 2].http
            connection, wire = Connection(server.config, server.server_state, Seat(), lambda _: None), Client()
            connection.connection_made(wire)
            step = 1 + cut[0] if cut[0] < 255 else 1 << 20
            for at in range(0, len(whole), step):
                if wire.is_closed:
                    break
                connection.data_received(whole[at : at + step])
                await asyncio.sleep(0)
            for _ in range(TURNS):
                if wire.is_closed or not connection._has_request or connection.cycle.more_body:
                    break
                await asyncio.sleep(0.001)
            connection.connection_lost(None)
            for task in list(server.server_state.tasks):
                await asyncio.wait([task], timeout=TURNS / 1000)
            if b"HTTP/1.1 500" in wire.got:
                raise ServerError(bytes(wire.got[-500:]))
            if it.halting.current is not None:
                await it.halting.resume("test")

        yield feed


TARGETS = [
    Target("http", "raw HTTP, cut anywhere: connection, gate, bridges", make_http, open_http, quick=60),
]
