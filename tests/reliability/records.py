"""What three witnesses have written down, in types of their own: nothing here is the gateway's code.

The journal is read as the file it is, with sqlite3; the cloud's record over HTTP; the subscriber's as it came.
"""

import json
import sqlite3
from contextlib import closing
from dataclasses import asdict, dataclass, field
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
class Arrived:
    """A call for a setpoint that came in at the cloud, whatever became of it."""

    asked: float
    """POSIX seconds."""
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
    calls: list[Arrived] = field(default_factory=list)
    published: list[Published] = field(default_factory=list)
    promised: list[Promised] = field(default_factory=list)
    in_force: dict[tuple[str, str], object] = field(default_factory=dict)
    """Serial and setpoint → what the device has at the end."""
    lives: list[list[float | None]] = field(default_factory=list)
    """Of each gateway: when it was up, None where it never was, and when it ended. POSIX seconds."""
    troubles: list[list[float]] = field(default_factory=list)
    """From when to when the cloud was spoilt on purpose."""


def save(records, path):
    """Write them to a file, to be judged again."""
    plain = asdict(records)
    plain["audit"] = [[*row[:-1], row[-1].hex()] for row in records.audit]
    plain["in_force"] = [[*lane, value] for lane, value in records.in_force.items()]
    path.write_text(json.dumps(plain, ensure_ascii=False))


def load(path):
    """Return what `save` wrote."""
    plain = json.loads(path.read_text())
    journal = plain["journal"]
    for command in journal.values():
        command["steps"] = [Step(**step) for step in command["steps"]]
    return Records(
        journal={id_: Journaled(**command) for id_, command in journal.items()},
        audit=[(*row[:-1], bytes.fromhex(row[-1])) for row in plain["audit"]],
        executed=[Executed(**action) for action in plain["executed"]],
        calls=[Arrived(**call) for call in plain["calls"]],
        published=[Published(**message) for message in plain["published"]],
        promised=[Promised(**promise) for promise in plain["promised"]],
        in_force={(serial, setpoint): value for serial, setpoint, value in plain["in_force"]},
        lives=plain["lives"],
        troubles=plain["troubles"],
    )


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


CALLS = {
    "SetExportLimit": ("export_limit", "ExportLimit"),
    "SetActivePowerLimit": ("active_power_limit", "ActivePowerLimit"),
}
"""Interface → setpoint, and the field that holds its value; `InverterSN` holds the device."""


def read_calls(calls):
    """From what `/sim/calls` says, oldest first."""
    found = []
    for call in calls:
        if call["interface"] in CALLS:
            setpoint, field_ = CALLS[call["interface"]]
            params = call["params"]
            found.append(Arrived(posix(call["time"]), params["InverterSN"], setpoint, float(params[field_])))
    return found


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
