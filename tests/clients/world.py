"""One gateway with everything on, before a simulated SEMS whose sun stands still: what it says now is what is read."""

import functools
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime

from gateway.api.registry import installed
from gateway.core.model import DeviceKind, Quality
from gateway.run.app import Gateway
from gateway.run.settings import Config
from gateway.simulator import Simulator, SimulatorSettings
from tests.kit.bench import until
from tests.kit.ports import free_port

HOST = "127.0.0.1"
HOUSE = "9010KETU218W0001"
"""A hybrid inverter with a battery and a meter: what every client here reads."""
PARK = "9050KMTU220W0003"
"""One of 50 kW without a battery: what every client here sets."""
UNITS = {HOUSE: 247, PARK: 50}
DEVICES = 3 + 8 + 10
"""Plants, inverters, and what else there is."""
CONFIG = """\
gateway: {{id: everything}}
bridges:
  sems: {{type: open_api, account: demo, password: demo, url: "{sems}", poll_interval: 10, calls_per_hour: 1000000}}
  supply:
    type: realtime
    client_id: supplier
    client_secret: supplier
    url: "{sems}"
    whitelist: [{house}, {park}]
    poll_interval: 10
    calls_per_hour: 1000000
  modbus:
    type: modbus
    port: {modbus}
    maps: [native, sunspec, goodwe]
    units: {{{house}: 247, {park}: 50}}
    udp: {{port: 0, device: {house}, allow: [127.0.0.0/8], read_only: false, role: udp}}
  scada: {{type: mqtt, host: 127.0.0.1, port: {mosquitto}, payload: sparkplug, sparkplug: {{types_in_data: true}}}}
  web: {{type: web, port: {web}}}
{brokers}
control:
  enabled: true
  max_per_minute: 1000
  writes_per_day: 100000
  allow: [{{devices: ["*"], setpoints: [active_power_limit, running, work_mode, battery_mode, battery_power_target]}}]
"""
BROKER = (
    "  {name}: {{type: mqtt, host: 127.0.0.1, port: {port}, protocol: {protocol}, points: true, home_assistant: true}}"
)
OLDER = {"aedes": "3.1.1"}
"""What a broker speaks that does not speak MQTT 5."""


class World:
    """`ports` has one for each bridge that listens, and for each broker."""

    def __init__(self, simulator, gateway, ports, brokers):
        self.simulator, self.gateway, self.ports, self.brokers = simulator, gateway, ports, brokers
        self._limits = iter(range(20, 100))

    @property
    def inverters(self):
        """Those whose power stands still: nobody sets them."""
        kinds = (DeviceKind.INVERTER, DeviceKind.STORAGE)
        serials = [s.device.serial for s in self.gateway.router.states() if s.device.kind in kinds]
        return [serial for serial in serials if serial != PARK]

    @property
    def units(self):
        return self.gateway.runners["modbus"].bridge.units

    def truth(self, serial):
        """What the simulator says, behind the cloud's back: point → value."""
        for plant in self.simulator.world:
            report, devices = self.simulator.world.true_reports(plant.id)
            if plant.id == serial:
                return report.values
            if serial in devices:
                return devices[serial].values
        raise KeyError(serial)

    def limit(self, serial=PARK):
        return self.simulator.world.setpoints(serial).active_power_limit

    async def reached(self, value, serial=PARK):
        """Wait until the simulated inverter has this limit."""
        await until(lambda: self.limit(serial) == value, f"the cloud is told a limit of {value}")

    async def shown(self, value, serial=PARK):
        """Wait until the gateway knows that it has this limit."""
        await until(lambda: self.gateway.router.state(serial).values.get("active_power_limit") == value, f"{value} %")

    async def has(self, serial, setpoint, value):
        """Wait until the simulated device was told this."""
        await until(lambda: self.simulator.world.setpoints(serial).said()[setpoint] == value, f"{setpoint} {value}")

    def next_limit(self):
        """Return a limit that nobody has set yet."""
        return next(self._limits)


@asynccontextmanager
async def everything(directory, brokers):
    """Run it in this process. `brokers` has name → one that has a port, and can be started and stopped."""
    start = datetime(2026, 6, 21, 10, 0, tzinfo=UTC)
    simulator = Simulator(SimulatorSettings(port=0, start=start, speed=1e-9, calls_per_hour=0, device_delay=0))
    ports = {name: broker.port for name, broker in brokers.items()} | {"modbus": free_port(), "web": free_port()}
    async with AsyncExitStack() as stack:
        for broker in brokers.values():
            stack.push_async_callback(broker.stop)
            await broker.start()
        await simulator.start()
        stack.push_async_callback(simulator.stop)
        told = "\n".join(BROKER.format(name=name, port=ports[name], protocol=OLDER.get(name, "5")) for name in brokers)
        file = directory / "config.yaml"
        file.write_text(CONFIG.format(sems=simulator.url, house=HOUSE, park=PARK, brokers=told, **ports))
        gateway = Gateway(Config.load(file, installed()))
        await gateway.start()
        stack.push_async_callback(gateway.stop)
        await until(functools.partial(_ready, gateway), "all devices are good everywhere")
        ports["udp"] = gateway.runners["modbus"].bridge.udp_ports[0]
        yield World(simulator, gateway, ports, brokers)


def _ready(gateway):
    units = gateway.runners["modbus"].bridge.units
    states = gateway.router.states()
    good = all(state.quality is Quality.GOOD for state in states)
    return good and len(states) == len(units) == DEVICES and all(bridge.up for bridge in gateway.router.bridges())
