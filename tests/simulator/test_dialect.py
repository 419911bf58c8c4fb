"""A dialect says the same otherwise: what its own catalogue reads is what the usual one reads of a usual cloud."""

import hashlib
import re
from datetime import datetime

import httpx
import pytest

from gateway.sems.catalogue import Use, load
from gateway.sems.normalise import entries
from gateway.simulator.dialect import DATE_FORMATS, NOTHING, READ, Dialect, ZoneStyle
from gateway.simulator.fleet import DEFAULT_FLEET
from gateway.simulator.vocabulary import squeezed
from tests.dialects.changes import Change, changes_of
from tests.dialects.cloud import MORNING, Cloud, SharedWorld
from tests.kit.process import sems_gateway
from tests.simulator.kit import serial_of

APIS = ("open_api", "developer", "realtime")
HOUSE = DEFAULT_FLEET[0]
FACTORS = {"kW": 1000, "Wh": 0.001}


@pytest.fixture(scope="module")
def world():
    return SharedWorld()


def dialects(count=60):
    return [Dialect(seed, load(api), lambda: MORNING) for api in APIS for seed in range(count)]


def arguments(interface):
    """What each interface of the classic API is called with."""
    args = {"plant": HOUSE.id, "page": 1, "page_size": 100, "day": MORNING}
    if "serial" in interface.args:
        args["serial"] = serial_of(interface.of[0])
    return args


def at(entry, path):
    for key in path.split("."):
        if not isinstance(entry, dict) or key not in entry:
            return None
        entry = entry[key]
    return entry


def number(raw):
    """A number with its unit, as one of the point's."""
    match = re.fullmatch(r"(-?[\d.]+)\(?([^\d().]*)\)?", str(raw))
    return float(match[1]), FACTORS.get(match[2])


def nothing(raw):
    return raw in (None, NOTHING) or (isinstance(raw, (int, float)) and raw in (6553.5, 3276.7, 655.35))


def test_a_seed_is_a_dialect():
    one, same, other = (Dialect(seed, load("open_api"), lambda: MORNING) for seed in (3, 3, 4))
    assert one.lines == same.lines
    assert one.lines != other.lines


def test_each_field_has_one_meaning():
    for dialect in dialects():
        usual = {interface.name: interface for interface in dialect.base.interfaces}
        for interface in dialect.catalogue.interfaces:
            fields = [(row.field, row.shape) for row in interface.response]
            assert len(set(fields)) == len(fields), (dialect.seed, interface.name)
            before = {squeezed(row.field): row for row in usual[interface.name].response}
            for row in interface.response:
                once = before.get(squeezed(row.field), row)
                assert (once.point, once.attribute) == (row.point, row.attribute), (dialect.seed, row)


def test_logins_and_orders_stay():
    for dialect in dialects():
        for before, after in zip(dialect.base.interfaces, dialect.catalogue.interfaces, strict=True):
            assert before.request == after.request
            if before.use not in READ:
                assert before is after
        assert any(interface.use is Use.CONTROL for interface in load("open_api").interfaces)


def test_every_kind_of_change_occurs():
    every = dialects()
    seen = {change for dialect in every for line in dialect.lines for change in changes_of(dialect, line)}
    assert seen == set(Change) - {Change.LISTS, Change.ENVELOPE, Change.NOISE}  # those are of no single line
    lists = [
        (before.lists, after.lists)
        for dialect in every
        for before, after in zip(dialect.base.interfaces, dialect.catalogue.interfaces, strict=True)
    ]
    assert any(before != after for before, after in lists)
    assert {dialect.date for dialect in every} == {None, *DATE_FORMATS}
    assert {dialect.zone for dialect in every} == set(ZoneStyle)


@pytest.mark.parametrize("seed", range(4))
async def test_it_says_the_same(world, seed):
    async with Cloud(world=world) as usual, Cloud(dialect=seed, world=world) as other:
        await usual.log_in()
        await other.log_in()
        for before in usual.catalogue.interfaces:
            if before.use not in READ:
                continue
            after = other.catalogue.interface(before.name)
            lines = [line for line in other.dialect.lines if line.interface == before.name]
            args = arguments(before)
            plain = entries(before, await usual.ask(before.name, **args))
            dressed = entries(after, await other.ask(before.name, **args))
            assert len(plain) == len(dressed), before.name
            for entry, said in zip(plain, dressed, strict=True):
                for line in lines:
                    check(other.dialect, line, entry, said)


def check(dialect, line, entry, said):
    """One field says what it said before."""
    old = at(entry, line.before.field)
    if line.after is None:
        assert at(said, line.before.field) is None
        return
    new = at(said, line.after.field)
    place = (dialect.seed, line, old, new)
    if line.after.attribute == "time_span":
        assert new == (-2.0 if dialect.zone is ZoneStyle.SPAN else None), place
    elif line.after.attribute == "date_format":
        assert not dialect.gives_date_format or len(new) == len("dd.MM.yyyy"), place
    elif nothing(old):
        assert new in (None, NOTHING) or str(old) in str(new), place
    elif line.after.type == "local_time":
        form = dialect.date or "%Y-%m-%d"
        if len(old) > 10:
            assert new == datetime.fromisoformat(old).strftime(f"{form} %H:%M:%S"), place
    elif line.after.type.startswith("unix"):
        assert float(new) > 1.7e9, place
    elif line.before.attribute == "time_zone":
        assert new == {"iana": "Europe/Berlin", "offset": "UTC+02:00", "span": None}[dialect.zone], place
    elif line.before.type == "number" and not line.before.options and isinstance(old, (int, float, str)):
        value, factor = number(new)
        sign = -1 if line.after.scale < 0 else 1
        scale = line.after.scale if factor is None or line.after.point == "" else factor * sign
        wanted = float(old) * line.before.scale
        assert value * scale == pytest.approx(wanted, rel=0.001, abs=abs(scale) + 0.06), place
    else:
        assert str(new) == str(old), place


def test_the_program_speaks_it():
    """`simulate --dialect`: the seed's own names, over HTTP."""
    with sems_gateway("simulate", "--port", "0", "--dialect", "1") as program:
        url = program.line(r"ready sems=(\S+)")[1]
        assert program.line("dialect 1")
        with httpx.Client(base_url=f"{url}/api/OpenApi/", trust_env=False) as http:
            login = {"account": "demo", "pwd": hashlib.md5(b"demo").hexdigest()}
            http.headers["token"] = http.post("GetToken", json=login).json()["data"]["token"]
            said = http.post("GetUserPlantList", json={"page_index": 1, "page_size": 10}).json()
    catalogue = Dialect(1, load("open_api"), lambda: MORNING).catalogue
    plants = entries(catalogue.interface("GetUserPlantList"), said["data"])
    names = {row.attribute: row.field for row in catalogue.interface("GetUserPlantList").response}
    assert [plant[names["serial"]] for plant in plants] == [plant.id for plant in DEFAULT_FLEET]
    assert names["serial"] != "plant_id"
