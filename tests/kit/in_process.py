"""The simulated cloud without sockets, so that its time may be a test's own; and how it was called."""

import asyncio
from contextlib import contextmanager

import httpx
import msgspec

from gateway.sems import exchange
from gateway.simulator import Simulator, SimulatorSettings
from gateway.simulator.admin import Admin


class Line:
    """The network between the two: how long it takes, and how many calls are on it."""

    def __init__(self, latency):
        self.latency = latency
        self.under_way = 0
        self.most = 0
        """Calls that were under way at a time."""
        self.left = {}
        """Serial → when the first call with an item for it left."""
        self.refuse_several = False
        """Calls with more than one item are answered as wrong."""
        self.refused = 0

    def look_at(self, request):
        """Take note of a call; return an answer to give instead, or None."""
        try:
            items = msgspec.json.decode(request.content).get("items", [])
        except msgspec.MsgspecError:
            return None
        for item in items:
            self.left.setdefault(item["sn"], asyncio.get_running_loop().time())
        if len(items) > 1 and self.refuse_several:
            self.refused += 1
            said = {"code": "P0214", "msg": "one at a time", "data": None}
            return httpx.Response(200, stream=httpx.ByteStream(msgspec.json.encode(said)))
        return None


@contextmanager
def simulated(monkeypatch, clock, latency=0.2, **settings):
    """Has every session of the test speak to a simulator that runs by `clock`. Gives the simulator and the line."""
    simulator = Simulator(SimulatorSettings(port=0, start=clock.now(), **settings), clock=clock)
    simulator.world.start()
    simulator.cloud.open()
    line = Line(latency)
    inner = httpx.ASGITransport(app=Admin(simulator.cloud, simulator.pusher).app)

    class Transport(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request):
            await request.extensions["trace"]("http11.send_request_headers.started", {})
            line.under_way += 1
            line.most = max(line.most, line.under_way)
            instead = line.look_at(request)
            try:
                await asyncio.sleep(line.latency)
                return instead or await inner.handle_async_request(request)
            finally:
                line.under_way -= 1

    real = httpx.AsyncClient

    def client(*_, **__):
        return real(transport=Transport())

    monkeypatch.setattr(exchange, "client", client)
    yield simulator, line
