"""Which services a fleet can serve is said by what was measured of it."""

import msgspec
import pytest

from gateway.journal.chain import AuditReader
from gateway.steering.fleet.services import SERVICES, Measured, measured, verdicts
from tests.kit.clock import FakeClock, virtual
from tests.steering.fleet.test_fleet import ALL, inverters
from tests.steering.fleet.world import World

GOOD = Measured(targets=20, held=20, hold=60.0, member=10.0, told=10.0, data_age=60.0)
BY_CLOUD = [service.name for service in SERVICES if not service.why_never]


def able(found=GOOD, *, members=100, writes=100, calls=3_600):
    return {each.service.name: each.able for each in verdicts(found, members, writes, calls)}


def why(found, **given):
    (said,) = {each.why for each in verdicts(found, **{"members": 100, "writes_per_day": 100, "calls": 3_600} | given)
               if each.service.name == "dispatch each 5 minutes"}  # fmt: skip
    return said


@virtual
async def test_what_the_journal_tells_of_targets_and_members_is_reckoned_up(tmp_path):
    machines = inverters(4)
    for machine in machines:
        machine.delay = 20.0
    async with World(tmp_path, FakeClock(), machines, ALL) as world:
        for n in range(6):
            await world.end(await world.ask(10_000 + 3_000 * n))
        first = await world.ask(6_000)
        await world.wait(5)
        await world.ask(31_000)
        await world.end(first)
        with AuditReader(tmp_path / "journal.sqlite") as reader:
            found = measured("fleet:north", reader.walk(), 7.0)
        assert (found.targets, found.held, found.data_age) == (6, 6, 7)
        assert 4 <= found.told <= 8
        assert 20 <= found.member < 60
        assert 0 < found.hold < 100
        with AuditReader(tmp_path / "journal.sqlite") as reader:
            assert measured("fleet:south", reader.walk(), None) == Measured(0, 0, None, None, 0.0, None)


def test_seconds_are_never_promised_minutes_are():
    found = able()
    assert [name for name, yes in found.items() if yes] == BY_CLOUD
    assert found["secondary reserve (aFRR, 4 s)"] is False
    assert found["export limit that holds in 5 s (G100)"] is False


def test_nothing_is_said_of_what_was_hardly_measured():
    found = able(msgspec.structs.replace(GOOD, targets=4, held=4))
    assert {found[name] for name in BY_CLOUD} == {None}
    assert found["secondary reserve (aFRR, 4 s)"] is False


@pytest.mark.parametrize(
    ("changes", "given", "said"),
    [
        ({"held": 18}, {}, "18 of 20 targets held, and 95% have to"),
        ({"hold": 200.0}, {}, "a target takes 200 s to hold, and has 150 s"),
        ({"data_age": 400.0}, {}, "data are 400 s old, and a target comes each 300 s"),
        (
            {"told": 100.0},
            {"calls": 540, "writes_per_day": 1_000},
            "it takes 1200 calls an hour, and 540 are kept for control",
        ),
        ({"told": 50.0}, {}, "it takes 144 writes of a member a day, and writes_per_day is 100"),
        ({"told": 50.0}, {"writes_per_day": 144, "calls": None}, ""),
    ],
)
def test_what_is_lacking_is_said(changes, given, said):
    assert why(msgspec.structs.replace(GOOD, **changes), **given) == said


def test_slower_services_are_served_where_faster_ones_are_not():
    found = able(msgspec.structs.replace(GOOD, hold=200.0))
    assert (found["dispatch each 5 minutes"], found["dispatch each 15 minutes"]) == (False, True)
