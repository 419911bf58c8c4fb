"""`sems-gateway simulate`."""

import re
from datetime import datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from gateway.cli.loop import run_on_loop
from gateway.cli.output import EXIT_CONFIG, fail, out
from gateway.run.garbage import short_collections
from gateway.sems.recording import RecordingError
from gateway.simulator.command import simulate_until_signal
from gateway.simulator.faults import FaultOrder
from gateway.simulator.settings import SimulatorSettings


def simulate(
    port: Annotated[int, typer.Option(help="0: any free one")] = 8080,
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    speed: Annotated[float, typer.Option(min=0.1, max=3600, help="how many times faster the sun moves")] = 1.0,
    calls_per_hour: Annotated[int, typer.Option(min=0, help="of an account; 0 for no limit")] = 3600,
    seed: Annotated[int, typer.Option(help="the same seed gives the same weather and loads")] = 1,
    dialect: Annotated[
        int | None, typer.Option(help="seed of names, units, signs and times that are other than the catalogues'")
    ] = None,
    like: Annotated[
        Path | None, typer.Option(help="serve this recording of `learn --record` in place of made-up plants")
    ] = None,
    start: Annotated[
        datetime | None, typer.Option(help="simulated date and time to begin at, UTC; default: now")
    ] = None,
    plants: Annotated[int, typer.Option(min=1, max=100_000, help="how many plants there are")] = 3,
    devices_per_plant: Annotated[int, typer.Option(min=1, max=1_000, help="of those beyond the first three")] = 4,
    push_to: Annotated[str, typer.Option(help="address to push all that is measured to; default: nowhere")] = "",
    push_interval: Annotated[float, typer.Option(min=1, max=86_400, help="seconds between pushes")] = 300,
    telemetry_to: Annotated[str, typer.Option(help="the same into a topic, kafka://HOST:PORT/TOPIC")] = "",
    batch_from: Annotated[str, typer.Option(help="take batch commands from a Kafka cluster, HOST:PORT")] = "",
    upload_interval: Annotated[
        float, typer.Option(min=0, max=86_400, help="seconds after which a plant tells the cloud how it is; 0: always")
    ] = 0,
    physics_step: Annotated[
        float, typer.Option(min=1, max=900, help="simulated seconds that energy is settled in")
    ] = 60,
    faults: Annotated[str, typer.Option(help="what is wrong from the start, as JSON for POST /sim/faults")] = "{}",
) -> None:
    """`sems-gateway simulate`."""
    if push_to and not push_to.startswith(("http://", "https://")):
        fail("--push-to takes an address, http://… or https://…", EXIT_CONFIG)
    if telemetry_to and not re.fullmatch(r"kafka://[^/]+:\d+/[A-Za-z0-9._-]+", telemetry_to):
        fail("--telemetry-to takes a topic, kafka://HOST:PORT/TOPIC", EXIT_CONFIG)
    if batch_from and not re.fullmatch(r"[^/]+:\d+", batch_from):
        fail("--batch-from takes a Kafka cluster, HOST:PORT", EXIT_CONFIG)
    try:
        settings = SimulatorSettings(
            host=host,
            port=port,
            speed=speed,
            seed=seed,
            dialect=dialect,
            start=start,
            plants=plants,
            devices_per_plant=devices_per_plant,
            calls_per_hour=calls_per_hour,
            developer_calls_per_hour=calls_per_hour,
            supplier_calls_per_hour=calls_per_hour,
            push_url=push_to,
            push_interval=push_interval,
            telemetry_url=telemetry_to,
            upload_interval=upload_interval,
            physics_step=physics_step,
            faults=_faults(faults),
        )
        with short_collections(lambda: plants):
            run_on_loop(simulate_until_signal(settings, out, like, batch_from))
    except (OSError, RecordingError) as error:
        fail(str(error))
    except ModuleNotFoundError as missing:
        fail(f"Kafka's library is not installed ({missing.name}); install sems-gateway[demo]")


def _faults(text: str) -> dict[str, object]:
    try:
        msgspec.json.decode(text, type=FaultOrder)
        return msgspec.json.decode(text, type=dict[str, object])
    except (msgspec.MsgspecError, UnicodeError) as error:
        fail(f"--faults: {error}", EXIT_CONFIG)
