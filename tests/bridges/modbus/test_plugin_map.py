"""A register map that a package of a stranger brings: a table of rows over points."""

from importlib.metadata import EntryPoint

import pytest
from pydantic import ValidationError

from gateway.api.modbus import Register, RegisterTable
from gateway.bridges.modbus import ModbusSettings
from gateway.bridges.modbus.maps import found
from gateway.bridges.modbus.maps.chosen import MapsError, build
from tests.bridges.modbus.client import write_one
from tests.bridges.modbus.conftest import serving
from tests.kit.bench import until

ACME = RegisterTable(
    api_version="1.0",
    registers=[
        Register(address=40100, point="ac_power", type="int32", scale=1),
        Register(address=40102, point="", count=2),
        Register(address=40104, point="battery_soc", scale=0.1),
        Register(address=40105, point="active_power_limit", writable=True),
        Register(address=40110, point="device.serial", type="string", count=8),
    ],
)
WRONG = RegisterTable(
    api_version="1.0",
    registers=[
        Register(address=1, point="ac_powr"),
        Register(address=2, point="ac_power", type="int32"),
        Register(address=3, point="pv_power"),
    ],
)
OLD = RegisterTable(api_version="0.3", registers=[])


@pytest.fixture(autouse=True)
def _installed(monkeypatch):
    for name in ("ACME", "WRONG", "OLD"):
        entry = EntryPoint(name.lower(), f"{__name__}:{name}", found.MAP.group)
        monkeypatch.setitem(found.installed()._found, name.lower(), [entry])


async def test_it_is_served_and_written_like_ours(tmp_path):
    async with serving(tmp_path, maps=["native", "acme"]) as served, served.client() as client:
        await served.publish(ac_power=-1234.0, battery_soc=55.5)
        assert await client.words(40100, 6) == [0xFFFF, 0x10000 - 1234, 0, 0, 555, 0xFFFF]
        await client.ask(write_one(40105, 60))
        (command,) = await until(lambda: served.bench.asked)
        assert (command.setpoint, command.value) == ("active_power_limit", 60.0)


def test_what_is_wrong_in_the_table_is_told_with_its_row():
    with pytest.raises((MapsError, ValidationError), match="wrong:1: point: there is no 'ac_powr'; did you mean") as it:
        build(ModbusSettings(maps=["wrong"]).maps, "abcd")
    assert "pv_power at 3 meets ac_power at 2" in str(it.value)


def test_one_of_another_api_says_what_to_do():
    with pytest.raises(ValidationError, match=r"register map 'old' can't be used.*older API.*upgrade the plug-in"):
        ModbusSettings(maps=["old"])
