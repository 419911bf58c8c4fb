# ruff: noqa: E501 - samples are tables, and read best a row a line
"""What comes in at our own listeners: pushes, the HTTP API, Modbus frames, the local socket."""

import asyncio
import json
import struct
from contextlib import asynccontextmanager
from types import SimpleNamespace

from gateway.bridges.local import LocalBridge, LocalSettings
from gateway.bridges.modbus import ModbusBridge, ModbusSettings
from gateway.bridges.push import PushBridge, PushSettings
from gateway.bridges.web import WebBridge, WebSettings
from gateway.http.acceptor import Seat
from tests.bridges.push.conftest import SECRET
from tests.bridges.web.conftest import TOKENS, WRITER
from tests.fuzz import dice as change
from tests.fuzz.core import core
from tests.fuzz.target import Target
from tests.fuzz.targets.sems import good
from tests.kit.bench import INVERTER, until

SN = INVERTER.serial


class ServerError(Exception):
    """An answer that says that something unforeseen happened."""


async def asked(app, method, path, query, headers, body):
    """Ask an ASGI application; returns the status. A body comes in two pieces."""
    status = 0
    cut = len(body) // 2
    pieces = [body[:cut], body[cut:]] if body else [b""]

    async def receive():
        if not pieces:
            return {"type": "http.disconnect"}
        piece = pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    async def send(message):
        nonlocal status
        status = message.get("status", status)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http", "path": path,
        "raw_path": path.encode("utf-8", "replace"), "query_string": query, "root_path": "",
        "headers": [(b"host", b"127.0.0.1"), *headers], "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 1),
    }  # fmt: skip
    await app(scope, receive, send)
    return status


def make_push(dice):
    live = ("GetInverterBySN", "GetMeterBySN", "GetEvChargerBySN", "GetInverterAlarms", "GetInverterHistory", "GetPlantDetail",
            "GetPlantPowerFlow", "GetInverterList", "GetDataLoggerList", "GetControlParameters")  # fmt: skip
    known = [name for name in live if name in good("open_api")] or list(good("open_api"))
    name = dice.choice(known)
    one = {
        "interface": name,
        "sn": SN,
        "plant_id": "plant-1",
        "date": "2026-06-21",
        "data": dice.choice(good("open_api")[name]),
    }
    whole = [one] * dice.choice((1, 2, 3)) if dice.random() < 0.2 else one
    return change.json_of(dice, whole, 2)


@asynccontextmanager
async def open_push(directory):
    async with core(directory) as it:
        settings = PushSettings(port=0, secret=SECRET, announce=True, announce_most=50)
        bridge = it.run(PushBridge, settings, "push").bridge
        await until(lambda: bridge.port)

        async def feed(data):
            headers = [(b"content-type", b"application/json")]
            status = await asked(bridge.serve, "POST", f"/push/{SECRET}", b"", headers, data)
            if status == 500:
                raise ServerError(status)

        yield feed


PATHS = [f"/api/v1/devices/{SN}/set", "/api/v1/devices", f"/api/v1/devices/{SN}", "/api/v1/commands/x", "/api/v1/halt",
         "/api/v1/resume", "/api/v1/bridges", "/metrics", "/healthz", "/readyz"]  # fmt: skip
BODIES = [{"active_power_limit": 50}, {"setpoint": "active_power_limit", "value": 50, "id": "a", "ttl": 30,
          "revert_after": 900, "revert_value": 100, "time": "2026-06-21T12:00:00Z"}, {"battery_mode": "charge",
          "battery_power_target": 100, "battery_target_soc": 50}, {"reason": "works"}]  # fmt: skip
QUERIES = ["", "wait=0", "wait=x", "offset=1&limit=3", "limit=-1", "kind=storage", "plant=%ff", "wait=nan"]


def make_web(dice):
    path, query = dice.choice(PATHS[:1] * 4 + PATHS), dice.choice(QUERIES)
    if dice.random() < 0.3:
        path = change.text(dice, path)
    if dice.random() < 0.3:
        query = change.text(dice, query)
    head = [
        dice.choice(("POST", "POST", "POST", "GET", "DELETE")),
        path,
        query,
        dice.choice((WRITER, WRITER, "x", "é")),
    ]
    return json.dumps(head).encode() + b"\n" + change.json_of(dice, dice.choice(BODIES))


@asynccontextmanager
async def open_web(directory):
    async with core(directory) as it:
        bridge = it.run(WebBridge, WebSettings(port=0, tokens=TOKENS), "web").bridge
        await until(lambda: bridge.port)
        app = bridge._api.app()

        async def feed(data):
            head, _, body = data.partition(b"\n")
            method, path, query, token = json.loads(head)
            headers = [(b"content-type", b"application/json"), (b"authorization", f"Bearer {token}".encode())]
            if await asked(app, method, path, query.encode("utf-8", "replace"), headers, body) == 500:
                raise ServerError(path)
            if it.halting.current is not None:
                await it.halting.resume("test")

        yield feed


def make_modbus(dice):
    frames = []
    for _ in range(dice.randrange(1, 12)):
        address, count = (
            dice.choice((0, 1, 5000, 5800, 40000, dice.randrange(65536))),
            dice.choice((1, 2, 10, 125, 126, 0)),
        )
        function = dice.choice((3, 3, 4, 6, 8, 16, 43, dice.randrange(256)))
        match function:
            case 6:
                pdu = struct.pack(">BHH", 6, address, dice.choice((0, 1, 500, 65535)))
            case 16:
                count = dice.choice((1, 2, 3, 123))
                pdu = struct.pack(">BHHB", 16, address, count, 2 * count) + dice.randbytes(2 * count)
            case 43:
                pdu = bytes((43, 14, dice.randrange(6), dice.randrange(8)))
            case 8:
                pdu = struct.pack(">BHH", 8, dice.randrange(24), dice.randrange(65536))
            case _:
                pdu = struct.pack(">BHH", function, address, count)
        unit = dice.choice((1, 1, 1, 0, 2, 255))
        frames.append(struct.pack(">HHHB", dice.randrange(65536), 0, len(pdu) + 1, unit) + pdu)
    whole = b"".join(frames)
    return bytes((dice.randrange(256),)) + (change.raw(dice, whole) if dice.random() < 0.6 else whole)


class Wire(asyncio.Transport):
    """The other end of a connection."""

    def __init__(self):
        super().__init__({"peername": ("127.0.0.1", 5)})
        self.is_closed = False

    def write(self, data):
        pass

    def close(self):
        self.is_closed = True

    def abort(self):
        self.is_closed = True

    def is_closing(self):
        return self.is_closed

    def get_write_buffer_size(self):
        return 0

    def pause_reading(self):
        pass

    resume_reading = pause_reading


@asynccontextmanager
async def open_modbus(directory):
    async with core(directory) as it:
        bridge = it.run(ModbusBridge, ModbusSettings(port=0), "modbus").bridge
        await until(lambda: bridge.port and bridge.units)
        (listener,) = bridge._listeners

        async def feed(data):
            """The first byte says how the rest is cut."""
            step, rest = 1 + data[0] if data else 1, data[1:]
            connection, wire = listener.protocol(Seat(listener._acceptor, "127.0.0.1:5", "")), Wire()
            connection.connection_made(wire)
            for at in range(0, len(rest), step):
                if wire.is_closed:
                    break
                connection.data_received(rest[at : at + step])
            for _ in range(2000):
                if not connection._working or wire.is_closed:
                    break
                await asyncio.sleep(0.001)
            connection.close()
            connection.connection_lost(None)

        yield feed


LOCAL = [
    {"type": "send", "serial": SN, "setpoint": "active_power_limit", "value": "50", "user": "me", "ttl": 5.0, "id": "a",
     "revert_after": 60.0, "revert_value": 100},
    {"type": "send_fleet", "setpoint": "active_power_limit", "value": 40, "user": "me", "plant": "plant-1", "spread": 0.0},
    {"type": "devices"}, {"type": "examine"}, {"type": "explain", "serial": SN, "setpoint": "running", "value": True, "origin": "cli"},
    {"type": "history", "serial": SN, "start": "2026-06-20", "end": "2026-06-21", "resolution": "minutes", "since": None},
    {"type": "halt", "user": "me", "reason": "x"}, {"type": "resume", "user": "me"},
]  # fmt: skip


class Pipe:
    """The gateway's side of a connection."""

    def write(self, data):
        pass

    async def drain(self):
        pass

    def close(self):
        pass

    def is_closing(self):
        return False

    def get_extra_info(self, *_):
        return None


@asynccontextmanager
async def open_local(directory):
    async with core(directory) as it:
        bridge = it.run(LocalBridge, LocalSettings(), "cli").bridge
        await until(lambda: any(s.up for s in it.router.bridges() if s.name == "cli"))

        async def feed(data):
            reader = asyncio.StreamReader(limit=1 << 20)
            reader.feed_data(data.replace(b"\n", b" ") + b"\n" + b'{"type":"go"}\n')
            reader.feed_eof()
            await bridge._serve(SimpleNamespace(has_asked=False), reader, Pipe())
            if it.halting.current is not None:
                await it.halting.resume("test")

        yield feed


TARGETS = [
    Target("push", "pushes: body to router, the whole bridge", make_push, open_push, quick=100),
    Target("web", "HTTP API: path, query, body to commands", make_web, open_web, quick=60),
    Target("modbus", "Modbus frames, cut anywhere: the real connection", make_modbus, open_modbus, quick=60),
    Target("local", "the command line's socket: a line to its answers", lambda dice: change.json_of(dice, dice.choice(LOCAL)),
           open_local, quick=60),
]  # fmt: skip
