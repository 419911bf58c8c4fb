"""A simulated cloud that is called without sockets, with or without a dialect."""

import base64
import hashlib
import uuid
from datetime import UTC, datetime

import httpx

from gateway.simulator import SimulatorSettings
from gateway.simulator.cloud import Cloud as Sems
from gateway.simulator.fleet import DEFAULT_FLEET
from gateway.simulator.frozen_clock import FrozenClock
from gateway.simulator.world import World
from tests.simulator.kit import HandClock

MORNING = datetime(2026, 6, 21, 7, 0, tzinfo=UTC)
"""The sun is up, batteries charge, and the day's number can't be a month's."""


class SharedWorld(World):
    """Plants that several clouds tell of: what one of them was told of the past the others are told too."""

    def __init__(self, seed=7, clock=None):
        self.hand = clock or HandClock(MORNING)
        self.still = FrozenClock(self.hand)
        self._told = {}
        super().__init__(DEFAULT_FLEET, self.still, seed=seed)
        self.start()

    def series(self, serial, start, end, step):
        key = (serial, start, end, step, self.hand.now())
        if key not in self._told:
            self._told[key] = super().series(serial, start, end, step)
        return self._told[key]


class Cloud:
    """A client of one API of a cloud, which speaks its dialect."""

    def __init__(self, api="open_api", dialect=None, clock=None, seed=7, recording=None, world=None):
        self.world = world or SharedWorld(seed, clock)
        self.clock = self.world.hand
        settings = SimulatorSettings(
            dialect=dialect, calls_per_hour=0, developer_calls_per_hour=0, supplier_calls_per_hour=0
        )
        self.sems = Sems(self.world, settings, self.world.still, recording=recording)
        self.platform = next(p for p in self.sems.platforms if p.catalogue.api == api)
        self.dialect = self.platform.dialect
        self.catalogue = self.platform.catalogue
        transport = httpx.ASGITransport(self.platform.serve)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://sems.invalid")
        self.token = ""

    async def __aenter__(self):
        self.sems.open()
        return self

    async def __aexit__(self, *_):
        self.sems.close()
        await self.http.aclose()

    async def log_in(self):
        if self.catalogue.api == "open_api":
            said = await self.ask("GetToken", account="demo", password_md5=hashlib.md5(b"demo").hexdigest())
            self.token = said["token"]
            return
        name = "supplier" if self.catalogue.api == "realtime" else "demo"
        basic = base64.b64encode(f"{name}:{name}".encode()).decode()
        path = self.catalogue.interface("Token").path
        form = {"grant_type": "client_credentials"}
        answer = await self.http.post(path, data=form, headers={"Authorization": f"Basic {basic}"})
        self.token = "Bearer " + answer.json()["access_token"]

    async def call(self, name, **args):
        """Make a call with the gateway's arguments; returns the whole answer."""
        return await self.send(name, self.catalogue.interface(name).parameters(args))

    async def send(self, name, fields):
        """Make a call with these fields; returns the whole answer."""
        interface = self.catalogue.interface(name)
        where = {"params": fields} if interface.method == "GET" else {"json": fields}
        headers = {self.catalogue.token.header: self.token}
        if self.catalogue.request_id:
            headers[self.catalogue.request_id] = uuid.uuid4().hex
        path = self.catalogue.url_path(interface)
        return (await self.http.request(interface.method, path, headers=headers, **where)).json()

    async def ask(self, name, **args):
        """Make a call that has to succeed; returns its data."""
        answer = await self.call(name, **args)
        assert str(answer["code"]) in self.catalogue.success, answer
        return answer["data"]
