"""Both plug-ins hold what the gateway's conformance kit asks of any bridge. Run: `pytest`, or `python -m tests…`."""

from collections.abc import Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from gateway.api.testing import POINT, Arrival, Conformance
from line_protocol_parser import parse_line
from sems_gateway_example.influx import InfluxBridge
from sems_gateway_example.rest import RestBridge

from .server import Server


class TestRest(Conformance):
    bridge = RestBridge
    settings = {
        "token": "not-to-be-seen",
        "interval": 0.1,
        "devices": {"9010KETU000W0001": {"points": {"pv_power": "inverters.0.power"}}},
    }

    @asynccontextmanager
    async def far_side(self):
        async with Server() as server:
            yield self.settings_at(server.port)

    def settings_at(self, port: int) -> Mapping[str, Any]:
        return {"url": f"http://127.0.0.1:{port}/data"}


class TestInflux(Conformance):
    bridge = InfluxBridge
    settings = {"token": "not-to-be-seen", "org": "home", "bucket": "plant"}

    @asynccontextmanager
    async def far_side(self):
        async with Server() as self.server:
            yield self.settings_at(self.server.port)

    def settings_at(self, port: int) -> Mapping[str, Any]:
        return {"url": f"http://127.0.0.1:{port}"}

    async def arrived(self, bridge: Any) -> Sequence[Arrival]:
        lines = [parse_line(line) for line in self.server.lines]
        return [Arrival(line["tags"]["serial"], line["fields"][POINT]) for line in lines]
