"""`sems-gateway demo`."""

from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.loop import run_on_loop
from gateway.cli.output import EXIT_FAILED, fail, out

try:
    from gateway.demo.run import DemoError, DemoOptions, run_demo
except ModuleNotFoundError as missing:
    if missing.name != "confluent_kafka":
        raise
    fail(
        "the demo has a Kafka cluster too, whose library is not installed; install sems-gateway[demo], or beside the "
        "Debian package sems-gateway-kafka"
    )


def demo(
    mqtt_port: Annotated[int | None, typer.Option(help="fix the MQTT port; 0: any free one")] = None,
    modbus_port: Annotated[int | None, typer.Option(help="fix the Modbus port; 0: any free one")] = None,
    sems_port: Annotated[int | None, typer.Option(help="fix the simulator's port; 0: any free one")] = None,
    web_port: Annotated[int | None, typer.Option(help="fix the port of the HTTP API; 0: any free one")] = None,
    write_config: Annotated[Path | None, typer.Option(help="leave the configuration it runs with")] = None,
    self_test: Annotated[bool, typer.Option("--self-test", help="do the round trip, report, and exit")] = False,
    speed: Annotated[float, typer.Option(min=0.1, max=3600, help="how many times faster the sun moves")] = 30.0,
) -> None:
    """`sems-gateway demo`."""
    options = DemoOptions(
        mqtt_port=mqtt_port,
        modbus_port=modbus_port,
        sems_port=sems_port,
        web_port=web_port,
        write_config=write_config,
        self_test=self_test,
        speed=speed,
    )
    try:
        succeeded = run_on_loop(run_demo(options, out))
    except DemoError as error:
        fail(str(error))
    if not succeeded:
        raise typer.Exit(EXIT_FAILED)
