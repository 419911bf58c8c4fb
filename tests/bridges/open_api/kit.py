"""What the tests of the Open API bridge share: the simulated cloud over HTTP, and a made-up one without."""

import asyncio
from contextlib import asynccontextmanager
from types import MappingProxyType
from zoneinfo import ZoneInfo

import msgspec
import structlog
from pydantic import SecretStr

from gateway.bridges.open_api import OpenApiBridge, OpenApiSettings
from gateway.bridges.open_api.discovery import NOTHING_GIVEN, PlantDiscovery
from gateway.bridges.open_api.poller import PlantPoller
from gateway.commands.policy.policy import ControlSettings, Rule
from gateway.core.model import BridgeStatus, Device, DeviceKind
from gateway.core.points import SETPOINTS
from gateway.core.router import Router
from gateway.sems.account_times import AccountTimes
from gateway.sems.budget import Budget, Priority
from gateway.sems.catalogue import Use, load
from gateway.sems.errors import understood
from gateway.sems.plan import PollIntervals
from gateway.sems.plants import PLANT, Plants, Target
from gateway.simulator import Simulator, SimulatorSettings
from gateway.simulator.faults import FaultOrder
from tests.kit.bench import Bench, collected, until
from tests.kit.clock import NOON, FakeClock

HOUSE = "9010KETU218W0001"
ROOF = "9020KDTU219W0001"
CHARGER = "9011KHCA223W0001"
LOGGER = "91000SEC219W0001"
STATION = "90000WSU220W0001"
CONTROL = ControlSettings(
    enabled=True, allow=[Rule(devices=["*"], setpoints=list(SETPOINTS))], max_per_minute=1_000, refresh_within=0
)
CLASSIC = {"account": "demo", "password": SecretStr("demo")}
DEVELOPER = {"platform": "developer", "client_id": "demo", "client_secret": SecretStr("demo")}
ZONE = ZoneInfo("Europe/Berlin")


# the simulated cloud, over HTTP


@asynccontextmanager
async def cloud(**settings):
    fields = {"port": 0, "start": NOON, "calls_per_hour": 0, "device_delay": 0} | settings
    simulator = Simulator(SimulatorSettings(**fields))
    await simulator.start()
    try:
        yield simulator
    finally:
        await simulator.stop()


def settings(simulator, login=None, **changes):
    fields = {"url": simulator.url, "poll_interval": 0.1, "calls_per_hour": 10_000_000}
    return OpenApiSettings(**(fields | (login or CLASSIC) | changes))


@asynccontextmanager
async def connected(tmp_path, simulator, login=None, control=CONTROL, **changes):
    async with Bench(tmp_path, control) as bench:
        runner = bench.run(OpenApiBridge, settings(simulator, login, **changes), "sems")
        bench.dispatcher.use({"sems": runner.bridge})
        await until(lambda: status(bench) and status(bench).up)
        yield bench


def status(bench, name="sems"):
    return next((s for s in bench.router.bridges() if s.name == name), None)


def order(fields):
    return msgspec.convert(fields, FaultOrder)


def called(simulator):
    return [call.interface for call in simulator.cloud.calls]


async def ended(bench, *commands):
    async with collected(bench.router) as (events, _):
        answers = await bench.dispatcher.submit(*commands)
        assert all(a.state == "accepted" for a in answers), answers
        await until(lambda: sum(e.state.final for e in events) == len(commands))
        return [next(e for e in events if e.state.final and e.command.id == c.id) for c in commands]


# a made-up one, without a network


def target(serial, type_, plant="p", carrier=""):
    kind = {"sec1000": "data_logger", "homekit": "data_logger"}.get(type_, type_)
    home = "" if type_ == PLANT else plant
    return Target(Device(serial=serial, kind=DeviceKind(kind), plant=home, time_zone=ZONE.key), type_, ZONE, carrier)


def fleet(plants, devices, types=("inverter",)):
    """That many plants, with that many devices over all of them."""
    targets = [target(f"plant{n}", PLANT) for n in range(plants)]
    return targets + [
        target(f"device{n}", types[n % len(types)], f"plant{n % plants}") for n in range(devices)
    ]  # fmt: skip


class MadeUp:
    """SEMS as a session: a fleet, a real budget, and every call remembered."""

    def __init__(self, api, clock, per_hour, targets, latency=0.2):
        self.catalogue = load(api)
        self.clock = clock
        self.budget = Budget(per_hour, clock)
        self.targets = {t.serial: t for t in targets}
        self.latency = latency
        self.calls = []
        """(time, interface, arguments, priority)"""
        self.spoil = lambda interface, args: None
        """Returns an exception to raise, or data to answer with, instead."""
        self.status = {}
        self.alarms = []

    def reading(self, name, *_):
        return understood(name)

    async def call(self, name, args, *, priority=Priority.POLLING, timeout=None, setpoint="", more=(), may_leave=None):
        interface = self.catalogue.interface(name)
        interface.together([args, *more], setpoint)
        self.budget.spend(priority)
        self.calls.append((self.clock.monotonic(), name, dict(args), priority))
        await asyncio.sleep(self.latency)
        spoilt = self.spoil(interface, args)
        if isinstance(spoilt, Exception):
            raise spoilt
        return self._answer(interface, args) if spoilt is None else spoilt

    def _answer(self, interface, args):
        taken = interface.args
        match interface.use:
            case Use.PLANTS:
                plants = [t for t in self.targets.values() if t.type == PLANT]
                first = (args["page"] - 1) * args["page_size"]
                told = plants[first : first + args["page_size"]]
            case Use.DEVICES if "serials" in taken:
                told = [self.targets[s] for s in args["serials"] if s in self.targets]
            case Use.DEVICES:
                homes = args["plants"] if "plants" in taken else [args["plant"]]
                told = [
                    t for t in self.targets.values()
                    if t.plant in homes and t.type in interface.of and not t.carrier
                ]  # fmt: skip
            case Use.ALARMS:
                return _placed(interface, [_put(interface, dict(alarm)) for alarm in self.alarms])
            case _ if taken & {"plant", "plants"}:
                told = [self.targets[s] for s in (args["plants"] if "plants" in taken else [args["plant"]])]
            case _:
                serials = args["serials"] if "serials" in taken else [args["serial"]]
                told = [t for s in serials if (t := self.targets.get(s))]
                told += [t for t in self.targets.values() if t.carrier in serials]
        return _placed(interface, [self._entry(interface, t) for t in told])

    def _entry(self, interface, target):
        now = self.clock.now()
        said = {
            "serial": target.serial, "plant": target.plant, "type": target.type, "name": f"name of {target.serial}",
            "time_zone": "Europe/Berlin", "time": now, "rated_power": 5000.0,
        }  # fmt: skip
        points = {"status": self.status.get(target.serial, "normal"), "pv_power": 1000.0, "ac_power": 1000.0,
                  "grid_power": 10.0, "energy_month": 5.0, "income_today": 1.0, "capacity": 5.0}  # fmt: skip
        return _put(interface, said | points)


def _put(interface, said):
    entry = {}
    for row in interface.response:
        name = row.point or row.attribute
        if name not in said:
            continue
        value = said[name]
        if row.options:
            value = next((theirs for theirs, ours in row.options.items() if ours == value), "strange")
        elif row.type == "local_time":
            value = value.astimezone(ZONE).strftime("%Y-%m-%d %H:%M:%S")
        elif row.type == "unix_milliseconds":
            value = int(value.timestamp() * 1000)
        elif row.type == "number":
            value /= row.scale
        place = entry
        *path, last = row.field.split(".")
        for key in path:
            place = place.setdefault(key, {})
        place[last] = value
    return entry


def _placed(interface, entries):
    if not interface.lists:
        return entries[0] if entries else {}
    return {interface.lists[0]: entries} if interface.lists[0] else entries


class Desk:
    """A context over a real router."""

    battery_window = 3600.0

    def __init__(self, clock, name="sems"):
        self.name = name
        self.clock = clock
        self.router = Router(clock)
        self.log = structlog.get_logger("test")
        self.told = []
        """(serial, alarms) in order"""
        self.findings = {}
        """Code and subject → text"""
        self.published = []
        self.reports = []
        self.names = {}
        """Bridge name → its type"""

    def announce(self, device, *, named=False):
        self.router.announce(self.name, device, named=named)

    def withdraw(self, serial):
        self.router.withdraw(self.name, serial)

    def publish(self, snapshot):
        self.published.append((self.clock.monotonic(), snapshot))
        return self.router.publish(snapshot)

    def alarms(self, serial, listed):
        self.told.append((serial, list(listed)))

    def weigh(self, flows):
        pass

    def heard_elsewhere(self, serial):
        return self.router.heard(serial, but=self.name)

    def state(self, serial):
        return self.router.state(serial)

    def may_leave(self, *ids):
        return True

    def still_wanted(self, *ids):
        return True

    def bridges(self):
        return [
            BridgeStatus(name=n, type=t, up=True, since=self.clock.now())
            for n, t in ({self.name: "open_api"} | self.names).items()
        ]  # fmt: skip

    def find(self, code, subject, text, remedy=""):
        self.findings[code, subject] = text

    def settle(self, code, subject):
        self.findings.pop((code, subject), None)

    def report(self, *, up, detail=""):
        self.reports.append((up, detail))

    def found(self, code):
        """Subjects of the findings of a kind."""
        return {subject for kind, subject in self.findings if kind == code}


class World:
    """Discovery and poller over a made-up SEMS."""

    def __init__(
        self,
        targets,
        api="open_api",
        per_hour=3600,
        interval=60.0,
        name="sems",
        told_times=MappingProxyType({}),
        given=NOTHING_GIVEN,
        **wishes,
    ):
        self.clock = FakeClock()
        self.desk = Desk(self.clock, name)
        self.sems = MadeUp(api, self.clock, per_hour, targets)
        times = AccountTimes(self.desk, **told_times)
        self.plants = Plants(times.dates)
        self.discovery = PlantDiscovery(self.sems.catalogue, self.sems, self.desk, self.plants, times, given)
        self.poller = PlantPoller(
            self.sems.catalogue, self.sems, self.desk, self.discovery, PollIntervals(interval, **wishes)
        )
        self.discovery.on_found = self.poller.found
        self._task = None

    async def __aenter__(self):
        await self.discovery.round()
        self.poller.discovered()
        self._task = asyncio.create_task(self.poller.run())
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def calls(self, name, since=0.0):
        return [(at, args) for at, interface, args, _ in self.sems.calls if interface == name and at >= since]
