"""`sems-gateway units`: what is listed, and what --free gives back."""

import asyncio
import json
import os

import pytest
from rich.console import Console
from typer.testing import CliRunner

from gateway.bridges.local import LocalBridge, LocalSettings
from gateway.bridges.modbus.units import Place, UnitBook, units_path
from gateway.cli import app
from gateway.cli import units as command
from gateway.core import good_once
from gateway.core.model import DeviceKind
from gateway.run import data_dir as directories
from tests.kit.bench import Bench, until
from tests.kit.clock import NOON

PLANTS = ("a1b2c3d4-0000-4000-8000-00000000feed", "a1b2c3d4-0000-4000-8000-00000000beef")


@pytest.fixture
def directory(tmp_path):
    book = UnitBook(units_path(tmp_path, "scada"), {}, 2)
    book.load()
    assert not asyncio.run(book.assign(["first", "ghost", "third"]))
    good_once.write(tmp_path, {"first": NOON, "third": NOON})
    return tmp_path


def units(directory, *options):
    return CliRunner().invoke(app, ["units", "--data-dir", str(directory), *options])


def places(directory):
    return UnitBook(units_path(directory, "scada"), {}).load()


def test_units_are_listed_with_their_devices_and_whether_these_ever_gave_a_value(directory):
    found = units(directory)
    assert found.exit_code == 0, found.output
    first, ghost, third = found.output.splitlines()[1:]
    assert ("scada" in first, " 1 " in first, "first" in first, "2026-06-21" in first) == (True,) * 4
    assert (" 2 " in ghost, "ghost" in ghost, "never" in ghost) == (True,) * 3
    assert (" 3 " in third, "third" in third, "2026-06-21" in third) == (True,) * 3


async def test_a_running_gateway_tells_the_name_and_kind_of_each(tmp_path):
    book = UnitBook(units_path(tmp_path, "scada"), {}, 2)
    book.load()
    assert not await book.assign([*PLANTS, "gone"])
    async with Bench(tmp_path) as bench:
        for serial, name in zip(PLANTS, ("Bakery roof", "Barn [north]"), strict=True):
            bench.announce(serial=serial, kind=DeviceKind.PLANT, name=name, plant="")
        bench.publish(PLANTS[0], pv_power=1.0)
        bench.run(LocalBridge, LocalSettings(), "cli")
        await until(lambda: any(status.up for status in bench.router.bridges()))
        listed = await asyncio.to_thread(units, tmp_path)
        found = json.loads((await asyncio.to_thread(units, tmp_path, "--json")).stdout)["units"]
    rows = listed.output.splitlines()[1:]
    bakery, barn, gone = rows
    assert [word in bakery for word in ("Bakery roof", "plant", PLANTS[0], "good")] == [True] * 4
    assert "Barn [north]" in barn
    assert "not known" in gone
    assert [(one["unit"], one["serial"], one["name"], one["kind"]) for one in found] == [
        (1, PLANTS[0], "Bakery roof", "plant"), (2, PLANTS[1], "Barn [north]", "plant"), (3, "gone", "", ""),
    ]  # fmt: skip


@pytest.mark.parametrize("now", ["good", None])
def test_in_80_columns_devices_are_told_apart(capsys, now):
    plants = [command.Shown("scada", 5020, n, serial, "", "plant", NOON, now) for n, serial in enumerate(PLANTS)]
    inverter = command.Shown("scada", 5021, 247, "9010KETU218W0001", "Bakery roof", "weather_station", None, now)
    command.show(Console(width=80), [*plants, inverter])
    head, *rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 3, "none is wrapped"
    assert ("name" in head, "Bakery roof" in rows[2]) == (now is not None,) * 2
    assert "5021" in rows[2]
    assert "9010KETU218W0001" in rows[2]
    assert "feed" in rows[0]
    assert "beef" in rows[1]


def test_a_unit_is_given_back_and_the_others_stay(directory):
    assert units(directory, "--free", "third").exit_code == 0
    assert places(directory) == {"first": Place(0, 1), "ghost": Place(0, 2)}
    assert set(good_once.read(directory)) == {"first"}
    book = UnitBook(units_path(directory, "scada"), {})
    book.load()
    assert not asyncio.run(book.assign(["fourth"]))
    assert book.get("fourth") == Place(0, 3)


def test_while_a_gateway_runs_or_for_a_device_without_a_unit_it_is_refused_in_words(directory):
    before = places(directory)
    assert "no unit is kept for nobody" in units(directory, "--free", "nobody").output
    lock = directories.hold(directory)
    try:
        refused = units(directory, "--free", "ghost")
        unheard_of = units(directory, "--free", "nobody")
    finally:
        os.close(lock)
    assert "no unit is kept for nobody" in unheard_of.output
    assert "serves" not in unheard_of.output
    assert refused.exit_code == 1
    assert "stop it" in " ".join(refused.output.split())
    assert places(directory) == before


def test_a_unit_moves_to_the_inverter_it_was_swapped_for(directory):
    done = units(directory, "--move", "first", "new")
    assert done.exit_code == 0, done.output
    assert "new has unit 1 now; first has none" in done.output
    assert places(directory) == {"new": Place(0, 1), "ghost": Place(0, 2), "third": Place(0, 3)}
    assert "no unit is kept for nobody" in units(directory, "--move", "nobody", "new").output
    assert "unit 2, which ghost had, is free" in units(directory, "--move", "third", "ghost").output
    lock = directories.hold(directory)
    try:
        refused = units(directory, "--move", "new", "first")
    finally:
        os.close(lock)
    assert refused.exit_code == 1
    assert "stop it" in " ".join(refused.output.split())


def test_check_says_that_a_pin_takes_the_unit_of_another_device(directory):
    """Y5: it was in order for `check`, and the whole bridge was down."""
    config = directory / "config.yaml"
    config.write_text(
        "gateway: {data_dir: .}\nbridges:\n  sems: {type: open_api, account: a, password: b}\n"
        "  scada: {type: modbus, port: 0, units: {swapped: 1}}\n"
    )
    done = CliRunner().invoke(app, ["check", str(config)])
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "bridge scada: unit 1 is pinned to swapped" in said
    assert "but first has had it" in said
