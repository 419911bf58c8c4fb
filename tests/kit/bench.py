"""A gateway's core round one bridge: real router, policy, journal and dispatcher, and a scripted controller."""

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta

import msgspec

from gateway.api.bridge import BridgeSettings
from gateway.commands.dispatch import Dispatcher
from gateway.commands.policy.halt import Halting
from gateway.commands.policy.policy import ControlSettings, Policy, Rule
from gateway.core.clock import SystemClock
from gateway.core.controller import Outcome
from gateway.core.model import Command, CommandState, Device, DeviceKind, Range, Snapshot, new_command_id
from gateway.core.router import Router
from gateway.journal.journal import Journal
from gateway.run.supervisor import Runner, Services
from tests.kit.process import PATIENCE

INVERTER = Device(
    serial="9010KETU000W0001",
    kind=DeviceKind.STORAGE,
    name="House",
    model="GW10K-ET",
    plant="plant-1",
    rated_power=10_000.0,
    setpoints={
        "running": Range(),
        "active_power_limit": Range(0, 100),
        "battery_mode": Range(),
        "battery_power_target": Range(0, 5_000),
        "battery_target_soc": Range(10, 100),
    },
)
EVERYTHING = ControlSettings(
    enabled=True,
    allow=[Rule(devices=["*"], setpoints=list(INVERTER.setpoints))],
    max_per_minute=100_000,
)


class ScriptedController:
    """Carries out what it is told and remembers it; `answers` holds exceptions to raise instead, in turn."""

    def __init__(self):
        self.sent: list[Command] = []
        self.in_force = []
        self.answers = []
        self.outcomes = []
        self.gate = asyncio.Event()
        self.gate.set()
        """Cleared, results are withheld until it is set."""

    def takes(self, serial, setpoint):
        return True

    async def send(self, command, in_force, timeout):
        if self.answers and (answer := self.answers.pop(0)) is not None:
            raise answer
        self.sent.append(command)
        self.in_force.append(dict(in_force))
        return f"receipt-{len(self.sent)}"

    async def result(self, command, receipt):
        await self.gate.wait()
        if self.outcomes:
            outcome = self.outcomes.pop(0)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome
        return Outcome(CommandState.SUCCEEDED, "confirmed")


class Bench:
    def __init__(self, data_dir, control=EVERYTHING, clock=None):
        self.clock = clock or SystemClock()
        self.data_dir = data_dir
        self.controller = ScriptedController()
        self.router = Router(self.clock)
        self.journal = Journal(data_dir / "journal.sqlite", clock=self.clock)
        self.halting = Halting(self.clock, data_dir / "halt.json", self.journal.note)
        self.policy = Policy(control, self.clock, self.router.state, self.halting)
        self.dispatcher = Dispatcher(self.router, self.policy, self.journal, self.clock)
        self.dispatcher.use({"scripted": self.controller})
        self.services = Services("test-gateway", data_dir, self.clock, self.router, self.policy, self.dispatcher)
        self.runners = []

    async def __aenter__(self):
        await self.journal.open()
        self.halting.load()
        await self.dispatcher.start()
        return self

    async def __aexit__(self, *_):
        for runner in self.runners:
            await runner.stop()
        await self.dispatcher.stop()
        await self.journal.close()

    def announce(self, device=INVERTER, **changes):
        device = msgspec.structs.replace(device, **changes)
        self.router.good_once.add(device.serial, self.clock.now())
        self.router.announce("scripted", device)
        return device

    def publish(self, serial=INVERTER.serial, *, age=0.0, interval=60.0, **values):
        time = self.clock.now() - timedelta(seconds=age)
        self.router.publish(Snapshot(serial=serial, time=time, source="scripted", interval=interval, values=values))

    def run(self, bridge, settings, name="under-test"):
        """Start a bridge under a real supervisor. Wait for what the test needs with `until`."""
        runner = Runner(name, name, bridge, settings, self.services)
        self.runners.append(runner)
        runner.start()
        return runner

    def command(self, setpoint="active_power_limit", value=50, *, ttl=60.0, **changes):
        now = self.clock.now()
        fields = {
            "id": new_command_id(),
            "serial": INVERTER.serial,
            "setpoint": setpoint,
            "value": value,
            "origin": "test",
            "created": now,
            "expires": now + timedelta(seconds=ttl),
        }
        return Command(**(fields | changes))


class Silent:
    """A bridge that does nothing by itself: a test speaks through its context."""

    Settings = BridgeSettings

    def __init__(self, settings, context):
        self.context = context

    async def start(self):
        pass

    async def stop(self):
        pass


async def until(condition, what="", timeout=PATIENCE):
    """Wait until `condition()` is true; returns what it returned. Fails after `timeout` seconds."""
    async with asyncio.timeout(timeout):
        while not (result := condition()):
            await asyncio.sleep(0.005)
    return result


@asynccontextmanager
async def collected(router, name="collector"):
    """All that a sink would be told, as it comes: a list of events, and the newest states."""
    mailbox = router.attach(name)
    events, states = [], {}

    async def collect():
        while True:
            updates = await mailbox.take()
            events.extend(updates.events)
            states.update(updates.states)

    task = asyncio.create_task(collect())
    try:
        yield events, states
    finally:
        task.cancel()
        router.detach(name)
