# ruff: noqa: E501 - samples are tables, and read best a row a line
"""Files of `data_dir`, and those that a person writes: the configuration and a register map of one's own."""

import json
from contextlib import asynccontextmanager

import httpx
import structlog

from gateway.api.registry import installed
from gateway.bridges.modbus.units import UnitBook, UnitsError
from gateway.bridges.mqtt.home_assistant.memory import kept_file
from gateway.bridges.mqtt.sparkplug.session import BirthDeath
from gateway.bridges.open_api.gaps.book import Book
from gateway.bridges.realtime.licence import Licence
from gateway.bridges.realtime.roster import Roster
from gateway.commands.policy.halt import Halting
from gateway.config.document import ConfigError
from gateway.core import good_once
from gateway.core.alarms import Alarms
from gateway.core.good_once import GoodOnce
from gateway.journal.head import HeadFile
from gateway.run.settings import Config
from gateway.sems import exchange
from gateway.sems.account_times import AccountTimes
from gateway.sems.budget import Budget
from gateway.sems.catalogue import load
from gateway.sems.ledger import Ledger
from gateway.sems.listed import Listed
from gateway.sems.session import Credentials, Session
from tests.bridges.open_api.kit import Desk
from tests.fuzz import dice as change
from tests.fuzz.target import Target
from tests.kit.process import ROOT
from tests.sems.kit import Clock

NOW = "2026-06-21T12:00:00Z"
SN = "9010KETU000W0001"
LOG = structlog.get_logger("fuzz")


async def _session(path, clock):
    session = Session(load("open_api"), "http://sems", Credentials("me", "x"), path, clock, Budget(100, clock))
    await session.start()
    await session.stop()


async def _halting(path, clock):
    async def note(_):
        pass

    Halting(clock, path, note).load()


async def _book(path, _):
    book = Book(path, list, LOG)
    await book.open()
    await book.close()


async def _times(path, clock):
    desk = Desk(clock)
    desk.data_dir = path.parent
    path.replace(path.parent / "sems-times.json")
    AccountTimes(desk).restore()


def sync(work):
    async def done(path, clock):
        work(path, clock)

    return done


def _alarms(path, clock):
    path.replace(path.parent / "alarms.json")
    Alarms(clock, lambda _: None).restore(path.parent, ["sems"])


def _good_once(path, _):
    path.replace(path.parent / good_once.FILE)
    GoodOnce().restore(path.parent)


def _roster(path, clock):
    roster = Roster(path, {}, clock, LOG)
    roster.restore()
    roster.read()


def _ledger(path, _):
    ledger = Ledger(path, "b")
    ledger._users(ledger._read(2.0), 2.0)


ALARM = {"serial": SN, "id": "1", "code": "c", "text": "t", "severity": "fault", "raised": NOW, "cleared": None}
FILES = {
    "halt": (_halting, {"version": 1, "by": "cli:me", "reason": "x", "since": NOW}),
    "devices": (sync(_good_once), {"version": 1, "devices": {SN: NOW}}),
    "units": (sync(lambda path, _: UnitBook(path, {}).load()), {"version": 1, "units": {SN: 1, "x": 2}, "ports": {SN: 1}}),
    "alarms": (sync(_alarms), {"version": 1, "active": [{"alarm": ALARM, "says": {"sems": NOW}}]}),
    "token": (_session, {"fingerprint": "x", "token": "t", "expires": NOW, "refusals": 3, "no_login_before": NOW}),
    "times": (_times, {"order": "day_first", "evidence": "13/11/2026", "offsets": {"UTC+10": 3600, SN: -60}}),
    "numbers": (sync(_roster), {"types": {SN: "inverter"}, "refused": {SN: {"code": "x", "until": NOW, "count": 2}}}),
    "licence": (sync(lambda path, clock: Licence(path, clock, LOG)), {"refusals": 2, "next": NOW}),
    "calls": (sync(_ledger), {"boot": "b", "at": 1.0, "users": {"me": [[1.0, 2]]}, "held": None}),
    "home-assistant": (sync(lambda path, _: kept_file(path, LOG).read()),
                       {SN: {"topic": "t", "root": "r", "serial": SN, "entity": "e", "components": {"a": "b"}}}),
    "sparkplug": (sync(lambda path, _: BirthDeath(path, "g/n", LOG).next()), {"bd_seq": {"g/n": 3}}),
    "listed": (sync(lambda path, _: Listed(path, LOG).restore()), {"version": 1, "serials": [SN]}),
    "gaps": (_book, [SN, "minutes", 1.0, 2.0]),
    "head": (sync(lambda path, _: HeadFile(path.with_suffix("")).read()), "0000000000000000001:" + "ab" * 32),
}  # fmt: skip
"""Name → what reads it at a start, and what stands in it."""


def make_file(dice):
    name = dice.choice(list(FILES))
    return name.encode() + b"\n" + change.json_of(dice, FILES[name][1])


@asynccontextmanager
async def open_files(directory):
    clock, before = Clock(), exchange.client
    exchange.client = lambda *_, **__: httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(500)))

    async def feed(data):
        name, _, content = data.partition(b"\n")
        read, _ = FILES[name.decode()]
        path = directory / name.decode()
        path.write_bytes(content)
        await read(path, clock)

    try:
        yield feed
    finally:
        exchange.client = before


CONFIG = (ROOT / "config.example.yaml").read_text()
SMALL = """\
gateway: {id: one, data_dir: data}
log: {level: info}
bridges:
  sems: {type: open_api, account: a@example.com, password: {env: HOME}, url: "https://eu.example.com", poll_interval: 60}
  mqtt: {type: mqtt, host: broker, port: 1883, users: [me], base: sems}
  modbus: {type: modbus, host: 127.0.0.1, port: 5020, units: {"9010KETU000W0001": 3}}
  push: {type: push, secret: abcdefghijklmnopqrstuvwx}
control:
  enabled: true
  allow:
    - {devices: ["*"], setpoints: [active_power_limit], min: 20, max: 100, origins: [mqtt]}
"""


def make_config(dice):
    text = dice.choice((CONFIG, SMALL, SMALL, SMALL))
    if dice.random() < 0.5:
        return change.raw(dice, text.encode())
    lines = text.splitlines(keepends=True)
    for _ in range(dice.choice((1, 2, 3))):
        at = dice.randrange(len(lines))
        match dice.randrange(5):
            case 0:
                del lines[at : at + 1]
            case 1:
                lines[at] = "  " + lines[at]
            case 2:
                key, colon, _ = lines[at].partition(":")
                lines[at] = f"{key}{colon} {json.dumps(change.value(dice))}\n"
            case 3:
                lines.insert(at, dice.choice(lines) if lines else "x: 1\n")
            case _:
                lines[at] = change.text(dice, lines[at])
        lines = lines or ["x"]
    return "".join(lines).encode("utf-8", "surrogatepass")


@asynccontextmanager
async def open_config(directory):
    registry = installed()

    async def feed(data):
        path = directory / "config.yaml"
        path.write_bytes(data)
        Config.load(path, registry)

    yield feed


TARGETS = [
    Target("files", "files of data_dir, as a start reads them", make_file, open_files, (UnitsError,)),
    Target(
        "config", "the configuration loader", make_config, open_config, (ConfigError,), quick=40, stall=5.0
    ),  # a person's own file, read before anything runs,
]
