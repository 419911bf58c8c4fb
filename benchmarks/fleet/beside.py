# ruff: noqa: D103, INP001, T201 - part of a script
"""The cases on which others' rules were looked at, and what each gives: ours beside OpenEMS, equal shares and frequenz.

OpenEMS' figures are those of its source; its Java is not run here. frequenz-sdk runs in an environment of its own, for
it wants other versions than we do: `python3 -m venv /tmp/frequenz; /tmp/frequenz/bin/pip install frequenz-sdk`.
"""

import json
import random
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from gateway.steering.fleet.allocation import Member, allocate

CASES: Final[Sequence[Mapping[str, Any]]] = (
    {"asked": 15_000, "most": [3_000, 10_000, 10_000], "least": [0, 0, 0], "OpenEMS": 13_000},
    {"asked": 4_000, "most": [10_000, 10_000, 10_000], "least": [3_000, 0, 0], "OpenEMS": 4_330},
)
"""W. OpenEMS: of its PvInverterCluster, and of its TreeSolver."""

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
    for n, (high, low) in enumerate(zip(case["most"], case["least"])):
        battery = filled(BatteryData, component_id=2 * n + 1, soc=50.0, soc_lower_bound=10.0, soc_upper_bound=90.0,
                         capacity=10_000.0, **bounds("power", high, low))
        inverter = filled(InverterData, component_id=2 * n + 2, **bounds("active_power", high, low))
        pairs.append(InvBatPair(battery, inverter))
    found.append(sum(DistributionAlgorithm().distribute_power(case["asked"], pairs).distribution.values()))
print(json.dumps({"version": version("frequenz-sdk"), "powers": found}))
"""


def show(frequenz: str | None) -> None:
    theirs: dict[str, Any] = {"version": "not run", "powers": [None] * len(CASES)}
    if frequenz:
        ran = subprocess.run([frequenz, "-c", FREQUENZ, json.dumps(CASES)], check=True, stdout=subprocess.PIPE)  # noqa: S603
        theirs = json.loads(ran.stdout)
    print(f"| at most, at least, kW | asked | ours | equal share | OpenEMS | frequenz-sdk {theirs['version']} |")
    print("|---|---|---|---|---|---|")
    for case, other in zip(CASES, theirs["powers"], strict=True):
        most, least, asked = case["most"], case["least"], case["asked"]
        members = [Member(0.0, float(m), minimum=float(low)) for m, low in zip(most, least, strict=True)]
        parts = [min(asked / len(most), m) for m in most]
        equal = sum(max(part, low) for part, low in zip(parts, least, strict=True))
        powers = (asked, sum(allocate(asked, members).powers), equal, case["OpenEMS"], other)
        kw = " | ".join("" if power is None else f"{power / 1000:.2f}" for power in powers)
        print(f"| {'/'.join(f'{m / 1000:g}' for m in most)}, {'/'.join(f'{m / 1000:g}' for m in least)} | {kw} |")
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
