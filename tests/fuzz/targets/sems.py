# ruff: noqa: E501 - samples are tables, and read best a row a line
"""What SEMS answers: over a real session, whose transport alone is made up, into readings; and into whole worlds."""

import asyncio
import json
from contextlib import asynccontextmanager
from datetime import datetime
from functools import cache
from zoneinfo import ZoneInfo

import httpx
import msgspec

from gateway.core.errors import GatewayError
from gateway.sems import exchange
from gateway.sems.budget import Budget
from gateway.sems.catalogue import Use, load
from gateway.sems.errors import understood
from gateway.sems.normalise import entries, has_list, read, samples
from gateway.sems.session import Credentials, Session
from gateway.sems.times import Dates
from gateway.sems.unknown_fields import UnknownFields
from tests.bridges.open_api import kit
from tests.bridges.realtime import kit as realtime
from tests.fuzz import dice as change
from tests.fuzz.target import Target
from tests.kit.clock import NOON
from tests.sems.kit import Clock, Notes
from tests.sems.test_recorded import FILES

APIS = ("open_api", "developer", "realtime")
ZONE = ZoneInfo("Europe/Berlin")
DAY = datetime(2026, 6, 21)  # noqa: DTZ001 - a local day of the plant
CYCLE = 2.0
"""Seconds of a world that an input is answered for."""
SERIAL, PLANT = "device0", "plant0"
ARGS = {
    "plant": PLANT, "plants": [PLANT], "serial": SERIAL, "serials": [SERIAL], "page": 1, "page_size": 100, "receipt": "r",
    "account": "a", "password_md5": "b", "day": NOON.date(), "start": NOON, "end": NOON, "types": [], "type": "inverter",
    "active_power_limit": 50.0, "running": True, "from": NOON, "to": NOON, "date": NOON.date(), "now": 0, "expires": 0,
}  # fmt: skip
STATUSES = [*[200] * 12, 201, 204, 301, 400, 401, 403, 404, 429, 500, 503]
HEADERS = [*[{}] * 12, {"Retry-After": "9" * 40}, {"Retry-After": "Wed, 32 Foo 2026"}, {"Date": "x" * 400}, {"Retry-After": "²"},
           {"Content-Encoding": "gzip"}, {"Content-Encoding": "gzip, gzip"}, {"Date": "Sun, 06 Nov 0000 99:49:37 GMT"}]  # fmt: skip


def args_of(interface):
    """Return arguments that an interface takes."""
    types = {"integer": 1, "number": 1, "list": [SERIAL], "local_time": NOON}
    return {
        row.arg: next(iter(row.options), types.get(row.type, ARGS.get(row.arg, "x")))
        for row in interface.request
        if row.arg
    }


@cache
def good(api):
    """Return interface → answers as they ought to be, `data` alone."""
    made = kit.MadeUp(api, Clock(), 10**9, kit.fleet(2, 6, ("inverter", "storage", "meter")))
    made.alarms = [{"alarm": "1", "serial": SERIAL, "time": NOON, "code": "E-1", "name": "Fan", "state": "active"}]
    found = {}
    for interface in made.catalogue.interfaces:
        args = {name: ARGS.get(name, "x") for name in interface.args}
        try:
            data = made._answer(interface, args)
        except (KeyError, TypeError, AttributeError):
            data = {}
        found[interface.name] = [data]
    for file in FILES:
        recorded = msgspec.json.decode(file.read_bytes())
        if recorded.get("api", "open_api") == api:
            found[recorded["interface"]].append(recorded["answer"]["data"])
    return found


def make_answer(api):
    def make(dice):
        catalogue = load(api)
        interface = dice.choice(catalogue.interfaces)
        data = dice.choice(good(api)[interface.name])
        if interface.use is Use.LOGIN:
            data = {"token": "t", "access_token": "t", "expires_in": 3600}
        envelope = catalogue.envelope
        whole = data if interface.bare else {envelope.code: catalogue.success[0], "msg": "", envelope.data: data}
        if dice.random() < 0.7 and not interface.bare:
            whole[envelope.data] = change.tree(dice, data, 2)
            body = json.dumps(whole).encode("utf-8", "surrogatepass")
        else:
            body = change.json_of(dice, whole)
        head = json.dumps([interface.name, dice.choice(STATUSES), dice.choice(HEADERS)])
        return head.encode() + b"\n" + body

    return make


class Line(httpx.AsyncBaseTransport):
    """Answers a call with what is set; the login well, unless that is what is set."""

    def __init__(self, catalogue):
        (login,) = catalogue.using(Use.LOGIN)
        self.login = catalogue.url_path(login)
        token = {"token": "t", "access_token": "t", "expires_in": 3600}
        envelope = catalogue.envelope
        self.entered = token if login.bare else {envelope.code: catalogue.success[0], envelope.data: token}
        self.path, self.status, self.headers, self.body = "", 200, {}, b""

    async def handle_async_request(self, request):
        if request.url.path == self.login and self.path != self.login:
            return httpx.Response(200, stream=httpx.ByteStream(json.dumps(self.entered).encode()))
        return httpx.Response(
            self.status,
            headers={name: said.encode() for name, said in self.headers.items()},
            stream=httpx.ByteStream(self.body),
        )


def opened(api):
    @asynccontextmanager
    async def open_(directory):
        catalogue, clock = load(api), Clock()
        line, before = Line(catalogue), exchange.client
        exchange.client = lambda *_, **__: httpx.AsyncClient(transport=line)
        notes = Notes()
        notes.find = lambda *_: None
        unknown, dates = UnknownFields(notes), Dates()

        async def feed(data):
            head, _, line.body = data.partition(b"\n")
            name, line.status, line.headers = json.loads(head)
            interface = catalogue.interface(name)
            line.path = catalogue.url_path(interface)
            budget = Budget(10**9, clock)
            session = Session(catalogue, "http://sems", Credentials("me", "x"), directory / "s.json", clock, budget)
            (directory / "s.json").unlink(missing_ok=True)
            await session.start()
            try:
                called = next(iter(catalogue.using(Use.LIVE))) if interface.use is Use.LOGIN else interface
                if called.method == "KAFKA":
                    return
                answer = await session.call(called.name, args_of(called))
            finally:
                await session.stop()
            with understood(name):
                unknown.look(called, answer)
                has_list(called, answer)
                for entry in entries(called, answer):
                    read(called, entry, ZONE, NOON, DAY, dates=dates)
                samples(called, answer, ZONE, NOON, DAY, dates)

        try:
            yield feed
        finally:
            exchange.client = before

    return open_


def make_data(api):
    def make(dice):
        name = dice.choice([name for name, _ in good(api).items()])
        return json.dumps([name, change.tree(dice, dice.choice(good(api)[name]), 2)]).encode("utf-8", "surrogatepass")

    return make


class Known(dict):
    """Plants that SEMS knows: all that it was asked for, also where it was a spoilt answer that named them."""

    def __missing__(self, serial):
        return kit.target(serial, kit.PLANT)


def world(api):
    """Discovery over a session that answers one interface as the input says, and the rest well."""

    @asynccontextmanager
    async def open_(_):
        it = kit.World(kit.fleet(2, 6, ("inverter", "storage", "meter", "ev_charger")), api, per_hour=10**7)
        it.sems.targets = Known(it.sems.targets)

        async def feed(data):
            try:
                name, answer = msgspec.json.decode(data)
            except msgspec.DecodeError as error:
                raise GatewayError(str(error)) from error
            it.sems.spoil = lambda interface, _: answer if interface.name == name else None
            for kept in (it.sems.calls, it.desk.published, it.desk.told, it.desk.reports, it.desk.findings):
                kept.clear()
            await it.discovery.round()

        yield feed

    return open_


@asynccontextmanager
async def open_realtime(directory):
    devices = {"A1": "inverter", "B2": "storage", "C3": "battery", "D4": "meter", "E5": "ev_charger"}
    async with realtime.World(directory, devices, per_hour=10**7, poll_interval=2) as it:
        it.desk.withdraw = lambda _: None

        async def feed(data):
            try:
                name, answer = msgspec.json.decode(data)
            except msgspec.DecodeError as error:
                raise GatewayError(str(error)) from error
            it.sems.spoil = lambda interface, _: answer if interface == name else None
            it.sems.calls.clear()
            it.desk.published.clear()
            it.desk.told.clear()
            it.desk.reports.clear()
            try:
                await it.listing.round()
                it.reader.discovered()
                await asyncio.sleep(CYCLE)
            finally:
                it.sems.spoil = lambda *_: None
            for task in it.tasks:
                if task.done():
                    task.result()

        yield feed


TARGETS = [
    *(
        Target(f"sems-{api}", f"SEMS answers, {api}: session to readings", make_answer(api), opened(api), (GatewayError,))
        for api in APIS
    ),
    *(
        Target(f"plants-{api}", f"SEMS answers, {api}: discovery", make_data(api), world(api), (GatewayError,),
               virtual=True, quick=5, settle=50)
        for api in ("open_api", "developer")
    ),
    Target("plants-realtime", "SEMS answers, realtime: listing and reading", make_data("realtime"), open_realtime,
           (GatewayError,), virtual=True, quick=5, settle=50),
]  # fmt: skip
