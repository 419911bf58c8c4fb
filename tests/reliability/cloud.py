"""A simulated SEMS as a process of its own, with a memory that holds a whole run."""

import asyncio
import json
import sys

from rich.console import Console

from gateway.simulator.command import simulate_until_signal
from gateway.simulator.settings import SimulatorSettings

MEMORY = 2_000_000


def main(port, **more):
    usual = {
        "calls_per_hour": 0,
        "developer_calls_per_hour": 0,
        "device_delay": 0,
        "calls_remembered": MEMORY,
        "start": "2026-06-21T10:00:00",
    }
    settings = SimulatorSettings(port=port, **(usual | more))
    asyncio.run(simulate_until_signal(settings, Console(soft_wrap=True)))


if __name__ == "__main__":
    main(int(sys.argv[1]), **json.loads(sys.argv[2]))
