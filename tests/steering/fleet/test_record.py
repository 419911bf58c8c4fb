"""What a fleet gave is kept minute by minute, also over midnight, power cuts and full disks."""

from datetime import timedelta

import pytest
import structlog
from structlog.testing import capture_logs

from gateway.core import files
from gateway.steering.fleet.record import KEPT, MOST_WAITING, Given, Record, recorded
from tests.kit.clock import NOON, FakeClock, virtual
from tests.steering.fleet.world import Machine, World

LOG = structlog.get_logger()
MINUTE = timedelta(minutes=1)


@virtual
async def test_a_fleet_keeps_what_its_members_give(tmp_path):
    machines = [Machine(f"PV{n}", sun=8_000.0) for n in range(3)]
    machines[2].silent = True
    async with World(tmp_path, FakeClock(), machines, {"members": {"devices": ["*"]}}) as world:
        await world.wait(60 * 16)
        found = recorded(tmp_path, "fleet:north", NOON, NOON + 15 * MINUTE)
        assert set(found) == set(range(15))
        assert found[5] == Given(16_000.0, 2, 3)
    assert 16 in recorded(tmp_path, "fleet:north", NOON, NOON + 20 * MINUTE)


async def test_minutes_stand_in_a_file_a_day_and_old_ones_go(tmp_path):
    record, start = Record(tmp_path, "fleet:north", LOG), NOON.replace(hour=23, minute=50)
    for n in range(20):
        record.take(start + n * MINUTE, Given(float(n), 1, 1))
    await record.write(all_=True)
    assert {n: given.power for n, given in recorded(tmp_path, "fleet:north", start, start + 20 * MINUTE).items()} == {
        n: float(n) for n in range(20)
    }
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["fleet-north-minutes-2026-06-21.csv", "fleet-north-minutes-2026-06-22.csv"]
    record.take(start + timedelta(days=KEPT + 1), Given(1.0, 1, 1))
    await record.write(all_=True)
    assert names[0] not in {file.name for file in tmp_path.iterdir()}


@pytest.mark.parametrize("cut", range(1, 24))
async def test_a_power_cut_costs_no_other_minute(tmp_path, cut):
    record = Record(tmp_path, "fleet:north", LOG)
    record.take(NOON, Given(1_000.5, 9, 10))
    record.take(NOON + MINUTE, Given(2_000.5, 10, 10))
    await record.write(all_=True)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-cut])
    record.take(NOON + 2 * MINUTE, Given(3_000.5, 10, 10))
    await record.write(all_=True)
    found = recorded(tmp_path, "fleet:north", NOON, NOON + 5 * MINUTE)
    assert found[0] == Given(1_000.5, 9, 10)
    assert found[2] == Given(3_000.5, 10, 10)
    assert found.get(1, Given(2_000.5, 10, 10)) == Given(2_000.5, 10, 10)


async def test_what_is_no_line_says_nothing(tmp_path):
    file = tmp_path / "fleet-north-minutes-2026-06-21.csv"
    minute = int(NOON.timestamp() // 60)
    file.write_bytes(b"\xff\x00,\n1,2\n" + f"{minute},nan,1,1;\n{minute + 1},5.0,1,1;\n".encode())
    assert recorded(tmp_path, "fleet:north", NOON, NOON + 5 * MINUTE) == {1: Given(5.0, 1, 1)}


async def test_a_full_disk_loses_the_oldest_minutes_and_is_told_once(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    record = Record(tmp_path, "fleet:north", LOG)
    with capture_logs() as logs, monkeypatch.context() as patch:
        patch.setattr(files, "open_own", full)
        for n in range(MOST_WAITING + 5):
            record.take(NOON + n * MINUTE, Given(float(n), 1, 1))
            if n % 100 == 99:
                await record.write()
    assert len(logs) == 1, logs
    await record.write()
    found = recorded(tmp_path, "fleet:north", NOON, NOON + (MOST_WAITING + 5) * MINUTE)
    assert sorted(found) == list(range(5, MOST_WAITING + 5))
