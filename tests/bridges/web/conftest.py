"""A web bridge under a real supervisor, and clients that ask it over a real socket."""

from contextlib import asynccontextmanager

import httpx
import pytest

from gateway.bridges.web import WebBridge, WebSettings
from tests.kit.bench import EVERYTHING, INVERTER, Bench, until

READER = "a-token-of-one-who-reads"
WRITER = "a-token-of-one-who-writes"
OTHER = "a-token-of-another-who-writes"
TOKENS = {
    "scada": {"token": WRITER, "write": True},
    "display": {"token": READER},
    "ems": {"token": OTHER, "write": True},
}
SN = INVERTER.serial


class Web:
    """A gateway that is asked over HTTP."""

    def __init__(self, bench, runner):
        self.bench = bench
        self.runner = runner
        self.controller = bench.controller

    @property
    def url(self):
        return f"http://127.0.0.1:{self.runner.bridge.port}"

    async def ask(self, method, path, token=None, **options):
        headers = options.pop("headers", {})
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        async with httpx.AsyncClient(trust_env=False, timeout=120) as client:
            return await client.request(method, self.url + path, headers=headers, **options)

    async def get(self, path, token=None, **options):
        return await self.ask("GET", path, token, **options)

    async def set(self, body, token=WRITER, *, serial=SN, query="", **options):
        return await self.ask("POST", f"/api/v1/devices/{serial}/set{query}", token, json=body, **options)


@asynccontextmanager
async def served(directory, *, control=EVERYTHING, clock=None, **settings):
    directory.mkdir(exist_ok=True)
    async with Bench(directory, control=control, clock=clock) as bench:
        bench.announce()
        runner = bench.run(WebBridge, WebSettings(**{"port": 0, "tokens": TOKENS} | settings), "web")
        await until(lambda: runner.bridge.port)
        yield Web(bench, runner)


@pytest.fixture
async def it(tmp_path):
    async with served(tmp_path) as web:
        yield web
