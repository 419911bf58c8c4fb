"""`sems-gateway simulate`: the simulated SEMS cloud alone."""

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from gateway.core.model import iso
from gateway.sems.recording import read
from gateway.simulator.server import Simulator
from gateway.simulator.settings import SimulatorSettings

if TYPE_CHECKING:
    from gateway.simulator.batch import BatchSettings


async def simulate_until_signal(
    settings: SimulatorSettings, console: Console, like: Path | None = None, batch_from: str = ""
) -> None:
    """Run until SIGINT or SIGTERM; serve the recording `like` where there is one.

    `batch_from`: the Kafka cluster, host and port, with the topics of batch commands; empty: there are none.

    Raises OSError where the port can't be had, and RecordingError.
    """
    recording = None if like is None else read(like)
    simulator = Simulator(settings, recording=recording, batch=_batch(settings, batch_from) if batch_from else None)
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
        if recording is not None and platform.catalogue.api != recording.api:
            continue
        console.print(f"{platform.catalogue.title}: {simulator.url}{platform.catalogue.base} {entry}")
    if recording is not None:
        console.print(f"{len(recording.answers)} answers recorded at {iso(recording.made)}, moved to now")
    if settings.dialect is not None:
        console.print(f"dialect {settings.dialect}: names, units, signs and times are other than the catalogues'")
    if batch_from:
        console.print(f"batch commands from {batch_from} supplier={settings.supplier_id}", highlight=False)
    if settings.push_url:
        # The address may end with a secret.
        console.print(f"pushes every {settings.push_interval:g} s", highlight=False)
    console.print(f"ready sems={simulator.url} account={settings.account} password={password}")
    try:
        await stop.wait()
    finally:
        await simulator.stop()


def _batch(settings: SimulatorSettings, server: str) -> "BatchSettings":
    from gateway.kafka import KafkaConnection  # noqa: PLC0415 - large, and most do without
    from gateway.simulator.batch import BatchSettings  # noqa: PLC0415

    connection = KafkaConnection(bootstrap_servers=[server])
    return BatchSettings(connection=connection, supplier=settings.supplier_id, whitelist=settings.whitelist)
