"""A web page of the enemy in a real browser on the gateway's machine, which knows the secret and the tokens as well.

It sends what a browser can send to every door on loopback: from another port of this machine, and from names of its own
that were made to lead to the door itself (DNS rebinding), so that the browser takes both for one origin.
"""

import asyncio
import json
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from gateway.bridges.modbus import ModbusBridge, ModbusSettings
from gateway.bridges.push import PushBridge, PushSettings
from gateway.bridges.web import WebBridge, WebSettings
from tests.kit.bench import INVERTER, Bench, collected, until
from tests.kit.chromium import browsing
from tests.kit.mosquitto import mosquitto

PAGE = Path(__file__).with_name("attack.html").read_text()
SECRET = "a-secret-that-got-about"
TOKEN = "a-token-that-got-about"
SN = INVERTER.serial
SET = f"/api/v1/devices/{SN}/set"
COMMAND = json.dumps({"active_power_limit": 1})
PUSH = json.dumps({"interface": "GetInverterBySN", "sn": SN, "data": {"status": 1, "pac": 123_000_000}})
MODBUS = "\x00\x01\x00\x00\x00\x06\x01\x06\x00\x00\x00\x01"
READS = ("/", "/metrics", "/healthz", "/readyz", "/api/v1/devices", f"/api/v1/devices/{SN}", "/api/v1/halt")
FORMS = {"application/x-www-form-urlencoded", "multipart/form-data", "text/plain", ""}
"""What a page sends without asking first."""
PATIENCE = 300


class Enemy:
    """Serves the page, takes its report, and passes everything else on to a door, as a name that was rebound does."""

    def __init__(self, door=None):
        self.door = door
        self.plan = {}
        self.report = asyncio.get_running_loop().create_future()
        self.port = 0

    async def serve(self, reader, writer):
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # a browser breaks off what it does not need
        finally:
            writer.close()

    async def _serve(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET /attack "):
            self._answer(writer, "text/html", PAGE.replace("PLAN", json.dumps(self.plan)))
        elif head.startswith(b"POST /report "):
            length = next(line for line in head.decode().lower().splitlines() if line.startswith("content-length:"))
            self.report.set_result(json.loads(await reader.readexactly(int(length.partition(":")[2]))))
            self._answer(writer, "text/plain", "")
        elif self.door is None:
            self._answer(writer, "text/plain", "")
        else:
            await self._pass_on(head, reader, writer)
        await writer.drain()

    @staticmethod
    def _answer(writer, type_, text):
        raw = text.encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {type_}\r\nContent-Length: {len(raw)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + raw)

    async def _pass_on(self, head, reader, writer):
        # One request a connection, so that each is looked at.
        theirs, ours = await asyncio.open_connection("127.0.0.1", self.door)
        ours.write(head.replace(b"Connection: keep-alive", b"Connection: close"))

        async def pump(source, target):
            while data := await source.read(65_536):
                target.write(data)
                await target.drain()

        there = asyncio.create_task(pump(reader, ours))
        try:
            await pump(theirs, writer)
        finally:
            there.cancel()
            ours.close()


class Careless:
    """A door that takes everything: it shows what the browser did send."""

    def __init__(self):
        self.types = Counter()
        self.methods = Counter()

    async def serve(self, reader, writer):
        try:
            lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines[1:] if line)}
            method = lines[0].partition(" ")[0]
            self.methods[method] += 1
            if method == "POST":
                self.types[headers.get("content-type", "").partition(";")[0]] += 1
            writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def listening(what):
    tasks = set()

    async def serve(reader, writer):
        # asyncio itself holds them by weak references alone.
        tasks.add(asyncio.current_task())
        await what.serve(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    what.port = server.sockets[0].getsockname()[1]
    try:
        yield what
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def plan_of(doors, names, next_=""):
    """What the page does: `names` say under which name it goes to each door."""
    url = {door: f"http://{name}:{doors[door]}" for door, name in names.items()}
    changes = {
        "web": [("/api/v1/halt", "{}"), (SET, COMMAND), ("/api/v1/commands/none", "{}")],
        "push": [(f"/push/{SECRET}", PUSH), ("/push", PUSH)],
        "modbus": [("/", MODBUS)],
        "mqtt": [("/", "\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02ab")],
        "careless": [("/", COMMAND)],
    }
    looks = {"web": READS, "push": ("/", f"/push/{SECRET}"), "modbus": ("/",), "mqtt": ("/",), "careless": ()}
    return {
        "changes": [(url[door] + path, body) for door in names for path, body in changes[door]],
        "looks": [url[door] + path for door in names for path in looks[door]],
        "headers": {"Authorization": f"Bearer {TOKEN}", "X-Push-Secret": SECRET},
        "next": next_,
    }


class Gateway:
    """All doors of one gateway, and what happened behind them."""

    def __init__(self, bench, web, push, modbus):
        self.bench, self.web, self.push, self.modbus = bench, web, push, modbus

    def refused(self, kind):
        return {runner.name: runner.bridge._refused.counts[kind] for runner in (self.web, self.push)}

    async def works(self):
        """Who is no web page gets through, with the same words."""
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
            port = self.web.bridge.port
            answer = await client.post(f"http://127.0.0.1:{port}{SET}", content=COMMAND, headers=headers)
            assert answer.status_code == 202
            url = f"http://127.0.0.1:{self.push.bridge.port}/push/{SECRET}"
            assert (await client.post(url, content=PUSH, headers=headers)).status_code == 204


@asynccontextmanager
async def gateway(directory):
    async with Bench(directory) as bench:
        bench.announce()
        bench.publish(ac_power=5000.0)
        tokens = {"scada": {"token": TOKEN, "write": True}}
        web = bench.run(WebBridge, WebSettings(port=0, tokens=tokens), "web")
        push = bench.run(PushBridge, PushSettings(port=0, secret=SECRET, announce=True), "push")
        modbus = bench.run(ModbusBridge, ModbusSettings(port=0), "modbus")
        await until(lambda: all(runner.bridge.port for runner in (web, push, modbus)))
        yield Gateway(bench, web, push, modbus)


async def test_a_web_page_of_the_enemy_changes_nothing_and_reads_nothing(tmp_path):
    async with (
        gateway(tmp_path / "data") as it,
        mosquitto(tmp_path) as broker,
        collected(it.bench.router) as (events, _),
        listening(Careless()) as careless,
        listening(Enemy()) as near,
        listening(Enemy(it.web.bridge.port)) as web,
        listening(Enemy(it.push.bridge.port)) as push,
    ):
        doors = {
            "web": it.web.bridge.port, "push": it.push.bridge.port, "modbus": it.modbus.bridge.port,
            "mqtt": broker.port, "careless": careless.port,
        }  # fmt: skip
        rebound = {"web": "rebound-web.example", "push": "rebound-push.example"}
        names = {rebound["web"]: f"127.0.0.1:{web.port}", rebound["push"]: f"127.0.0.1:{push.port}"}
        at = {door: f"http://{name}:{doors[door]}/attack" for door, name in rebound.items()}
        near.plan = plan_of(doors, dict.fromkeys(doors, "127.0.0.1"), at["web"])
        web.plan = plan_of(doors, {"web": rebound["web"]}, at["push"])
        push.plan = plan_of(doors, {"push": rebound["push"]})
        async with asyncio.timeout(PATIENCE):
            async with browsing(f"http://localhost:{near.port}/attack", tmp_path / "browser", names):
                reports = [await enemy.report for enemy in (near, web, push)]

        # Nothing was changed.
        assert it.bench.controller.sent == []
        assert events == []
        assert it.bench.halting.current is None
        assert [state.device.serial for state in it.bench.router.announced()] == [SN]
        assert it.bench.router.state(SN).values["ac_power"] == 5000
        assert {name for name, count in it.push.bridge.counts.items() if count} <= {"unauthorised", "bad"}

        # Nothing was read: from another port nothing at all, by a rebound name no more than a refusal.
        assert reports[0]["read"] == []
        for report in reports[1:]:
            assert report["read"]
            for each in report["read"]:
                assert "403" in each["text"] or "this is not 'rebound-" in each["text"], each
                assert not any(word in each["text"] for word in (SN, "House", "5000", "sems_gateway"))
        # The browser did what it was told, and what it sends unasked would have got through.
        assert [report["tried"] > 40 for report in reports] == [True, True, True]
        assert set(careless.types) >= FORMS
        assert set(careless.methods) >= {"POST", "OPTIONS"}
        assert min(it.refused("foreign_origin").values()) > 20
        assert min(it.refused("foreign_host").values()) > 10
        await it.works()
