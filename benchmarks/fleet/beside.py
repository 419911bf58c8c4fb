# ruff: noqa: D103, INP001, T201 - part of a script
"""The cases on which others' rules were looked at, and what each gives: ours beside equal shares, OpenEMS and frequenz.

    python benchmarks/fleet/beside.py [--frequenz PYTHON] [--openems FOLDER] [--java JAVA]

Theirs run as they are, outside of our environment. frequenz-sdk needs a Python of its own, for it wants other versions
than we do. Of OpenEMS a checkout is compiled, with what `openems/pom.xml` names; `openems/Beside.java` calls it.
"""

import argparse
import json
import random
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from gateway.steering.fleet.allocation import Member, allocate

RESERVE: Final = 10
"""% of charge below which no battery is discharged."""


class Case(msgspec.Struct, frozen=True):
    """What is asked of whom, in W. Bounds have no sign: they are of the direction that is asked for."""

    asked: int
    most: Sequence[int]
    least: Sequence[int]
    """A member gives nothing, or at least this."""
    soc: Sequence[int]
    """%, of batteries of 10 kWh."""
    step: int = 0

    def __str__(self) -> str:
        text = f"{_kw(self.asked)} of {_kws(self.most)}"
        if any(self.least):
            text += f", at least {_kws(self.least)}"
        if len(set(self.soc)) > 1:
            text += f", at {'/'.join(map(str, self.soc))} %"
        return text + (f", steps of {_kw(self.step)}" if self.step else "")


CASES: Final = (
    Case(15_000, [3_000, 10_000, 10_000], [0, 0, 0], [50, 50, 50]),
    Case(4_000, [10_000, 10_000, 10_000], [3_000, 0, 0], [50, 50, 50]),
    Case(12_000, [10_000, 10_000, 10_000], [0, 0, 0], [90, 50, 20]),
    Case(15_000, [3_000, 10_000, 10_000], [0, 0, 0], [90, 50, 20]),
    Case(-15_000, [3_000, 10_000, 10_000], [0, 0, 0], [20, 50, 80]),
    Case(2_800, [50_000] * 4, [0] * 4, [50] * 4, step=500),
)

FREQUENZ: Final = """
import json, sys
from dataclasses import fields
from importlib.metadata import version
from frequenz.sdk.actor.power_distributing._distribution_algorithm import DistributionAlgorithm, InvBatPair
from frequenz.sdk.microgrid.component import BatteryData, InverterData

def filled(kind, **values):
    made = kind.__new__(kind)
    for field in fields(kind):
        object.__setattr__(made, field.name, values.get(field.name, 0.0))
    return made

def bounds(start, high, low):
    return {f"{start}_inclusion_lower_bound": -high, f"{start}_exclusion_lower_bound": -low,
            f"{start}_inclusion_upper_bound": high, f"{start}_exclusion_upper_bound": low}

found = []
for case in json.loads(sys.argv[1]):
    pairs = []
    for n, (high, low, soc) in enumerate(zip(case["most"], case["least"], case["soc"])):
        battery = filled(BatteryData, component_id=2 * n + 1, soc=soc, soc_lower_bound=10.0, soc_upper_bound=100.0,
                         capacity=10_000.0, **bounds("power", high, low))
        inverter = filled(InverterData, component_id=2 * n + 2, **bounds("active_power", high, low))
        pairs.append(InvBatPair(battery, inverter))
    shares = DistributionAlgorithm().distribute_power(-case["asked"], pairs).distribution  # > 0 charges there
    found.append([-shares.get(pair.inverter.component_id, 0.0) for pair in pairs])
print(json.dumps({"version": version("frequenz-sdk"), "powers": found}))
"""

# Of a checkout of OpenEMS: its sources and those of the tests, whose configurations and dummies are used.
OPENEMS: Final = (
    *(f"io.openems.{name}/src" for name in ("common", "edge.common", "edge.meter.api", "edge.ess.api")),
    *(f"io.openems.edge.{name}/src" for name in ("pvinverter.api", "pvinverter.cluster", "ess.core")),
    *(f"io.openems.edge.{name}/test" for name in ("pvinverter.cluster", "ess.core")),
)


def _ours(case: Case) -> list[float]:
    """Share out as a fleet does, by energy where states of charge differ and else evenly."""
    room = [soc - RESERVE if case.asked > 0 else 100 - soc for soc in case.soc]
    bounds = zip(case.most, case.least, room, strict=True)
    if case.asked > 0:
        members = [Member(0.0, high, weight, step=case.step, minimum=low) for high, low, weight in bounds]
    else:
        members = [Member(-high, 0.0, weight, step=case.step, minimum=low) for high, low, weight in bounds]
    return allocate(case.asked, members).powers


def _equal(case: Case) -> list[float]:
    part, sign = abs(case.asked) / len(case.most), 1 if case.asked > 0 else -1
    return [sign * max(min(part, high), low) for high, low in zip(case.most, case.least, strict=True)]


def _frequenz(python: str) -> dict[str, Sequence[Sequence[float] | None]]:
    found = json.loads(_printed(python, "-c", FREQUENZ, _cases()))
    return {f"frequenz-sdk {found['version']}": found["powers"]}


def _openems(sources: Path, java: str) -> dict[str, Sequence[Sequence[float] | None]]:
    here = Path(__file__).parent / "openems"
    path = ":".join(str(sources / folder) for folder in OPENEMS)
    with tempfile.TemporaryDirectory() as name:
        _printed(
            "mvn", "-q", "-B", "-f", str(here / "pom.xml"), "dependency:copy-dependencies", f"-DoutputDirectory={name}"
        )
        jars = ":".join(map(str, Path(name).glob("*.jar")))
        compiler = (java, "-cp", jars, "org.eclipse.jdt.internal.compiler.batch.Main", "-21", "-nowarn", "-proc:none")
        _printed(*compiler, "-cp", jars, "-sourcepath", path, "-d", name, str(here / "Beside.java"))
        told = _printed(java, "-cp", f"{name}:{jars}", "io.openems.edge.pvinverter.cluster.Beside", _cases())
    found = json.loads(told.splitlines()[-1])
    return {f"OpenEMS {found['version']} {rule}": powers for rule, powers in found["powers"].items()}


def _printed(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603


def _cases() -> str:
    return msgspec.json.encode(CASES).decode()


def _kw(power: float) -> str:
    return f"{round(power / 1000, 2) or 0:g}"


def _kws(powers: Sequence[float]) -> str:
    return "/".join(map(_kw, powers))


def _cell(case: Case, powers: Sequence[float] | None) -> str:
    if powers is None:
        return ""
    missed = abs(sum(powers) - case.asked) > max(case.step / 2, 5)
    return f"{_kws(powers)}{f' = {_kw(sum(powers))}' if missed else ''}"


def main() -> None:
    parser = argparse.ArgumentParser(description="what others' rules give beside ours")
    parser.add_argument("--frequenz", help="a Python that has frequenz-sdk")
    parser.add_argument("--openems", type=Path, help="a folder with OpenEMS' sources")
    parser.add_argument("--java", default="java", help="Java 21 or later, for --openems")
    options = parser.parse_args()
    found: dict[str, Sequence[Sequence[float] | None]] = {
        "ours": [_ours(case) for case in CASES], "equal share": [_equal(case) for case in CASES],
    }  # fmt: skip
    if options.openems:
        found |= _openems(options.openems, options.java)
    if options.frequenz:
        found |= _frequenz(options.frequenz)
    print(f"| kW | {' | '.join(map(str, CASES))} |\n{'| --- ' * (len(CASES) + 1)}|")
    for rule, shares in found.items():
        print(f"| {rule} | {' | '.join(_cell(*each) for each in zip(CASES, shares, strict=True))} |")
    print(f"\nAllocation to 10,000 members: {_took():.0f} ms of CPU at most, of 20 targets.")


def _took() -> float:
    """Return how long it takes to share out to 10,000, ms of this thread's CPU."""
    dice = random.Random(1)  # noqa: S311
    ratings = [dice.choice((3_600, 5_000, 10_000, 20_000, 50_000)) for _ in range(10_000)]
    members = [Member(0.0, r * dice.uniform(0.2, 1), weight=r, step=r / 100) for r in ratings]
    most, longest = sum(member.high for member in members), 0.0
    for n in range(20):
        began = time.thread_time()
        allocate(most * (n + 1) / 21, members)
        longest = max(longest, time.thread_time() - began)
    return longest * 1000


if __name__ == "__main__":
    main()
