# ruff: noqa: INP001, T201 - a script of run.py's
"""The servers in Python: pymodbus' stock one, and the gateway. Prints the ports, then serves until killed.

    python servers.py stock|gateway asyncio|uvloop CORE [--devices 1] [--updates]

`gateway` is the real thing but for its cloud: router, bridge supervisor and Modbus bridge. With `--updates`, a source
in the same process publishes a snapshot of 30 points for every device every second, each at its own moment.
"""

import argparse
import asyncio
import logging
import os
import random
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog
import uvloop
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from gateway.bridges.modbus import ModbusBridge, ModbusSettings
from gateway.bridges.modbus.units import LAST_UNIT
from gateway.commands.dispatch import Dispatcher
from gateway.commands.policy.policy import ControlSettings, Policy
from gateway.core.clock import SystemClock
from gateway.core.model import Device, DeviceKind, Snapshot
from gateway.core.router import Router
from gateway.journal.journal import Journal
from gateway.run.supervisor import Runner, Services

ADDRESS, COUNT = 1000, 125
POINTS: Final = (
    *("ac_power", "ac_reactive_power", "ac_apparent_power", "ac_power_factor", "pv_power", "load_power", "grid_power"),
    *("battery_power", "l1_voltage", "l1_current", "l1_frequency", "l2_voltage", "l2_current", "l2_frequency"),
    *("l3_voltage", "l3_current", "l3_frequency", "pv1_voltage", "pv1_current", "pv2_voltage", "pv2_current"),
    *("battery_soc", "battery_voltage", "battery_current", "battery_temperature", "temperature"),
    *("energy_today", "energy_total", "grid_import_total", "grid_export_total"),
)
TICK: Final = 0.001


async def stock() -> None:
    """Serve the same registers with pymodbus as it is, but for its log of clients that go."""
    logging.disable()
    device = SimDevice(1, [SimData(ADDRESS, values=[0] * 250, datatype=DataType.REGISTERS)])
    server = ModbusTcpServer(device, address=("127.0.0.1", 0))
    await server.listen()
    print(server.transport.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


async def gateway(devices: int, *, updates: bool) -> None:
    """Serve with the gateway's own parts."""
    with tempfile.TemporaryDirectory() as directory:
        data_dir, clock = Path(directory), SystemClock()
        router, policy = Router(clock), Policy(ControlSettings(), clock)
        dispatcher = Dispatcher(router, policy, Journal(data_dir / "journal"), clock)
        services = Services("benchmark", data_dir, clock, router, policy, dispatcher)
        serials = [f"9010KETU{n:03}W{n:04}" for n in range(devices)]
        for serial in serials:
            router.announce("source", Device(serial=serial, kind=DeviceKind.STORAGE, name=serial, model="GW10K-ET"))
            router.publish(snapshot(serial))
        settings = ModbusSettings(
            port=0, ports=-(-devices // LAST_UNIT), max_connections=1000, max_connections_per_host=1000
        )
        runner = Runner("modbus", "modbus", ModbusBridge, settings, services)
        runner.start()
        bridge = runner.bridge
        assert isinstance(bridge, ModbusBridge)  # noqa: S101 - for the type
        while len(bridge.units) < devices:
            await asyncio.sleep(0.05)
        print(*(listener.port for listener in bridge.listeners), flush=True)
        if updates:
            await publish(router, serials)
        await asyncio.Event().wait()


def snapshot(serial: str) -> Snapshot:
    """Return what a source may have read just now."""
    values = dict(zip(POINTS, (random.uniform(0, 5000) for _ in POINTS), strict=True))  # noqa: S311
    return Snapshot(serial=serial, time=datetime.now(UTC), source="source", interval=60, values=values)


async def publish(router: Router, serials: list[str]) -> None:
    """Publish every device once a second, for ever, each at its own moment."""
    loop = asyncio.get_running_loop()
    begun, done = loop.time(), 0
    while True:
        await asyncio.sleep(TICK)
        due = int((loop.time() - begun) * len(serials))
        for n in range(done, due):
            router.publish(snapshot(serials[n % len(serials)]))
        done = due


def main() -> None:
    """Serve."""
    options = argparse.ArgumentParser()
    options.add_argument("server", choices=("stock", "gateway"))
    options.add_argument("loop", choices=("asyncio", "uvloop"))
    options.add_argument("core", type=int)
    options.add_argument("--devices", type=int, default=1)
    options.add_argument("--updates", action="store_true")
    chosen = options.parse_args()
    os.sched_setaffinity(0, {chosen.core})
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    factory = uvloop.new_event_loop if chosen.loop == "uvloop" else asyncio.SelectorEventLoop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(stock() if chosen.server == "stock" else gateway(chosen.devices, updates=chosen.updates))


if __name__ == "__main__":
    main()
