"""`sems-gateway demo`: a SEMS cloud, an MQTT broker, a Modbus server and the gateway, on this machine."""

import asyncio
import fcntl
import os
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import Final

import msgspec
from pydantic import SecretStr
from rich.console import Console

from gateway.api.registry import installed
from gateway.bridges.batch.interfaces import Interfaces
from gateway.demo.broker import WITHOUT, DemoBroker
from gateway.demo.config import ACCOUNT, SUPPLIER, TELEMETRY, TELEMETRY_INTERVAL, config_text
from gateway.demo.example import example, has_units
from gateway.demo.kafka import DemoKafka
from gateway.demo.ports import Ports
from gateway.demo.screen import Screen
from gateway.demo.selftest import SelfTest
from gateway.kafka import KafkaConnection
from gateway.run.app import Gateway
from gateway.run.logs import configure
from gateway.run.settings import Config, LogSettings
from gateway.sems.catalogue import load
from gateway.simulator.batch import BatchSettings
from gateway.simulator.server import Simulator
from gateway.simulator.settings import SimulatorSettings
from gateway.terminal.console import Terminal

MORNING: Final = datetime(2026, 6, 21, 8, 0, tzinfo=UTC)
"""Where the demo's sun begins, whatever the real time: a demo in the dark is dull."""
CALLS_PER_HOUR: Final = 100_000
DEVICE_DELAY: Final = 1.0
UP_TIMEOUT: Final = 60.0


class DemoError(Exception):
    """The demo can't run. The message says what to do."""


class DemoOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says. A port that is None is the usual one, or the next free one."""

    mqtt_port: int | None = None
    modbus_port: int | None = None
    sems_port: int | None = None
    web_port: int | None = None
    write_config: Path | None = None
    self_test: bool = False
    speed: float = 30.0


async def run_demo(options: DemoOptions, console: Console) -> bool:
    """Run until SIGINT or SIGTERM, or the self-test is done. Returns whether all went well."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with _running(options, console) as (gateway, ports):
        if options.self_test:
            test = SelfTest(mqtt=ports.mqtt, modbus=ports.modbus, sems=ports.sems_url, device=example(gateway))
            return await test.run(console)
        console.print(
            f"ready mqtt=127.0.0.1:{ports.mqtt} modbus=127.0.0.1:{ports.modbus} sems={ports.sems_url} "
            f"web=http://127.0.0.1:{ports.web} data_dir={gateway.config.data_dir}",
            highlight=False,
        )
        screen = Screen(gateway, console, example(gateway), ports)
        showing = asyncio.create_task(screen.run(), name="screen")
        stopped = asyncio.create_task(stop.wait(), name="stop")
        await asyncio.wait((showing, stopped), return_when=asyncio.FIRST_COMPLETED)
        for task in (showing, stopped):
            task.cancel()
        results = await asyncio.gather(showing, stopped, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result
    return True


@asynccontextmanager
async def _running(options: DemoOptions, console: Console) -> AsyncIterator[tuple[Gateway, Ports]]:
    # Where lines are read by a program, the first one says that all is up.
    notices = console if console.is_terminal else Terminal(stderr=True)
    with tempfile.TemporaryDirectory(prefix="sems-gateway-demo-") as directory, ExitStack() as choosing:
        # From here until all listen: another demo that begins meanwhile would find the same ports free.
        await asyncio.to_thread(choosing.enter_context, _alone())
        sems_port = _port(options.sems_port, 8080, "sems", notices)
        broker = _broker(_port(options.mqtt_port, 1883, "mqtt", notices) or _any_port(), notices)
        modbus_port = _port(options.modbus_port, 5020, "modbus", notices) or _any_port()
        web_port = _port(options.web_port, 9090, "web", notices) or _any_port()
        web_token = token_hex(8)
        kafka, sems = DemoKafka(), None
        try:
            configure(LogSettings(level="warning", format="console"))
            batch = Interfaces(load("batch"), "goodwe", SUPPLIER)
            await kafka.start([TELEMETRY, *(topic for _, topic in batch.topics)])
            sems = Simulator(
                _cloud(sems_port, options.speed, kafka.server), batch=_batch_cloud(kafka.server), option="--sems-port"
            )
            await sems.start()
            await broker.start()
            text = config_text(
                sems_url=sems.url,
                mqtt_port=broker.port,
                mqtt_protocol=broker.protocol,
                modbus_port=modbus_port,
                web_port=web_port,
                web_token=web_token,
                kafka=kafka.server,
            )
            gateway = Gateway(_config(text, Path(directory), options.write_config, notices))
            # Energy grows as fast as the sun moves.
            gateway.router.totals.plant_time = sems.world.physics.at
            try:
                await gateway.start()
                await _all_up(gateway)
                choosing.close()
                yield gateway, Ports(broker.port, modbus_port, sems.url, web_port, web_token)
            finally:
                await gateway.stop()
        except OSError as error:
            raise DemoError(str(error)) from error
        finally:
            await broker.stop()
            if sems is not None:
                await sems.stop()
            await kafka.stop()


def _broker(port: int, console: Console) -> DemoBroker:
    try:
        broker = DemoBroker(port)
    except ModuleNotFoundError as error:
        raise DemoError(
            f"the demo needs an MQTT broker: install mosquitto, or pip install 'sems-gateway[demo]' ({error})"
        ) from None
    if broker.protocol != "5":
        console.print(WITHOUT, highlight=False)
    return broker


def _cloud(port: int, speed: float, kafka: str) -> SimulatorSettings:
    return SimulatorSettings(
        port=port,
        account=ACCOUNT,
        password=SecretStr(ACCOUNT),
        start=MORNING,
        speed=speed,
        client_id=ACCOUNT,
        client_secret=SecretStr(ACCOUNT),
        calls_per_hour=CALLS_PER_HOUR,
        developer_calls_per_hour=CALLS_PER_HOUR,
        device_delay=DEVICE_DELAY,
        telemetry_url=f"kafka://{kafka}/{TELEMETRY}",
        push_interval=TELEMETRY_INTERVAL,
    )


def _batch_cloud(kafka: str) -> BatchSettings:
    options: dict[str, str | int | float | bool] = {"fetch.wait.max.ms": 10}
    return BatchSettings(connection=KafkaConnection(bootstrap_servers=[kafka], options=options), supplier=SUPPLIER)


def _config(text: str, directory: Path, write_to: Path | None, console: Console) -> Config:
    """Load the configuration as `run` would, from a file."""
    file = directory / "config.yaml"
    file.write_text(text, "utf-8")
    if write_to is not None:
        if write_to.exists():
            raise DemoError(f"{write_to} exists and is not overwritten; name another file for --write-config")
        try:
            write_to.write_text(text, "utf-8")
        except OSError as error:
            raise DemoError(f"{write_to} can't be written: {error.strerror}") from None
        console.print(f"wrote {write_to}", highlight=False)
    return Config.load(file, installed())


async def _all_up(gateway: Gateway) -> None:
    """Wait until every bridge does its work and every device has data."""
    mailbox = gateway.router.attach("demo start")
    try:
        async with asyncio.timeout(UP_TIMEOUT):
            while not _ready(gateway):
                await mailbox.take()
    except TimeoutError:
        down = [f"{status.name}: {status.detail}" for status in gateway.router.bridges() if not status.up]
        raise DemoError(f"not everything came up within {UP_TIMEOUT:.0f} s; {'; '.join(down)}") from None
    finally:
        gateway.router.detach("demo start")


def _ready(gateway: Gateway) -> bool:
    up = {status.name for status in gateway.router.bridges() if status.up}
    states = gateway.router.states()
    if not up >= set(gateway.runners) or not states or not all(state.time for state in states):
        return False
    return has_units(gateway)


@contextmanager
def _alone() -> Iterator[None]:
    """Wait until no other demo of this user looks for ports, and let none do so meanwhile."""
    path = Path(tempfile.gettempdir(), f"sems-gateway-demo-{os.getuid()}.lock")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DemoError(f"{path} can't be locked ({error.strerror}); remove it, or set TMPDIR") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _port(fixed: int | None, usual: int, option: str, console: Console) -> int:
    """Return the port to listen on: the one asked for, else the usual one or the next that is free."""
    what = {"sems": "SEMS", "mqtt": "MQTT", "modbus": "Modbus", "web": "HTTP"}[option]
    if fixed is not None:
        if fixed and not _is_free(fixed):
            raise DemoError(f"port {fixed} for {what} is taken; name another by --{option}-port, or 0 for any free one")
        return fixed
    for port in range(usual, usual + 100):
        if _is_free(port):
            if port != usual:
                console.print(f"port {usual} is taken, {what} is on {port}", highlight=False)
            return port
    raise DemoError(f"ports {usual} to {usual + 99} are taken; name one by --{option}-port")


def _is_free(port: int) -> bool:
    try:
        with socket.create_server(("127.0.0.1", port)):
            return True
    except OSError:
        return False


def _any_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
