"""Inverters and batteries that do what they are told, more or less, and tell of it: what a fleet is tried on."""

import asyncio

from gateway.commands.policy.policy import ControlSettings, Rule
from gateway.core.controller import Outcome
from gateway.core.errors import RefusedError
from gateway.core.model import CommandState, Device, DeviceKind, Range, Snapshot
from gateway.steering.fleet.fleet import Fleet
from gateway.steering.fleet.settings import FleetSettings
from tests.kit.bench import Bench

CONTROL = ControlSettings(
    enabled=True,
    allow=[Rule(devices=["*"], setpoints=["*"])],
    max_per_minute=100_000,
    writes_per_day=100_000,
)


class Machine:
    """One member as it really is."""

    def __init__(self, serial, rated=10_000.0, *, stores=False, sun=0.0, soc=50.0, plant="P1", limit=False):
        setpoints = {"active_power_limit": Range(0, 100), "running": Range(), "reactive_power": Range(-60, 60)}
        if stores:
            setpoints = {"battery_mode": Range(), "battery_power_target": Range(0, rated), "running": Range()}
            if limit:
                setpoints["active_power_limit"] = Range(0, 100)
        kind = DeviceKind.STORAGE if stores else DeviceKind.INVERTER
        self.device = Device(serial=serial, kind=kind, plant=plant, rated_power=rated, setpoints=setpoints)
        self.stores, self.sun, self.soc = stores, sun, soc
        self.set = {"battery_mode": "auto", "battery_power_target": 0.0, "active_power_limit": 100.0, "running": True}
        self.refuses = self.contradicts = self.ignores = self.silent = self.tells_nothing = False
        self.delay = 0.0
        self.heard = set()
        self.most = rated
        """W that its battery takes."""
        self.spent = False
        """Its battery is as good as empty, or full: it does as it is told, and nothing comes of it."""
        self.writes = 0

    @property
    def battery(self):
        sign = {"charge": -1, "discharge": 1}.get(self.set["battery_mode"], 0)
        return sign * float(self.set["battery_power_target"] or 0) if self.stores and not self.spent else 0.0

    @property
    def power(self):
        if self.stores:
            most = self.set["active_power_limit"] / 100 * self.device.rated_power
            return min(self.sun + self.battery, most)
        if self.ignores:
            return self.sun
        return min(self.sun, self.set["active_power_limit"] / 100 * self.device.rated_power)

    def values(self):
        shown = {"ac_power": self.power, "pv_power": self.power - self.battery, "status": "normal"}
        shown |= {"running": self.set["running"]}
        if self.stores:
            shown |= {"battery_power": self.battery, "battery_soc": self.soc}
            return shown | {"active_power_limit": self.set["active_power_limit"]}
        return shown | {"active_power_limit": self.set["active_power_limit"]}


class World:
    """A fleet in a gateway's core, and its members."""

    def __init__(self, data_dir, clock, machines, settings, control=CONTROL, interval=10.0):
        self.bench = Bench(data_dir, control, clock)
        self.machines = {machine.device.serial: machine for machine in machines}
        self.settings = FleetSettings.model_validate(settings)
        self.interval = interval
        self.told = []
        self.bench.dispatcher.use({"world": self})

    async def __aenter__(self):
        await self.bench.__aenter__()
        self.runner = self.bench.run(Fleet, self.settings, "fleet:north")
        self.fleet = self.runner.bridge
        self.bench.dispatcher.use({"world": self, "fleet:north": self.fleet})
        for machine in self.machines.values():
            self.bench.router.good_once.add(machine.device.serial, self.bench.clock.now())
            self.bench.router.announce("world", machine.device)
        self.reading = asyncio.create_task(self.read())
        self.ageing = asyncio.create_task(self.age())
        await self.wait(2)
        return self

    async def __aexit__(self, *error):
        self.reading.cancel()
        self.ageing.cancel()
        await self.bench.__aexit__(*error)

    async def replace(self, settings):
        """Have the fleet other settings, as a reload gives it."""
        await self.runner.stop()
        self.bench.runners.remove(self.runner)
        self.runner = self.bench.run(Fleet, FleetSettings.model_validate(settings), "fleet:north")
        self.fleet = self.runner.bridge
        self.bench.dispatcher.use({"world": self, "fleet:north": self.fleet})

    async def read(self):
        while True:
            for machine in self.machines.values():
                if not machine.silent:
                    snapshot = Snapshot(
                        serial=machine.device.serial, time=self.bench.clock.now(), source="world",
                        interval=self.interval, values=machine.values(),
                    )  # fmt: skip
                    self.bench.router.publish(snapshot)
            await asyncio.sleep(self.interval)

    async def age(self):
        while True:
            self.bench.router.age()
            await asyncio.sleep(1)

    async def wait(self, seconds):
        await asyncio.sleep(seconds)

    @property
    def power(self):
        return sum(machine.power for machine in self.machines.values())

    def state(self, serial="fleet:north"):
        return self.bench.router.state(serial)

    async def ask(self, value, setpoint="power_target", **changes):
        """Command the fleet; return the id."""
        command = self.bench.command(setpoint, value, serial="fleet:north", **changes)
        (event,) = await self.bench.dispatcher.submit(command)
        assert event.state is CommandState.ACCEPTED, event
        return command.id

    async def end(self, id_, within=1_000.0):
        """Return how a command ended."""
        async with asyncio.timeout(within):
            while not (steps := await self.bench.dispatcher.steps(id_)) or not steps[-1].state.final:
                await asyncio.sleep(0.5)
        return steps[-1]

    # as a controller

    def takes(self, serial, setpoint):
        return serial in self.machines

    async def send(self, command, in_force, timeout):
        machine = self.machines[command.serial]
        self.told.append(command)
        if machine.refuses:
            raise RefusedError("not in the whitelist")
        battery = {**in_force, command.setpoint: command.value}.get("battery_power_target")
        if isinstance(battery, float) and battery > machine.most:
            raise RefusedError(f"the battery takes at most {machine.most} W")
        if machine.delay:
            await asyncio.sleep(min(machine.delay, timeout - 1))
        machine.writes += 1
        machine.heard.add(command.id)
        if not machine.contradicts:
            for setpoint, value in {**in_force, command.setpoint: command.value}.items():
                machine.set[setpoint] = 0.0 if value == "none" else value
        return ""

    async def result(self, command, receipt):
        if self.machines[command.serial].tells_nothing:
            return Outcome(CommandState.UNKNOWN, "no result came")
        known = command.id in self.machines[command.serial].heard
        return Outcome(CommandState.SUCCEEDED, "done") if known else Outcome(CommandState.UNKNOWN, "never heard of it")
