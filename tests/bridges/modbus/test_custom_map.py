"""A user's own map, as CSV; maps that share a unit; options of maps."""

import csv
import io
from collections import Counter
from importlib.metadata import EntryPoint

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from gateway.api.registry import installed
from gateway.bridges.modbus import ModbusSettings
from gateway.bridges.modbus.codec import WordOrder
from gateway.bridges.modbus.image import Layout
from gateway.bridges.modbus.maps import found
from gateway.bridges.modbus.maps.chosen import Choice, MapsError, build
from gateway.bridges.modbus.maps.native import NATIVE
from gateway.bridges.modbus.maps.native_family import NativeFamily
from gateway.bridges.modbus.maps.row import RegisterMap
from gateway.bridges.modbus.printed import PRINTERS
from gateway.bridges.modbus.printed import served as served_lines
from gateway.bridges.modbus.registers import COLUMNS
from gateway.bridges.modbus.units import Place
from gateway.core.model import DeviceKind
from gateway.run.settings import Config, ConfigError
from tests.bridges.modbus.client import read, write_many, write_one
from tests.bridges.modbus.conftest import serving
from tests.kit.bench import INVERTER, until
from tests.kit.clock import FakeClock

HEADER = "address,count,type,scale,point,access"
GOOD = f"""\
{HEADER}
# what the SCADA of the customer expects
200,,int16,100,ac_power,R
201,,uint16,0.1,battery_soc,r
202,,float32,1,l1_voltage,R
204,,int16,1,active_power_limit,RW
205,4,string,,device.serial,R
209,3,,,,
212,,uint16,1,data.quality,R
220,,uint32,1,data.age,R
"""


@pytest.fixture
def write(tmp_path):
    def write(text, name="plant.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def complaint(*choices):
    with pytest.raises(MapsError) as caught:
        build([Choice(map=str(choice)) for choice in choices], WordOrder.ABCD)
    return str(caught.value)


async def test_it_is_served_beside_the_native_map_and_setpoints_are_writable(tmp_path, write):
    path = write(GOOD)
    async with serving(tmp_path, maps=["native", str(path)]) as served, served.client() as client:
        await served.publish(ac_power=1234, battery_soc=55.5, l1_voltage=230, active_power_limit=80)
        assert await client.words(200, 2) == [12, 555]
        assert await client.number("f", 202) == 230
        assert await client.words(204) == [80]
        assert await client.text(205, 4) == INVERTER.serial[:8]
        assert await client.words(209, 4) == [0, 0, 0, 0]
        assert await client.number("i", 1020) == 1234
        assert await client.number("I", 220) < 5
        assert len(await client.words(200, 13)) == 13
        for address, count in ((199, 1), (213, 1), (222, 1), (221, 2)):
            assert await client.refused(read(address, count)) == 0x02
        await client.ask(write_one(204, 50))
        await until(lambda: [command.value for command in served.bench.controller.sent] == [50])
        assert await client.refused(write_one(200, 50)) == 0x02
        assert await client.refused(write_one(204, 500)) == 0x03


async def test_stale_measurements_are_0b_and_the_rest_can_be_read(tmp_path, write):
    clock = FakeClock()
    async with serving(tmp_path, clock=clock, maps=[str(write(GOOD))]) as served, served.client() as client:
        await served.publish(ac_power=1234, active_power_limit=80)
        assert await client.words(200) == [12]
        clock.jump(1000)
        served.bench.router.age()
        await until(lambda: served.bridge._devices[INVERTER.serial].updates == 3)
        assert await client.refused(read(200, 5)) == 0x0B
        assert await client.words(204) == [80]
        assert await client.words(212) == [1]
        assert await client.refused(read(1020, 2)) == 0x02


async def test_32_bit_setpoints_and_word_order(tmp_path, write):
    path = write(f"{HEADER}\n10,,float32,1,export_limit,RW\n12,,int32,0.1,active_power_limit,RW")
    device = INVERTER
    async with (
        serving(tmp_path, maps=[str(path)], word_order="cdab", devices=[device]) as served,
        served.client() as client,
    ):
        await client.ask(write_many(12, b"\x01\xf4\x00\x00"))
        await until(lambda: served.bench.controller.sent)
        assert served.bench.controller.sent[0].value == 50
        assert await client.refused(write_one(12, 1)) == 0x03


@pytest.mark.parametrize("text", ["\ufeff" + GOOD, GOOD.replace(",", ";"), GOOD.replace("\n", "\r\n")])
def test_as_spreadsheets_save_it(write, text):
    (family,) = build([Choice(map=str(write(text)))], WordOrder.ABCD)
    assert [row.address for row in family.layout(INVERTER).map.rows] == [200, 201, 202, 204, 205, 212, 220]


def printed(*maps):
    """What `sems-gateway registers --format csv` prints of one unit."""
    lines = served_lines("scada", ModbusSettings(maps=maps), {"A": Place(0, 1)}, {}, "gw")
    return PRINTERS["csv"]([line for line in lines if line.unit == 1], COLUMNS)


def test_what_registers_prints_is_a_map(write):
    path = write(printed("native"))
    lines = list(csv.DictReader(io.StringIO(printed(str(path)))))
    native = list(csv.DictReader(io.StringIO(printed("native"))))
    assert [{**line, "map": ""} for line in lines] == [{**line, "map": ""} for line in native]
    assert {line["map"] for line in lines} == {"plant.csv"}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("x,,int16,1,ac_power,R", "address: 'x' is no whole number from 0 to 65535"),
        ("70000,,int16,1,ac_power,R", "address: '70000' is no whole number"),
        ("65535,,int32,1,ac_power,R", "address: ac_power ends above 65535; move it to 65534"),
        ("1,,int17,1,ac_power,R", "type: there is no 'int17'; did you mean 'int16'?"),
        ("1,,bool,1,ac_power,R", "type: there is no 'bool'; "),
        ("1,,int16,1,ac_powr,R", "point: there is no 'ac_powr'; did you mean 'ac_power'?"),
        ("1,,int16,1,device.knd,R", "point: there is no 'device.knd'; did you mean 'device.kind'?"),
        ("1,,int16,1,qqqqqqq,R", "point: there is no 'qqqqqqq'; `sems-gateway registers` lists"),
        ("1,,int16,0.5,ac_power,R", "scale: '0.5' is no power of ten; write e.g. 0.01"),
        ("1,,int16,-1,ac_power,R", "scale: '-1' is no power of ten"),
        ("1,,int16,big,ac_power,R", "scale: 'big' is no power of ten"),
        ("1,,int16,1_0,ac_power,R", "scale: '1_0' is no power of ten"),
        ("1,,int16,\u0660.\u0661,ac_power,R", "scale: '\u0660.\u0661' is no power of ten"),
        ("1,,int16,1,ac_power,RW", "access: ac_power is no setpoint; write R"),
        ("1,,int16,1,ac_power,W", "access: 'W' is neither R nor RW"),
        ("1,4,string,,work_mode,RW", "access: work_mode can't be written as text"),
        ("1,,string,,firmware,R", "count: '' is no whole number from 1 to 125"),
        ("1,,int16,1,firmware,R", "type: firmware is text; write string"),
        ("1,2,int16,1,ac_power,R", "count: int16 takes 1, not 2"),
        ("1,x,,,,", "count: 'x' is no whole number"),
        ("200,,int16,1,pv_power,R", "pv_power at 200 meets ac_power at 200 to 200 (line 2)"),
        ("203,,int16,1,pv_power,R", "pv_power at 203 meets l1_voltage at 202 to 203 (line 3); move one"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(write, line, says):
    path = write(f"{HEADER}\n200,,int16,100,ac_power,R\n202,,float32,1,l1_voltage,R\n{line}\n")
    found = complaint(path)
    assert found.startswith(f"{path}:4: ")
    assert says in found


def test_a_unit_that_is_not_the_points_is_told(write):
    path = write("address,type,scale,unit,point,access\n1,int16,1,kW,ac_power,R\n2,int16,1,W,pv_power,R")
    assert complaint(path) == f"{path}:2: unit: ac_power is in W, not kW; change the scale instead"


def test_all_that_is_wrong_is_told_at_once(write):
    path = write(HEADER + "\nx,,int16,1,ac_power,R" * 12)
    assert complaint(path).count(f"{path}:") == 10
    assert complaint(path).endswith("; and 2 more")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("address,type\n", ":1: no column scale, point, access; the first line names"),
        ("", ":1: no column address"),
        (HEADER, ": there is no row"),
        (HEADER + '\n1,"x,int16', "this is no CSV (unexpected end of data); check the quotes"),
        (b"\xff\xfe", "can't be read (it is no UTF-8)"),
    ],
)
def test_files_that_are_no_map(write, text, says):
    assert says in complaint(write(text))


def test_a_missing_file_is_told(tmp_path):
    assert "none.csv can't be read (No such file" in complaint(tmp_path / "none.csv")


# Maps that share a unit


def test_a_clash_names_both_rows(write):
    path = write(f"{HEADER}\n100,,int16,1,ac_power,R\n5502,,float32,1,active_power_limit,RW")
    found = complaint("native", path)
    assert "native has data.quality at 100" in found
    assert "plant.csv:2 has ac_power at 100" in found
    path = write(f"{HEADER}\n149,,int16,1,ac_power,R")
    assert "native has 'Identity and state' from 0 to 149" in complaint("native", path)
    other = write(f"{HEADER}\n149,,int16,1,ac_power,R", "other.csv")
    assert "address 149 is in two maps: plant.csv:2 has ac_power" in complaint(path, other)


def test_the_same_map_twice_is_an_error():
    assert "native stands there twice" in complaint("native", "native")


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")
    shift: int = 0
    upside_down: bool = False


class Shifted(NativeFamily):
    api_version = "1.0"
    Options = Options

    def __init__(self, order, **options):
        super().__init__(order)
        self.options = options


def have(monkeypatch, name, what):
    """Have a map installed, as if by a package of its own."""
    entry = EntryPoint(name, f"{__name__}:{what}", found.MAP.group)
    monkeypatch.setitem(found.installed()._found, name, [entry])


@pytest.fixture
def shifted(monkeypatch):
    have(monkeypatch, "shifted", "Shifted")


def test_options_reach_the_map(shifted):
    settings = ModbusSettings(maps=[{"map": "shifted", "shift": "5"}])
    (family,) = build(settings.maps, settings.word_order)
    assert family.options == {"shift": 5, "upside_down": False}


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("natve", "there is no register map 'natve'; did you mean 'native'?"),
        ({"map": "native", "float": True}, "the map native has no option 'float'; it has none"),
        ({"map": "shifted", "shfit": 1}, "the map shifted has no option 'shfit'; did you mean 'shift'?"),
        ({"map": "shifted", "shift": "much"}, "option 'shift' of the map shifted: input should be a valid integer"),
        ({"map": "own.csv", "shift": 1}, "the map own.csv has no option 'shift'"),
        ({"shift": 1}, "Field required"),
        (5, "dictionary"),
    ],
)
def test_wrong_entries_are_told(shifted, entry, says):
    with pytest.raises(ValidationError, match="maps") as caught:
        ModbusSettings(maps=[entry])
    assert says in str(caught.value)


class ByKind(NativeFamily):
    api_version = "1.0"

    def layout(self, device):
        meter = Layout(RegisterMap("native", NATIVE.blocks[:1], NATIVE.rows[:1]), WordOrder.ABCD)
        return {DeviceKind.METER: meter, DeviceKind.PLANT: None}.get(device.kind, self._layout)


def test_maps_that_differ_by_kind_are_printed_apart(monkeypatch):
    have(monkeypatch, "native", "ByKind")
    lines = served_lines("scada", ModbusSettings(maps=["native"]), {}, {}, "gw")
    counts = Counter(line.kind for line in lines if line.map == "native")
    assert (counts["inverter"], counts["storage"]) == (len(NATIVE.rows), len(NATIVE.rows))
    assert (counts["meter"], counts["plant"]) == (1, 0)


# In a configuration


def test_files_lie_beside_the_configuration_and_errors_have_both_lines(tmp_path, write):
    write(f"{HEADER}\n200,,int16,1,ac_powr,R")
    config = tmp_path / "config.yaml"
    config.write_text("bridges:\n  scada:\n    type: modbus\n    maps:\n      - native\n      - plant.csv\n")
    with pytest.raises(ConfigError) as caught:
        Config.load(config, installed())
    (line,) = caught.value.lines()
    assert line.startswith(f"{config}:4: bridges.scada.maps: {tmp_path}/plant.csv:2: point: there is no 'ac_powr'")
    write(GOOD)
    (bridge,) = Config.load(config, installed()).bridges
    lines = list(served_lines(bridge.name, bridge.settings, {"A": Place(0, 1)}, {}, "gw"))
    assert [*dict.fromkeys(line.map for line in lines)] == ["native", "plant.csv", "gateway"]
    text = PRINTERS["csv"](lines, COLUMNS)
    assert "200,40201,1,int16,100,W,R,ac_power" in text
    assert text.startswith(printed("native"))
