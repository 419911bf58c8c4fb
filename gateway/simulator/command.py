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
    password, secret = settings.password.get_secret_value(), settings.client_secret.get_secret_value()
    supplied = settings.supplier_secret.get_secret_value()
    for platform, entry in (
        (simulator.cloud.classic, f"account={settings.account} password={password}"),
        (simulator.cloud.developer, f"client_id={settings.client_id} client_secret={secret}"),
        (simulator.cloud.realtime, f"client_id={settings.supplier_id} client_secret={supplied}"),
    ):
        console.print(f"{platform.catalogue.title}: {simulator.url}{platform.catalogue.base} {entry}")
    if settings.push_url:
        # The address may end with a secret.
        console.print(f"pushes every {settings.push_interval:g} s", highlight=False)
    console.print(f"ready sems={simulator.url} account={settings.account} password={password}")
    try:
        await stop.wait()
    finally:
        await simulator.stop()
