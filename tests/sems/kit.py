"""A server that misbehaves as told, over real HTTP, and a session with it."""

import asyncio
import json
from contextlib import asynccontextmanager
from datetime import timedelta
from urllib.parse import parse_qsl

import msgspec

from gateway.core.clock import Clock as BaseClock
from gateway.sems.budget import Budget
from gateway.sems.catalogue import load
from gateway.sems.session import Credentials, Session
from tests.kit.clock import NOON

SILENCE = None
"""An answer that does not come."""
HANG_UP = b""
"""A connection that is closed without an answer."""


class Notes:
    """A context that takes findings, and nothing else."""

    def __init__(self):
        self.found = []

    def find(self, code, subject, text, remedy=""):
        self.found.append((code, subject, text, remedy))


class Clock(BaseClock):
    """Moved by hand: real sockets need the real loop."""

    def __init__(self):
        self.wall, self.mono = NOON, 1000.0

    def now(self):
        return self.wall

    def monotonic(self):
        return self.mono

    def pass_time(self, seconds):
        self.jump(seconds)
        self.mono += seconds

    def jump(self, seconds):
        self.wall += timedelta(seconds=seconds)


class Call(msgspec.Struct):
    """What the server was asked."""

    name: str
    headers: dict
    body: dict | None
    query: dict


class Server:
    """Answers each path from a script: dicts as JSON, bytes raw, functions of the call. The last entry stays."""

    def __init__(self, catalogue):
        self.catalogue = catalogue
        self.scripts = {}
        self.calls = []
        self.held = None
        """An event for which answers wait."""

    def names(self):
        return [call.name for call in self.calls]

    async def handle(self, reader, writer):
        try:
            while True:
                await self._answer(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _answer(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        path, _, query = head.split()[1].partition("?")
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in head.split("\r\n")[1:-2])}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        names = [i.name for i in self.catalogue.interfaces if self.catalogue.url_path(i) == path]
        name = next(name for name in names if name in self.scripts)
        form = "form" in headers.get("content-type", "")
        said = dict(parse_qsl(body.decode())) if form else json.loads(body) if body else None
        self.calls.append(Call(name, headers, said, dict(parse_qsl(query))))
        script = self.scripts[name]
        answer = script.pop(0) if len(script) > 1 else script[0]
        if self.held is not None:
            await self.held.wait()
        if answer is SILENCE:
            await asyncio.sleep(3600)
        if callable(answer):
            answer = answer(self.calls[-1])
        if isinstance(answer, dict):
            answer = http(json.dumps(answer).encode(), keep=True)
        writer.write(answer)
        await writer.drain()
        if b"Connection: close" in answer or not answer.startswith(b"HTTP"):
            raise ConnectionResetError


def http(body, status=200, headers="", *, keep=False):
    if isinstance(body, dict):
        body = json.dumps(body).encode()
    close = "" if keep else "Connection: close\r\n"
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{close}{headers}\r\n".encode() + body


@asynccontextmanager
async def serving(api="open_api"):
    server = Server(load(api))
    listener = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    tasks_before = asyncio.all_tasks()
    try:
        yield server, f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()
        for task in asyncio.all_tasks() - tasks_before - {asyncio.current_task()}:
            task.cancel()


@asynccontextmanager
async def session(url, tmp_path, clock, *, api="open_api", password="secret", per_hour=3600, budget=None):
    session = Session(
        load(api),
        url,
        Credentials("me", password),
        tmp_path / "s.json",
        clock,
        budget or Budget(per_hour, clock),
        "cloud",
    )
    await session.start()
    try:
        yield session
    finally:
        await session.stop()
