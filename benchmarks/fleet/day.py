# ruff: noqa: D102, D103, INP001, SLF001, T201 - a script that prints
"""One simulated day of a fleet, a target every 15 minutes, in an hour or less.

    python benchmarks/fleet/day.py [--inverters 10000] [--share soc] [--row 1] [--look 5] [--pictures FOLDER]

Windows, uploads and delays of a gateway are seconds of the real clock, so a simulator that runs faster is no use to it.
Here all is one process on a clock that skips whatever nobody does anything in (tests/kit/clock.py): the real fleet,
router, policy, dispatcher and journal on disk; the simulator's world, weather, faults, delays, owners and counters of
writes. What lies between the two is played: no HTTP, Kafka, or bridge, so CPU is that of a gateway's core.

The schedule is what a virtual power plant would have: what the sun is forecast to give in the slot, and so much of what
all batteries can do: in at noon, out in the morning, evening and night. The forecast knows the weather of the middle of
the slot; what clouds do else is the fleet's to make up for. Each hour other inverters have the faults of a row.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

sys.path.insert(0, str(Path(__file__).parents[2]))

from gateway.commands.policy.policy import ControlSettings, Rule
from gateway.core.controller import Outcome
from gateway.core.errors import RefusedError
from gateway.core.model import Command, CommandState, Device, Range, Snapshot, Value
from gateway.run.logs import configure
from gateway.run.settings import LogSettings
from gateway.simulator import SimulatorSettings, initial_state
from gateway.simulator.cloud import Cloud
from gateway.simulator.controls import Order, TaskState
from gateway.simulator.faults import FaultOrder
from gateway.simulator.fleet import make_fleet
from gateway.simulator.flows import INVERTER_EFFICIENCY, harvest
from gateway.simulator.noise import derive, unit
from gateway.simulator.sky import Climate
from gateway.simulator.specs import DeviceSpec, PlantSpec
from gateway.simulator.world import World
from gateway.steering.fleet import fleet as steering
from gateway.steering.fleet.settings import FleetSettings
from tests.kit.bench import Bench
from tests.kit.clock import FakeClock, VirtualLoop

FLEET: Final = "fleet:all"
BEGIN: Final = datetime(2026, 6, 21, tzinfo=UTC)
SLOT: Final = 900
SLOTS: Final = 96
SETTLED: Final = 300
"""Seconds after a target from which its slot is judged."""
SMALL: Final = 0.05
"""Of the rated power. Errors are parts of the target, or of this where the target is less, as at night."""
TICK: Final = 20.0
"""Seconds in which what plants upload is gathered, and its members looked at anew."""
FAULTS: Final[Mapping[int, Mapping[str, Any]]] = {
    0: {},
    1: {"offline": 0.02, "refuse": 0.01, "contradict": 0.01, "late": {"share": 0.01, "seconds": [30, 300]}},
    2: {"offline": 0.10, "refuse": 0.05, "contradict": 0.03, "late": {"share": 0.05, "seconds": [30, 300]}},
}
BATTERIES: Final = (
    (0, 6, 0.04, "night"), (6, 9, 0.06, "morning"), (9, 10, 0.0, ""), (10, 14, -0.25, "noon"), (14, 18, 0.0, ""),
    (18, 22, 0.2, "evening"), (22, 24, 0.04, "night"),
)  # fmt: skip
"""From and to which hour (UTC) which part of what all batteries can do is asked of them; < 0: they charge."""
SHOWN: Final = (
    "status", "ac_power", "pv_power", "battery_power", "battery_soc", "battery_capacity", "active_power_limit",
    "battery_mode", "battery_power_target", "running",
)  # fmt: skip
CONTROL: Final = ControlSettings(
    enabled=True, allow=[Rule(devices=["*"], setpoints=["*"])], max_per_minute=10_000_000, writes_per_day=1_000_000
)
BID: Final = 0.97
"""Of the forecast of the sun that is asked for."""
UNLIKE: Final = (0.2, 0.9)
"""Between which parts of their capacity batteries begin the day."""


class Costs:
    """CPU seconds of the simulator; what is left of the process is the gateway's."""

    def __init__(self) -> None:
        self.began, self.simulator = time.process_time(), 0.0

    @contextmanager
    def simulated(self) -> Iterator[None]:
        began = time.process_time()
        try:
            yield
        finally:
            self.simulator += time.process_time() - began

    @property
    def gateway(self) -> float:
        return time.process_time() - self.began - self.simulator


class Clouds:
    """The simulated inverters, as a controller of the gateway and a source of its data."""

    def __init__(self, options: argparse.Namespace, clock: FakeClock, costs: Costs) -> None:
        fleet = make_fleet(options.inverters // options.per_plant, devices_per_plant=options.per_plant)
        self.world = World(
            fleet, clock, seed=options.seed, start=clock.now(), upload_interval=options.upload, step=300.0
        )
        settings = SimulatorSettings(seed=options.seed, calls_remembered=10 * options.inverters)
        self.cloud = Cloud(self.world, settings, clock)
        self.world.start()
        faults = {
            "owner_changes": 60 * options.inverters / 10_000, "device_delay": {"median": 4, "p95": 15, "most": 60},
        }  # fmt: skip
        self.cloud.spoil(msgspec.convert(faults, FaultOrder))
        self.plants = {spec.id: spec for spec in self.world}
        self.devices = {device.serial: device for spec in self.world for device in spec.devices}
        self.climates = [(spec, Climate(spec, options.seed)) for spec in self.world]
        self.rated = sum(device.model.rated_power for device in self.devices.values())
        self.most = sum(d.model.battery.max_power for d in self.devices.values() if d.model.battery)
        self.orders = 0
        self._options, self._clock, self._costs = options, clock, costs

    def spoil(self, hour: int) -> None:
        """Have other inverters go wrong than in the hour before."""
        shares = {**FAULTS[self._options.row], "seed": self._options.seed + hour}
        with self._costs.simulated():
            self.cloud.spoil(msgspec.convert({"shares": shares}, FaultOrder))

    # as a source

    def announced(self) -> Iterator[Device]:
        for spec in self.world:
            for each in spec.devices:
                setpoints = {"active_power_limit": Range(0, 100)}
                if each.model.battery:
                    setpoints |= {"battery_mode": Range(), "battery_power_target": Range(0, each.model.rated_power)}
                yield Device(
                    serial=each.serial, kind=each.model.kind, name=each.name, plant=spec.id,
                    rated_power=each.model.rated_power, setpoints=setpoints,
                )  # fmt: skip

    def uploaded(self, spec: PlantSpec, interval: float) -> list[Snapshot]:
        """Return what a plant has told the cloud last."""
        self.cloud.tasks.settle()
        found = []
        for device in spec.devices:
            report = self.world.report(device.serial)
            if report.values["status"] != "offline":
                values = {name: report.values.get(name) for name in SHOWN}
                found.append(
                    Snapshot(serial=device.serial, time=report.time, source="sky", interval=interval, values=values)
                )
        return found

    # as a controller

    def takes(self, serial: str, setpoint: str) -> bool:  # noqa: ARG002
        return serial in self.devices

    async def send(self, command: Command, in_force: Mapping[str, Value], timeout: float) -> str:  # noqa: ARG002
        values = {**in_force, command.setpoint: command.value}
        battery, power = self.devices[command.serial].model.battery, values.get("battery_power_target")
        if battery and isinstance(power, float) and power > battery.max_power:
            raise RefusedError(f"the battery takes at most {battery.max_power:g} W")
        self.orders += 1
        with self._costs.simulated():
            return self.cloud.tasks.accept(Order(serial=command.serial, api="batch", setpoints=values)).receipt

    async def result(self, command: Command, receipt: str) -> Outcome:  # noqa: ARG002
        found = self.cloud.tasks.find(receipt)
        if not found:
            return Outcome(CommandState.UNKNOWN, "not known any more")
        (task,) = found
        await asyncio.sleep(max(0.0, task.told - self._clock.monotonic()))
        self.cloud.tasks.settle()
        succeeded = task.state is TaskState.SUCCEEDED
        return Outcome(CommandState.SUCCEEDED if succeeded else CommandState.FAILED, task.detail)

    # the truth

    def power(self) -> tuple[float, float]:
        """Return what all give now, W, and what their modules could."""
        with self._costs.simulated():
            self.cloud.tasks.settle()
            now = [self.world.physics.now()]
            found = [self.world.power(spec.id, spec.by_serial, now)[0] for spec in self.world]
        return sum(each.given for each in found), sum(each.available for each in found)

    def forecast(self, moment: float) -> float:
        """Return what the sun gives at a time, at the AC terminals, W."""
        total = 0.0
        for spec, climate in self.climates:
            if sky := climate.daylight(moment):
                part = harvest(sky) * INVERTER_EFFICIENCY
                total += sum(min(device.peak_power * part, device.model.rated_power) for device in spec.devices)
        return total

    def charges(self) -> list[float]:
        """Return the state of charge of each battery, %."""
        with self._costs.simulated():
            reports = [self.world.true_reports(spec.id)[1] for spec in self.world]
        return [
            float(report.values["battery_soc"])
            for each in reports
            for serial, report in each.items()
            if serial in self.devices and self.devices[serial].model.battery
        ]

    def writes(self) -> list[int]:
        """Return how many setpoints of each inverter were written."""
        counters = self.cloud.tasks.writes
        return [sum(each.total for each in counters.get(serial, {}).values()) for serial in self.devices]


class Day:
    """The day, slot by slot."""

    def __init__(self, options: argparse.Namespace, bench: Bench, clouds: Clouds, costs: Costs) -> None:
        self.options, self.bench, self.clouds, self.costs = options, bench, clouds, costs
        self.wanted: list[float] = []
        self.given: list[float] = []
        self.available: list[float] = []
        self.ids: list[str] = []

    async def upload(self) -> None:
        """Have plants tell how they are, each at its own time."""
        due = {spec.id: 0.0 for spec in self.clouds.world}
        while True:
            now = self.clouds.world.physics.now()
            for number, (plant, at) in enumerate(due.items()):
                if at > now:
                    continue
                spec = self.clouds.plants[plant]
                with self.costs.simulated():
                    found = self.clouds.uploaded(spec, self.options.upload)
                    due[plant] = self.clouds.world.upload_after(spec, now)
                for snapshot in found:
                    self.bench.router.publish(snapshot)
                if number % 50 == 0:
                    await asyncio.sleep(0)
            self.bench.router.age()
            await asyncio.sleep(TICK)

    def target(self, slot: int) -> float:
        part = next(part for since, until, part, _ in BATTERIES if since <= slot / 4 < until)
        with self.costs.simulated():
            sun = self.clouds.forecast(BEGIN.timestamp() + (slot + 0.5) * SLOT)
        return round(BID * sun + part * self.clouds.most)

    async def run(self) -> None:
        every, began = self.options.every, time.monotonic()
        for slot in range(self.options.slots):
            if slot % 4 == 0:
                self.clouds.spoil(slot // 4)
            target = self.target(slot)
            command = self.bench.command("power_target", target, serial=FLEET)
            (event,) = await self.bench.dispatcher.submit(command)
            if event.state is not CommandState.ACCEPTED:
                raise SystemExit(f"slot {slot}: {event.detail}")
            self.ids.append(command.id)
            for _ in range(round(SLOT / every)):
                await asyncio.sleep(every)
                given, available = self.clouds.power()
                self.wanted.append(target)
                self.given.append(given)
                self.available.append(available)
            await self.show(slot, target, time.monotonic() - began)

    def settled(self, slot: int) -> list[float]:
        count = round(SLOT / self.options.every)
        return self.given[slot * count + round(SETTLED / self.options.every) : (slot + 1) * count]

    async def show(self, slot: int, target: float, elapsed: float) -> None:
        power = statistics.fmean(self.settled(slot))
        at = BEGIN + timedelta(seconds=slot * SLOT)
        step = (await self.bench.dispatcher.steps(self.ids[-1]))[-1]
        end = step.detail.split(":")[0] if step.state.final else "no end yet"
        members = self.bench.router.state(FLEET).values
        error = (power - target) / max(abs(target), SMALL * self.clouds.rated) * 100
        charges = self.clouds.charges()
        print(
            f"| {at:%H:%M} | {target / 1e6:8.3f} | {power / 1e6:8.3f} | {error:6.2f} | {end:10} | "
            f"{members['members_out']:5.0f} | {max(self.clouds.writes()):4} | "
            f"{statistics.fmean(charges):4.1f} ± {statistics.pstdev(charges):4.1f} | {elapsed:5.0f} |", flush=True,
        )  # fmt: skip


@contextmanager
def unlike(low: float, high: float) -> Iterator[None]:
    """Have batteries begin as far apart as that; the simulator's own are at 30 to 70 %."""
    born = initial_state._aged

    def aged(device: DeviceSpec, seed: int, *rest: float) -> Any:
        state, battery = born(device, seed, *rest), device.model.battery
        part = low + (high - low) * unit(derive(seed, device.serial, "unlike"), 0)
        return msgspec.structs.replace(state, stored=battery.capacity * part) if battery else state

    initial_state._aged = aged
    try:
        yield
    finally:
        initial_state._aged = born


async def run(options: argparse.Namespace, directory: Path) -> bool:
    clock, costs = FakeClock(BEGIN - timedelta(seconds=2 * options.upload)), Costs()
    clouds = Clouds(options, clock, costs)
    bench = Bench(directory, CONTROL, clock)
    bench.dispatcher.use({"sky": clouds})
    day = Day(options, bench, clouds, costs)
    async with bench:
        settings = FleetSettings.model_validate({"members": {"devices": ["*"]}, "share": options.share})
        runner = bench.run(steering.Fleet, settings, FLEET)
        bench.dispatcher.use({"sky": clouds, FLEET: runner.bridge})
        for device in clouds.announced():
            bench.router.good_once.add(device.serial, clock.now())
            bench.router.announce("sky", device)
        uploading = asyncio.create_task(day.upload())
        await asyncio.sleep((BEGIN - clock.now()).total_seconds())
        before = clouds.charges()
        print(
            f"{len(clouds.devices)} inverters, {clouds.rated / 1e6:.1f} MW, {len(before)} batteries of "
            f"{clouds.most / 1e6:.1f} MW; share {options.share}, faults of row {options.row}"
        )
        print("| slot, UTC | target, MW | power, MW | error, % | end | out | writes | SoC, % | s |\n|" + "---|" * 9)
        costs.began, costs.simulator = time.process_time(), 0.0
        await day.run()
        uploading.cancel()
        return await summary(day, before, clouds.charges())


async def summary(day: Day, before: Sequence[float], after: Sequence[float]) -> bool:
    options, clouds = day.options, day.clouds
    count = round(SLOT / options.every)
    targets = day.wanted[::count]
    errors = sorted(
        abs(power - target) / max(abs(target), SMALL * clouds.rated) * 100
        for slot, target in enumerate(targets)
        for power in day.settled(slot)
    )
    ends: Counter[str] = Counter()
    for id_ in day.ids:
        steps = await day.bench.dispatcher.steps(id_)
        final = [step for step in steps if step.state.final and not step.correction]
        ends[final[0].detail.split(":")[0] if len(final) == 1 else f"{len(final)} ends"] += 1
    writes, hours = clouds.writes(), options.every / 3600 / 1e6
    mean, p99 = statistics.fmean(errors), errors[int(0.99 * len(errors))]
    print(f"error after five minutes of a slot: mean {mean:.2f} %, p99 {p99:.2f} % of the target, "
          f"or of {SMALL:.0%} of the rated power where the target is less")  # fmt: skip
    print("ends: " + ", ".join(f"{number} {end}" for end, number in ends.most_common()))
    print(f"setpoints written a device: {max(writes)} at most, {statistics.fmean(writes):.0f} in the mean; "
          f"{clouds.orders} orders in all")  # fmt: skip
    print(f"energy: {sum(day.wanted) * hours:.1f} MWh asked, {sum(day.given) * hours:.1f} given")
    print(f"states of charge: {statistics.fmean(before):.0f} % ± {statistics.pstdev(before):.1f} at the beginning, "
          f"{statistics.fmean(after):.0f} % ± {statistics.pstdev(after):.1f} at the end")  # fmt: skip
    cpu = day.costs.gateway
    print(f"CPU: {cpu:.0f} s of the gateway's core ({cpu / options.slots / SLOT:.3f} of one), "
          f"{day.costs.simulator:.0f} s of the simulator; load of the machine {os.getloadavg()[1]:.0f}")  # fmt: skip
    if options.pictures:
        from picture import draw_day  # noqa: PLC0415 - only here its library is needed

        title = f"{options.inverters} inverters, one day, a target every 15 minutes"
        draw_day(options.pictures / "fleet-day.svg", title, day.wanted, day.given, day.available, options.every)
    fell = statistics.pstdev(after) < statistics.pstdev(before) or options.share != "soc"
    return max(writes) <= 100 and fell and not any(end.endswith(" ends") for end in ends)


def main() -> None:
    parser = argparse.ArgumentParser(description="one simulated day of a fleet")
    parser.add_argument("--inverters", type=int, default=10_000)
    parser.add_argument("--per-plant", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--row", type=int, choices=FAULTS, default=1, help="faults as in run.py; 0: none")
    parser.add_argument("--share", default="soc", help="headroom, rating, soc or equal")
    parser.add_argument("--upload", type=float, default=60, help="seconds between what a plant uploads")
    parser.add_argument("--every", type=float, default=150, help="seconds between looks at the truth")
    parser.add_argument("--look", type=float, default=TICK, help="seconds between the fleet's own looks; 5 elsewhere")
    parser.add_argument("--slots", type=int, default=SLOTS, help="fewer than a day's")
    parser.add_argument("--pictures", type=Path, help="folder for the picture")
    options = parser.parse_args()
    configure(LogSettings(level="warning"))
    steering.LOOK = options.look
    print(f"{datetime.now().astimezone():%Y-%m-%d %H:%M}: {' '.join(sys.argv)}")
    with tempfile.TemporaryDirectory() as name, unlike(*UNLIKE), asyncio.Runner(loop_factory=VirtualLoop) as runner:
        sys.exit(not runner.run(run(options, Path(name))))


if __name__ == "__main__":
    main()
