"""The journal's rows: values changed in a copy of a small one; then a whole core starts over it, and it is audited."""

import json
import random
import shutil
import sqlite3
from contextlib import asynccontextmanager, closing
from itertools import count

from gateway.core.model import CommandState
from gateway.journal import writes
from gateway.journal.chain import AuditReader
from gateway.journal.file import JournalError
from gateway.journal.journal import Revert
from tests.fuzz import dice as change
from tests.fuzz.core import Core
from tests.fuzz.target import Target
from tests.kit.bench import INVERTER
from tests.kit.clock import NOON, FakeClock
from tests.kit.journal import event

COLUMNS = {
    "command": ("id", "body", "state", "controller", "receipt", "serial", "outcome", "boot_id", "boot"),
    "revert": ("serial", "setpoint", "value", "due", "boot_id", "boot"),
    "setting": ("serial", "setpoint", "wish", "value", "time", "boot_id", "boot", "succeeded", "certain",
                "confirmed", "command", "ends"),
    "writes": ("serial", "setpoint", "life", "day", "today"),
    "audit": ("seq", "time", "id", "serial", "setpoint", "value", "reason", "origin", "state", "detail",
              "verified", "correction", "hash"),
}  # fmt: skip
WORDS = ["accepted", "sent", "succeeded", "unknown", "cut", "recovered", "halted"]


def make_rows(dice):
    """A list of changes: table, column, which row, what is put there; `{"bytes": …}` for a BLOB of a text's bytes."""
    changes = []
    for _ in range(dice.choice((1, 1, 2, 4))):
        table = dice.choice(list(COLUMNS))
        new = dice.choice(WORDS) if dice.random() < 0.2 else change.value(dice)
        new = new if isinstance(new, (str, int, float, type(None))) else json.dumps(new)
        kind = dice.choice(("plain", "bytes", "mend"))
        changes.append([table, dice.choice(COLUMNS[table]), dice.randrange(12), kind, new, dice.randrange(2**30)])
    return json.dumps(changes).encode()


async def written(directory):
    """Leave a journal with commands in each state, timers, settings and counts."""
    async with Core(directory, clock=FakeClock()) as it:
        it.announce()
        it.publish(ac_power=1.0)
        it.controller.gate.clear()
        for number, setpoint in enumerate(("active_power_limit", "running", "battery_target_soc")):
            command = it.command(setpoint, True if setpoint == "running" else 50)
            await it.journal.record(event(command))
            if number:
                await it.journal.record(event(command, CommandState.SENT))
                await it.journal.write(writes.handing_to("scripted", [command], NOON, "r"))
        ended = it.command()
        await it.journal.record(event(ended))
        await it.journal.record(event(ended, CommandState.SUCCEEDED))
        await it.journal.write(writes.arm(Revert(INVERTER.serial, "running", True, NOON)))


@asynccontextmanager
async def open_journal(directory):
    home = directory / "good"
    home.mkdir()
    await written(home)
    number = count()

    async def feed(data):
        place = directory / str(next(number))
        shutil.copytree(home, place)
        try:
            spoil(place / "journal.sqlite", json.loads(data))
            async with Core(place, clock=FakeClock()) as it:
                it.announce()
                await it.journal.unpublished()
                await it.journal.history("x")
            with AuditReader(place / "journal.sqlite") as reader:
                list(reader.walk())
        finally:
            shutil.rmtree(place)

    yield feed


def spoil(path, changes):
    with closing(sqlite3.connect(path)) as db:
        stands = db.execute("SELECT sql FROM sqlite_master WHERE name = 'audit_stands'").fetchone()[0]
        db.execute("DROP TRIGGER audit_stands")
        for table, column, row, kind, new, seed in changes:
            key = "seq" if table == "audit" else "id" if table == "command" else "serial || setpoint"
            order = f"SELECT {key}, {column} FROM {table} ORDER BY 1 LIMIT 1 OFFSET ?"
            all_ = db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            found = db.execute(order, (row % max(1, all_),)).fetchone()
            if found is None:
                continue
            value = changed(found[1], kind, new, seed)
            try:
                db.execute(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", (value, found[0]))
            except (sqlite3.Error, OverflowError, UnicodeError):
                continue
        db.execute(stands)
        db.commit()


def changed(old, kind, new, seed):
    """Return what comes in an old value's place: another, its bytes, or itself with some bytes changed."""
    if kind == "mend" and isinstance(old, (str, bytes)):
        raw = change.raw(random.Random(seed), old if isinstance(old, bytes) else old.encode())
        return raw if isinstance(old, bytes) else raw.decode("utf-8", "replace")
    return str(new).encode("utf-8", "surrogatepass") if kind == "bytes" else new


TARGETS = [
    Target("journal", "the journal's rows: a start over them, and the audit", make_rows, open_journal, (JournalError,),
           quick=20),
]  # fmt: skip
