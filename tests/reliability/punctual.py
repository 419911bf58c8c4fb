"""Thousands of dead-man's timers over a fleet, while the gateway is killed and the cloud fails: how late they fire.

Each life of the gateway gets new commands with timers, on setpoints that have had no command for a while; some run out
in that life, some while nobody is there, some in a later one.
"""

import random
import time
from dataclasses import dataclass, field
from itertools import cycle, islice

from gateway.simulator.fleet import make_fleet
from tests.kit.process import eventually
from tests.reliability import streams
from tests.reliability.checker import reconcile
from tests.reliability.crashes import CONTROL, FAULTS, Report
from tests.reliability.lateness import lateness
from tests.reliability.records import save
from tests.reliability.rig import Rig

SETPOINTS = ("export_limit", "active_power_limit")
AFTER = (8.0, 25.0)
"""Seconds until a timer runs out, from when its command was sent."""
PATIENCE = 20.0
"""Seconds."""
REST = 400
"""Seconds in which the last ones are to have fired, each tried again after a minute where the cloud did not do it."""


@dataclass
class Fleet:
    """Plants beside the default three, so many devices each: with 100 timers a life, a lane rests for four lives."""

    plants: int = 4
    devices: int = 50
    lanes: list = field(default_factory=list)

    def __post_init__(self):
        made_up = make_fleet(3 + self.plants, devices_per_plant=self.devices)[3:]
        self.lanes = [
            (device.serial, setpoint) for setpoint in SETPOINTS for plant in made_up for device in plant.devices
        ]

    @property
    def serials(self):
        return {serial for serial, _ in self.lanes}

    @property
    def settings(self):
        """Of the simulator."""
        return {"plants": 3 + self.plants, "devices_per_plant": self.devices}


def punctual(directory, *, seed, kills, timers, fleet=None, faults=True, tell=lambda _: None):
    """Kill `kills` times under `timers` commands with a timer, let it come to rest; returns the report."""
    begun = time.monotonic()
    fleet = fleet or Fleet()
    rig = Rig(directory, devices=fleet.serials, poll=60, modbus=False)
    dice = random.Random(seed)
    report = Report(seed)
    with rig.surroundings(**fleet.settings):
        speaker = streams.Mqtt(rig, streams.Values(), seed, 1)
        speaker.open()
        try:
            lanes = cycle(dice.sample(fleet.lanes, len(fleet.lanes)))
            said = dict.fromkeys(fleet.lanes, 0)
            for life in range(kills):
                each = timers * (life + 1) // kills - timers * life // kills
                _one_life(rig, dice, report, speaker, list(islice(lanes, each)), said, faults=faults)
                tell(report)
            rig.spoil(clear=True)
            rig.start()
            rig.wait_until_ready()
            eventually(
                lambda: not rig.timers() and not rig.unended(), REST, lambda: f"left: {rig.timers()} {rig.unended()}"
            )
            rig.stop()
            rig.watcher.settle()
        finally:
            speaker.close()
            (rig.directory / "gateway.log").write_text("\n".join(rig.logs) + "\n")
        records = rig.records()
    save(records, rig.directory / "records.json")
    report.said = sum(said.values())
    report.verdict, report.lateness = reconcile(records), lateness(records)
    report.seconds = time.monotonic() - begun
    return report


def _one_life(rig, dice, report, speaker, lanes, said, *, faults):
    rig.spoil(clear=True)
    rig.start()
    rig.wait_until_ready()
    spread = dice.uniform(2.0, 5.0)
    name = dice.choice(sorted(FAULTS)) if faults and dice.random() < 0.4 else None
    strikes = dice.randrange(len(lanes)) if name and lanes else None
    for number, lane in enumerate(lanes):
        if number == strikes:
            rig.spoil(answers=[{"interfaces": CONTROL} | FAULTS[name] | {"times": dice.randint(1, 10)}])
            report.faults[name] += 1
        said[lane] += 1
        value = 2.0 * said[lane]
        speaker.command(lane, value, ttl=60, revert_after=dice.uniform(*AFTER), revert_value=value + 1)
        streams.wait(spread / len(lanes))
    # Most lives last until nearly all is done, however busy the machine; the others are cut off in the midst of it.
    left = dice.randint(0, len(lanes) // 10) if dice.random() < 0.8 else len(lanes)
    until = time.monotonic() + PATIENCE
    while len(rig.unended()) > left and time.monotonic() < until:
        streams.wait(0.5)
    streams.wait(dice.uniform(0.0, 2.0))
    rig.kill()
    report.kills += 1
    streams.wait(dice.choice((0, 0, 0.5, 2.0)))
