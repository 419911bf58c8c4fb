"""What three witnesses have written down, in types of their own: nothing here is the gateway's code.

The journal is read as the file it is, with sqlite3; the cloud's record over HTTP; the subscriber's as it came.
"""

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime

FINAL = {"succeeded", "failed", "unknown", "expired", "superseded"}
STATES = FINAL | {"accepted", "sent", "rejected"}
AUDIT = "seq, time, state, serial, setpoint, value, reason, origin, detail, id, verified, correction"


@dataclass(frozen=True)
class Step:
    """One row of the journal."""

    seq: int
    state: str
    time: float
    """POSIX seconds, by the gateway's wall clock."""
    detail: str = ""
    correction: bool = False


@dataclass
class Journaled:
    """A command as the journal has it."""

    id: str
    serial: str
    setpoint: str
    value: object
    origin: str
    expires: float
    revert_after: float | None = None
    revert_value: object = None
    steps: list[Step] = field(default_factory=list)

    @property
    def lane(self):
        return self.serial, self.setpoint

    @property
    def path(self):
        return [step.state for step in self.steps if not step.correction]

    def at(self, state):
        """The step of that name, or None."""
        return next((step for step in self.steps if step.state == state and not step.correction), None)

    @property
    def end(self):
        return self.path[-1] if self.path and self.path[-1] in FINAL else None


@dataclass(frozen=True)
class Executed:
    """A setpoint that a device was told, by the simulator's own record."""

    number: int
    """Place in the order in which devices did things."""
    asked: float
    """POSIX seconds: when the call came in."""
    serial: str
    setpoint: str
    value: object

    @property
    def lane(self):
        return self.serial, self.setpoint


@dataclass(frozen=True)
class Published:
    """A message at a result topic."""

    id: str | None
    serial: str
    setpoint: str | None
    value: object
    state: str


@dataclass(frozen=True)
class Promised:
    """A client was told that its wish is accepted."""

    by: str
    serial: str
    setpoint: str
    value: object
    id: str | None = None
    """None where the protocol has none, as Modbus."""


@dataclass
class Records:
    """All that there is to go by."""

    journal: dict[str, Journaled] = field(default_factory=dict)
    audit: list[tuple] = field(default_factory=list)
    """The audit's rows with their hashes, as they stand in the file."""
    executed: list[Executed] = field(default_factory=list)
    published: list[Published] = field(default_factory=list)
    promised: list[Promised] = field(default_factory=list)
    in_force: dict[tuple[str, str], object] = field(default_factory=dict)
    """Serial and setpoint → what the device has at the end."""


def read_journal(path):
    """Return the commands by id, and the audit's rows as the file has them. Reads beside a running gateway."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as database:
        database.execute("BEGIN")
        rows = database.execute(f"SELECT {AUDIT}, hash FROM audit ORDER BY seq").fetchall()
        made = [_command(json.loads(body)) for (body,) in database.execute("SELECT body FROM command")]
    commands = {command.id: command for command in made}
    for seq, time, state, *_, detail, id_, _, correction, _ in rows:
        if state in STATES and state != "rejected":
            commands[id_].steps.append(Step(seq, state, posix(time), detail, bool(correction)))
    return commands, rows


def read_timers(path):
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as database:
        return database.execute("SELECT serial, setpoint, due FROM revert").fetchall()


def _command(body):
    return Journaled(
        id=body["id"],
        serial=body["serial"],
        setpoint=body["setpoint"],
        value=body["value"],
        origin=body["origin"],
        expires=posix(body["expires"]),
        revert_after=body["revert_after"],
        revert_value=body["revert_value"],
    )


def read_executed(controls):
    """From what `/sim/controls` says, oldest first."""
    return [
        Executed(number, posix(control["asked"]), control["serial"], setpoint, value)
        for number, control in enumerate(controls)
        for setpoint, value in control["setpoints"].items()
    ]


def read_in_force(state):
    """From what `/sim/state` says."""
    return {
        (device["serial"], setpoint): value
        for plant in state["plants"]
        for device in plant["devices"]
        for setpoint, value in device["setpoints"].items()
    }


def read_published(payloads):
    """From the payloads of result topics, in the order in which they came."""
    return [
        Published(body["id"], body["serial"], body["setpoint"], body["value"], body["state"])
        for body in map(json.loads, payloads)
    ]


def posix(text):
    return datetime.fromisoformat(text).timestamp()
