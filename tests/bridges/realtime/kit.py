"""What the tests of the Real-Time Data bridge share: the simulated cloud over HTTP, and a made-up one without."""

import asyncio
from contextlib import asynccontextmanager, suppress

import msgspec
from pydantic import SecretStr

from gateway.bridges.realtime import RealtimeBridge, RealtimeSettings
from gateway.bridges.realtime.licence import Licence
from gateway.bridges.realtime.listing import Listing
from gateway.bridges.realtime.poller import NumberPoller
from gateway.bridges.realtime.roster import Roster
from gateway.core.errors import GatewayError
from gateway.sems.budget import Budget, Priority
from gateway.sems.catalogue import Use
from gateway.sems.errors import understood
from gateway.simulator import Simulator, SimulatorSettings
from gateway.simulator.faults import FaultOrder
from tests.bridges.open_api.kit import Desk, status
from tests.kit.bench import Bench, until
from tests.kit.clock import NOON, FakeClock

HOUSE, ROOF = "9010KETU218W0001", "9020KDTU219W0001"
CHARGER, LOGGER, STATION = "9011KHCA223W0001", "91000SEC219W0001", "90000WSU220W0001"
BATTERY, METER = "9010LXFU218W0001", "93000HKU219W0001"
NUMBERS = [HOUSE, ROOF, CHARGER, LOGGER, STATION, BATTERY]
LOGIN = {"client_id": "supplier", "client_secret": SecretStr("supplier")}


@asynccontextmanager
async def cloud(**settings):
    fields = {"port": 0, "start": NOON, "supplier_calls_per_hour": 0} | settings
    simulator = Simulator(SimulatorSettings(**fields))
    await simulator.start()
    try:
        yield simulator
    finally:
        await simulator.stop()


def settings(simulator, whitelist=None, **changes):
    fields = {"url": simulator.url, "whitelist": whitelist or NUMBERS, "poll_interval": 1, "calls_per_hour": 10_000_000}
    return RealtimeSettings(**(LOGIN | fields | changes))


@asynccontextmanager
async def connected(tmp_path, simulator, whitelist=None, **changes):
    async with Bench(tmp_path) as bench:
        bench.run(RealtimeBridge, settings(simulator, whitelist, **changes), "supply")
        await until(lambda: status(bench, "supply") and status(bench, "supply").up)
        yield bench


def spoil(simulator, **order):
    simulator.cloud.spoil(msgspec.convert(order, FaultOrder))


def calls(simulator, *interfaces):
    """Calls of the API, without those to enter."""
    made = [call for call in simulator.cloud.calls if call.api == "realtime"]
    return [call for call in made if not interfaces or call.interface in interfaces]


# a made-up one, without a network


class MadeUp:
    """SEMS as a session: devices by type, a real budget, and every call remembered."""

    def __init__(self, catalogue, clock, per_hour, devices, latency=0.2):
        self.catalogue = catalogue
        self.clock = clock
        self.budget = Budget(per_hour, clock)
        self.devices = devices
        """Serial → type"""
        self.latency = latency
        self.calls = []
        """(time, interface, serials)"""
        self.refused = {}
        """Serial → code"""
        self.listed = True
        self.age = 0.0
        self.spoil = lambda name, serials: None
        """Returns an exception to raise, or data to answer with, instead."""

    def reading(self, name, *_):
        return understood(name)

    async def call(self, name, args, *, priority=Priority.POLLING, timeout=None):
        interface = self.catalogue.interface(name)
        interface.parameters(args)
        self.budget.spend(priority)
        serials = args.get("serials", [])
        assert len(serials) <= interface.batch or interface.use is Use.DEVICES
        self.calls.append((self.clock.monotonic(), name, list(serials)))
        await asyncio.sleep(self.latency)
        spoilt = self.spoil(name, serials)
        if isinstance(spoilt, Exception):
            raise spoilt
        if spoilt is not None:
            return spoilt
        if interface.use is Use.DEVICES:
            return self._page(args)
        if interface.use is Use.ALARMS:
            return {"list": []}
        return {"deviceData": [self._entry(interface, serial) for serial in serials]}

    def _page(self, args):
        types = {"inverter": 0, "storage": 1, "battery": 2, "meter": 3, "ev_charger": 5}
        first = (args["page"] - 1) * args["page_size"]
        page = list(self.devices.items())[first : first + args["page_size"]]
        return {"list": [{"sn": serial, "deviceType": types[type_]} for serial, type_ in page]}

    def _entry(self, interface, serial):
        if serial in self.refused:
            return {"sn": serial, "code": self.refused[serial], "msg": "no"}
        if self.devices.get(serial) not in interface.of:
            return {"sn": serial, "code": "GY0404", "msg": "none such"}
        stamp = round((self.clock.now().timestamp() - self.age) * 1000)
        return {
            "sn": serial,
            "code": "00000",
            "refreshTime": stamp,
            "parameters": {"deviceStatus": 1, "pvPower": "1000"},
        }


class World:
    """Listing and reader over a made-up SEMS; started again with `again`, it knows what was kept."""

    def __init__(self, tmp_path, devices, whitelist=None, per_hour=3600, lists=True, clock=None, **changes):
        fields = LOGIN | {"whitelist": whitelist or list(devices)} | changes
        if not lists and fields["whitelist"] != "*":
            fields["overrides"] = {"interfaces": {"devices": None}}
        self.settings = RealtimeSettings(**fields)
        self.clock = clock or FakeClock()
        self.desk = Desk(self.clock, "supply")
        self.desk.withdrawn = []
        self.desk.withdraw = self.desk.withdrawn.append
        self.sems = MadeUp(self.settings.catalogue, self.clock, per_hour, devices)
        self.roster = Roster(tmp_path / "numbers.json", self.settings.types, self.clock, self.desk.log)
        self.licence = Licence(self.roster._file.path.with_name("licence.json"), self.clock, self.desk.log)
        shared = (self.settings, self.sems.catalogue, self.sems, self.desk, self.roster)
        self.listing = Listing(*shared, self.licence)
        self.reader = NumberPoller(*shared, self.listing, self.licence)
        self.listing.on_found = self.reader.found
        self.tasks = []

    async def __aenter__(self):
        self.roster.restore()
        self.listing.begin()
        if self.sems.listed:
            with suppress(GatewayError):
                await self.listing.round()
        self.reader.discovered()
        works = (self.reader.run(), self.reader.keep(), self.listing.watch_file())
        self.tasks = [asyncio.create_task(work) for work in works]
        return self

    async def __aexit__(self, *_):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def calls(self, name, since=0.0):
        return [(at, serials) for at, interface, serials in self.sems.calls if interface == name and at >= since]

    def values(self, serial):
        state = self.desk.router.state(serial)
        return state.values if state else None
