# ruff: noqa: INP001, SLF001, T201 - a script of run.py's
"""A gateway as `sems-gateway run` starts it, with a source in the same process that has many devices.

    python fleet.py CONFIG DEVICES [--stacks]

Commands come by standard input, a word a line; each is answered by a line of JSON. With `--stacks`, the stack of the
longest turn comes along, found by a thread that looks every few milliseconds.
"""

import argparse
import asyncio
import gc
import json
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, Final

import msgspec

sys.path.insert(0, str(Path(__file__).parents[2]))

from gateway.api.bridge import BridgeSettings, Context
from gateway.api.registry import installed
from gateway.cli.loop import run_on_loop
from gateway.core.model import (
    GATEWAY,
    Command,
    CommandEvent,
    CommandState,
    Device,
    DeviceKind,
    Range,
    Snapshot,
    new_command_id,
)
from gateway.core.points import POINTS, SETPOINTS
from gateway.journal.retention import STEP
from gateway.run.app import Gateway
from gateway.run.logs import configure
from gateway.run.settings import BridgeConfig, Config

NUMBERS: Final = [point.id for point in POINTS.values() if point.id not in SETPOINTS and point.type == "float"][:40]
PER_PLANT: Final = 20
SLICE: Final = 20
"""Devices that the source announces, or publishes, in a turn of the loop."""
TICK: Final = 0.001
LONG: Final = 0.015
"""A turn of which the stack is of interest."""
INTERVAL: Final = 60.0
"""Seconds between two snapshots of a device."""


class Source:
    """Announces all devices at once, as a cloud that was read before does, then publishes what it is told to."""

    Settings: ClassVar[type[BridgeSettings]] = BridgeSettings
    devices: ClassVar[int] = 0
    running: ClassVar["Source"]

    def __init__(self, _: BridgeSettings, context: Context) -> None:
        self.context = context
        self.extra = 0
        self.published = 0
        Source.running = self

    async def start(self) -> None:
        """Bring the devices."""
        self.context.spawn(self._bring(), "devices")

    async def stop(self) -> None:
        """Nothing is open."""

    async def _bring(self) -> None:
        for n in range(self.devices):
            self.context.announce(_device(n))
            self._publish(n, INTERVAL)
            if n % SLICE == SLICE - 1:
                await asyncio.sleep(0)
        self.context.report(up=True)

    def _publish(self, n: int, interval: float) -> None:
        self.published += 1
        values: dict[str, Any] = {name: 1000.5 + n % 97 + k + self.published % 89 for k, name in enumerate(NUMBERS)}
        now = self.context.clock.now()
        self.context.publish(
            Snapshot(serial=_serial(n), time=now, source=self.context.name, interval=interval, values=values)
        )

    async def once(self, interval: float = INTERVAL) -> None:
        """Publish every device, as fast as it goes."""
        for n in range(self.devices):
            self._publish(n, interval)
            if n % SLICE == SLICE - 1:
                await asyncio.sleep(0)

    async def paced(self, seconds: float) -> None:
        """Publish devices in turn, each once in `INTERVAL` seconds, for a while."""
        began, sent = time.monotonic(), 0
        while (passed := time.monotonic() - began) < seconds:
            while sent < passed * self.devices / INTERVAL:
                self._publish(sent % self.devices, INTERVAL)
                sent += 1
            await asyncio.sleep(0.01)

    async def add(self) -> None:
        """Have one device more."""
        self.context.announce(_device(self.devices + self.extra))
        self._publish(self.devices + self.extra, INTERVAL)
        self.extra += 1

    async def gone(self) -> None:
        """Withdraw the device that was added last."""
        self.extra -= 1
        self.context.withdraw(_serial(self.devices + self.extra))


def _serial(n: int) -> str:
    return f"SN{n:08}"


def _device(n: int) -> Device:
    """Every twentieth is a plant, the others are its inverters."""
    plant = _serial(n - n % PER_PLANT)
    if n % PER_PLANT == 0:
        return Device(serial=plant, kind=DeviceKind.PLANT, name=f"Plant {n}")
    return Device(
        serial=_serial(n),
        kind=DeviceKind.INVERTER,
        name=f"Inverter {n}",
        model="GW10K-ET",
        plant=plant,
        rated_power=10_000.0,
        setpoints={"running": Range(), "active_power_limit": Range(0, 100)},
    )


class Turns:
    """The longest turn of the loop, on the clock and in CPU time of its thread: others work on this machine too."""

    def __init__(self, *, stacks: bool) -> None:
        self.longest = self.cpu = 0.0
        self.stack = ""
        self.collection = (0.0, 0)
        """The longest garbage collection, in seconds, and its generation."""
        self._seen = ""
        self._began = time.perf_counter()
        self._cpu = time.thread_time()
        if stacks:
            gc.callbacks.append(self._collected)
            threading.Thread(target=self._look, args=(threading.get_ident(),), daemon=True).start()

    def tick(self) -> None:
        """Note how long it was since the last time."""
        now, cpu = time.perf_counter(), time.thread_time()
        self.longest = max(self.longest, now - self._began - TICK)
        if cpu - self._cpu > self.cpu:
            self.cpu = cpu - self._cpu
            self.stack, self._seen = self._seen, ""
        self._began, self._cpu = now, cpu
        asyncio.get_running_loop().call_later(TICK, self.tick)

    def skip(self) -> None:
        """Leave out what was done since the last time."""
        self._began, self._cpu = time.perf_counter(), time.thread_time()

    def take(self) -> dict[str, Any]:
        """Return what was longest since this was asked last."""
        found = {"turn": self.longest, "cpu": self.cpu, "stack": self.stack, "collection": self.collection}
        self.collection = (0.0, 0)
        self.longest = self.cpu = 0.0
        self.stack = ""
        return found

    def _collected(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._collecting = time.thread_time()
        else:
            self.collection = max(self.collection, (time.thread_time() - self._collecting, info["generation"]))

    def _look(self, thread: int) -> None:
        while True:
            time.sleep(LONG / 5)
            if time.perf_counter() - self._began > LONG:
                self._seen = "".join(traceback.format_stack(sys._current_frames()[thread])[-12:])


async def _journal_old(gateway: Gateway) -> None:
    """Have the journal hold two steps' worth of rows that are three years old, of commands that have ended."""
    old = datetime.now(UTC) - timedelta(days=1000)
    for _ in range(STEP // 500):
        await asyncio.gather(*(_record(gateway, old) for _ in range(500)))


async def _cut(gateway: Gateway) -> None:
    """Have it cut the first step of them."""
    gateway._journal._next_cut = 0.0
    await _record(gateway, datetime.now(UTC))


async def _record(gateway: Gateway, time_: datetime) -> None:
    command = Command(
        id=new_command_id(), serial=_serial(1), setpoint="active_power_limit", value=50.0, origin=GATEWAY,
        created=time_, expires=time_ + timedelta(minutes=1),
    )  # fmt: skip
    for state in (CommandState.ACCEPTED, CommandState.EXPIRED):
        await gateway._journal.record(CommandEvent(command=command, state=state, time=time_))


async def serve(gateway: Gateway, turns: Turns) -> None:
    """Run the gateway, and do what is asked for."""
    turns.tick()
    with gateway.watched():
        await gateway.start()
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        source = Source.running
        work: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "once": source.once,
            "short": lambda: source.once(1.0),
            "paced": lambda: source.paced(10.0),
            "add": source.add,
            "gone": source.gone,
            "old": lambda: _journal_old(gateway),
            "cut": lambda: _cut(gateway),
        }
        while line := (await reader.readline()).decode().strip():
            if line in work:
                await work[line]()
            found: dict[str, Any] = turns.take() if line == "turns" else {}
            if line == "state":
                found["good"] = sum(state.quality == "good" for state in gateway.router.states())
                turns.skip()
            print(json.dumps(found), flush=True)
        await gateway.stop()


def main() -> None:
    """Run until standard input is closed."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("config", type=Path)
    options.add_argument("devices", type=int)
    options.add_argument("--stacks", action="store_true")
    chosen = options.parse_args()
    Source.devices = chosen.devices
    config = Config.load(chosen.config, installed())
    configure(config.root.log)
    own = BridgeConfig("source", lambda: Source, "source", BridgeSettings())
    config = msgspec.structs.replace(config, bridges=(*config.bridges, own))
    run_on_loop(serve(Gateway(config), Turns(stacks=chosen.stacks)))


if __name__ == "__main__":
    main()
