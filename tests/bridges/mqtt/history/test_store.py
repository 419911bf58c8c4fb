import sqlite3

import pytest

from gateway.bridges.mqtt.history import store as store_module
from gateway.bridges.mqtt.history.store import ROW_OVERHEAD, Store, StoreError


@pytest.fixture
async def make(tmp_path):
    opened = []

    async def open_(max_bytes=1_000_000, max_age=1000.0):
        store = Store(tmp_path / "history.sqlite", max_bytes, max_age)
        store.whole = await store.open()
        opened.append(store)
        return store

    yield open_
    for store in opened:
        await store.close()


def numbered(*numbers):
    return [("SN", b"%d" % n) for n in numbers]


async def bodies(store, now=0.0, after=0):
    return [int(row.body) for row in await store.oldest(1000, after, now)]


async def test_what_is_added_comes_out_in_order_until_it_is_removed(make):
    store = await make()
    assert await store.add(numbered(1, 2, 3), 0) == range(1, 4)
    await store.add(numbered(4), 0)
    assert [(row.seq, row.serial, row.body) for row in await store.oldest(2, 1, 0)] == [
        (2, "SN", b"2"),
        (3, "SN", b"3"),
    ]
    await store.remove([1, 3, 99])
    assert await bodies(store) == [2, 4]
    assert (store.waiting, store.dropped) == (2, 0)


async def test_a_number_is_never_given_twice(make):
    store = await make()
    await store.add(numbered(1), 0)
    await store.remove([1])
    assert await store.add(numbered(2), 0) == range(2, 3)


async def test_thousands_are_removed_at_once(make):
    store = await make()
    numbers = await store.add(numbered(*range(2000)), 0)
    await store.remove(list(numbers)[:-1])
    assert await bodies(store) == [1999]


async def test_past_the_size_the_oldest_are_dropped_and_counted(make):
    row = ROW_OVERHEAD + len("SN") + 100
    store = await make(max_bytes=row * 10)
    for n in range(25):
        await store.add([("SN", b"%0100d" % n)], 0)
        assert store.waiting <= 10
    kept = await bodies(store)
    assert kept == list(range(25 - len(kept), 25))
    assert len(kept) >= 9
    assert store.dropped == 25 - len(kept)


async def test_past_the_age_they_are_dropped_and_counted(make):
    store = await make(max_age=60)
    await store.add(numbered(1), 0)
    await store.add(numbered(2), 50)
    assert await bodies(store, now=61) == [2]
    await store.add(numbered(3), 111)
    assert await bodies(store, now=111) == [3]
    assert store.dropped == 2


async def test_all_is_there_after_a_restart_with_its_size(make, tmp_path):
    store = await make()
    await store.add(numbered(1, 2), 0)
    await store.close()
    again = await make(max_bytes=(ROW_OVERHEAD + 3) * 2)
    assert again.waiting == 2
    await again.add(numbered(3), 0)
    assert again.dropped
    assert (await bodies(again))[-1] == 3


async def test_the_file_stays_within_its_size(make, tmp_path):
    store = await make(max_bytes=1_000_000)
    for _ in range(40):
        await store.add([("SN", b"x" * 500)] * 200, 0)
    await store.close()
    assert sum(path.stat().st_size for path in tmp_path.glob("history.sqlite*")) < 2_200_000


async def test_a_broken_file_is_put_aside(make, tmp_path):
    (tmp_path / "history.sqlite").write_bytes(b"this is no database" * 1000)
    store = await make()
    assert not store.whole
    assert (tmp_path / "history.sqlite.broken").exists()
    await store.add(numbered(1), 0)
    assert await bodies(store) == [1]


async def test_a_directory_that_cannot_be_used_is_told(tmp_path):
    (tmp_path / "file").touch()
    store = Store(tmp_path / "file" / "history.sqlite", 1_000_000, 1)
    with pytest.raises(StoreError, match="turn store off"):
        await store.open()
    with pytest.raises(StoreError, match="not open"):
        await store.add(numbered(1), 0)
    await store.close()


async def test_a_file_in_use_is_no_broken_one(make, monkeypatch):
    store = await make()
    monkeypatch.setattr(store_module, "_SCHEMA", "CREATE TABLE snapshot (other);")
    with pytest.raises(StoreError):
        await make()
    assert not list(store.path.parent.glob("*.broken"))


async def test_a_write_that_fails_changes_nothing(make):
    store = await make()
    await store.add(numbered(1), 0)
    store._database.execute("CREATE TRIGGER full BEFORE INSERT ON snapshot BEGIN SELECT RAISE(ABORT, 'disk full'); END")
    with pytest.raises(StoreError, match="disk full"):
        await store.add(numbered(2), 0)
    assert store.waiting == 1
    store._database.execute("DROP TRIGGER full")
    await store.add(numbered(3), 0)
    assert await bodies(store) == [1, 3]


def test_sqlite_can_do_what_we_ask_of_it():
    assert sqlite3.sqlite_version_info >= (3, 24)


async def test_a_clock_that_jumps_makes_nothing_old_and_a_restart_counts_no_time(make):
    """Y4: age is told by the boot clock. It begins anew with each start of the machine."""
    store = await make(max_age=60)
    await store.add(numbered(1), 5_000)
    await store.add(numbered(2), 5_050)
    await store.close()
    again = await make(max_age=60)
    assert await bodies(again, now=3) == [1, 2], "the machine was started anew"
    assert await bodies(again, now=14) == [2]
    assert again.dropped == 1


async def test_what_there_is_is_not_counted_again_at_a_start(make):
    store = await make()
    await store.add(numbered(1, 2), 0)
    await store.close()
    with sqlite3.connect(store.path) as db:
        db.execute("UPDATE total SET count = 5")
    assert (await make()).waiting == 5


@pytest.mark.parametrize("where", [0.1, 0.3, 0.6, 0.9])
async def test_of_a_damaged_file_what_can_be_read_goes_on_and_no_number_is_given_twice(make, where):
    store = await make(max_bytes=10_000_000)
    for start in range(0, 2000, 100):
        await store.add([("SN", b"%0200d" % n) for n in range(start, start + 100)], 0)
    await store.close()
    content = bytearray(store.path.read_bytes())
    at = int(len(content) * where)
    content[at : at + 20_000] = bytes(20_000)
    store.path.write_bytes(content)
    again = await make(max_bytes=10_000_000)
    found, after = [], 0
    while True:
        try:
            rows = await again.oldest(100, after, 0)
        except StoreError:
            assert again.begun_anew
            continue
        if not rows:
            break
        found += [int(row.body) for row in rows]
        after = rows[-1].seq
    assert found == sorted(set(found))
    assert len(found) > 1500
    assert found[0] == 0
    assert found[-1] == 1999
    assert await again.add(numbered(7), 0) == range(2001, 2002)
    assert again.path.with_name("history.sqlite.broken").exists() == (not again.whole or bool(again.begun_anew))
