"""`sems-gateway simulate`: the simulated SEMS cloud alone."""

import asyncio
import signal

from rich.console import Console

from gateway.simulator.server import Simulator
from gateway.simulator.settings import SimulatorSettings


async def simulate_until_signal(settings: SimulatorSettings, console: Console) -> None:
    """Run until SIGINT or SIGTERM. Raises OSError where the port can't be had."""
    simulator = Simulator(settings)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await simulator.start()
    console.print(
        f"ready sems={simulator.url} account={settings.account} password={settings.password.get_secret_value()}"
    )
    try:
        await stop.wait()
    finally:
        await simulator.stop()
