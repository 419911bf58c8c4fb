"""Each code block of the docs is tried, or says why not."""

import csv
import io
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

from gateway.api.registry import installed
from gateway.bridges.modbus.maps.custom import CustomFamily
from gateway.bridges.modbus.maps.goodwe.rows import GOODWE
from gateway.bridges.modbus.maps.native import NATIVE
from gateway.bridges.modbus.registers import registers
from gateway.cli.root import COMMANDS, loaded
from gateway.journal.journal import Journal
from gateway.run.settings import Config, ConfigError
from tests.docs.blocks import Block, blocks, blocks_of, pages
from tests.kit.bench import Bench
from tests.kit.certificates import Authority
from tests.kit.journal import event
from tests.kit.process import ROOT

BLOCKS = blocks()
MAPS = {"native": NATIVE, "goodwe": GOODWE}
SECTIONS = {"gateway", "log", "control", "audit", "bridges", "fleets", "limits"}
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
STAND_INS = {
    "sems": {"type": "open_api", "account": "a@b.de", "password": "b", "url": "https://eu.openapi.semsportal.com"},
    "mqtt": {"type": "mqtt", "host": "192.168.1.10", "users": ["alice"]},
    "modbus": {"type": "modbus", "role": "operator"},
    "house": {"type": "modbus", "port": 5021},
    "batch": {"type": "batch"},
}
"""What a page that shows a part of a configuration leaves out."""
NEEDED = {
    "open_api": STAND_INS["sems"],
    "mqtt": {"host": "192.168.1.10"},
    "push": {"secret": "0123456789abcdef"},
    "web": {"token": "0123456789abcdef"},
}
PEMS = {"ca": ".pem", "client_ca": ".pem", "certfile": ".pem", "certificate": ".pem", "keyfile": ".key", "key": ".key"}
"""Setting → what its file is."""


def tried(*languages):
    return [block for block in BLOCKS if block.language in languages and not block.mark and block.page != "README.md"]


def by_place(block):
    return str(block)


# what may stand there at all


@pytest.mark.parametrize("block", BLOCKS, ids=by_place)
def test_each_is_tried_or_says_why_not(block):
    if block.mark == "not run":
        assert len(block.of) > 8, "say why"
    elif block.mark == "run by":
        assert Path(block.page).name in (ROOT / block.of).read_text(), f"{block.of} does not name the page"
    elif block.mark:
        assert block.language == "yaml"
    elif block.language == "mermaid":
        assert block.page == "docs/development.md", "tests/docs/test_generated.py draws that one alone"
    elif block.page == "README.md":
        assert block.language in {"sh", "yaml"}, "tests/system/test_readme.py runs these alone"
    else:
        assert block.language in {"yaml", "json", "sh", "csv"}, "nothing tries it: mark it, see tests/docs/blocks.py"


def test_a_block_is_found_with_its_mark():
    text = "a\n\n<!-- not run: because of that -->\n```sh\nx\n```\n\n1. b\n\n    ```yaml\n    a:\n      b: 1\n    ```\n"
    marked, indented = blocks_of("page.md", text)
    assert marked == Block("page.md", 4, "sh", "x\n", "not run", "because of that")
    assert indented == Block("page.md", 10, "yaml", "a:\n  b: 1\n")


def test_a_mark_is_of_the_next_block_alone():
    text = "<!-- not run: because of that -->\n```sh\nx\n```\n```json\n{}\n```\n"
    assert [block.mark for block in blocks_of("page.md", text)] == ["not run", ""]


# configurations


@pytest.fixture(scope="module")
def signed(tmp_path_factory):
    """A certificate's path, without its ending."""
    certificate, _ = Authority(tmp_path_factory.mktemp("tls")).sign("gateway", server=True)
    return certificate.with_suffix("")


@pytest.fixture
def loads(tmp_path, monkeypatch, signed):
    """Reads a configuration as the gateway does, with files and variables that are there."""

    def filled(data):
        if isinstance(data, list):
            return [filled(one) for one in data]
        if not isinstance(data, dict):
            return data
        if set(data) == {"env"}:
            monkeypatch.setenv(data["env"], f"in-the-variable-{data['env']}")
        if set(data) == {"file"}:
            file = tmp_path / Path(data["file"]).name
            file.write_text("9010KETU218W0001\n" if file.suffix == ".txt" else f"in-the-file-{file}\n")
            return {"file": str(file)}
        return {
            key: f"{signed}{PEMS[key]}" if key in PEMS and isinstance(value, str) else filled(value)
            for key, value in data.items()
        }

    def load(data):
        bridges = data.get("bridges") or {}
        whole = {name: STAND_INS.get(name, {}) | settings for name, settings in bridges.items()}
        if not bridges:
            whole = {name: STAND_INS[name] for name in ("sems", "mqtt", "modbus", "house")}
        file = tmp_path / "config.yaml"
        file.write_text(yaml.safe_dump(filled(data | {"bridges": whole})))
        return Config.load(file, installed())

    return load


@pytest.mark.parametrize("block", tried("yaml"), ids=by_place)
def test_a_configuration_is_in_order(block, loads):
    data = yaml.safe_load(block.text)
    if set(data) == {"interfaces"}:
        data = {"bridges": {"sems": {"overrides": data}}}
    assert set(data) <= SECTIONS, "no part of a configuration: mark it"
    loads(data)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.mark == "settings of"], ids=by_place)
def test_settings_of_a_bridge_are_in_order(block, loads):
    settings = {"type": block.of} | NEEDED.get(block.of, {}) | yaml.safe_load(block.text)
    loads({"bridges": {"one": settings}})


def test_a_setting_that_there_is_not_is_found(loads):
    with pytest.raises(ConfigError, match="hosst"):
        loads({"bridges": {"one": {"type": "mqtt", "hosst": "x"}}})


# other programs


def registers_in(data):
    """Each (address, type) that the configuration of evcc reads."""
    if isinstance(data, list):
        for one in data:
            yield from registers_in(one)
    elif isinstance(data, dict):
        if {"address", "decode"} <= set(data):
            yield data["address"], data["decode"]
        for one in data.values():
            yield from registers_in(one)


def is_there(map_, address, encoding):
    return any((row.address, row.encoding.value) == (address, encoding) for row in map_.rows)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.mark == "registers of"], ids=by_place)
def test_registers_that_another_program_reads_are_there(block):
    found = list(registers_in(yaml.safe_load(block.text)))
    assert found
    assert [one for one in found if not is_there(MAPS[block.of], *one)] == []


HOW_TO = sorted((ROOT / "docs" / "howto").glob("*.md"))
ROW = re.compile(r"^ *\| (\d+) \| (\w+) \| [\d.]+ \| `([\w.]+)` \|$", re.MULTILINE)
HOLDING = re.compile(r"^\| 4(\d{5}) \| (\w+)(?:, R/W)? \| `(\w+)`", re.MULTILINE)
IGNITION = re.compile(r"`\[gateway\]1\.(HR\w*?)(\d+)(?::\d+)?` \| unit 1, (\w+)[\w ]* at (\d+)")


@pytest.mark.parametrize("page", HOW_TO, ids=lambda page: page.name)
def test_registers_that_a_how_to_page_names_are_there(page):
    rows = {(line.address, line.type, line.point) for line in registers()}
    text = page.read_text()
    for address, type_, point in ROW.findall(text):
        assert (int(address), type_, point) in rows
    kepware = {"Word": "uint16", "Long": "int32", "Short": "int16"}
    for number, type_, point in HOLDING.findall(text):
        assert (int(number) - 1, kepware[type_], point) in rows
    for designator, number, type_, address in IGNITION.findall(text):
        encoding = {"HRUI": "uint32", "HRI": "int32", "HRF": "float32", "HRS": "string"}[designator]
        assert int(number) == int(address) + 1
        assert is_there(NATIVE, int(address), encoding)
        assert type_ in {encoding, "text"}


def test_the_data_type_of_siemens_md_is_the_overview():
    (block,) = (block for block in BLOCKS if block.page == "docs/howto/siemens.md" and "SemsOverview" in block.text)
    types = {"UInt": "uint16", "Int": "int16", "UDInt": "uint32", "DInt": "int32"}
    found = re.findall(r"(\w+)\"? : (\w+); *// (\d+)(?:,(?: x ([\d.]+))?(?: (\S+))?)?$", block.text, re.MULTILINE)
    rows = [line for line in registers() if 6300 <= line.address < 6348]
    assert rows[0].address + sum(line.count for line in rows) == 6348, "no word between them is missing"
    assert [(name, types[type_], int(at), scale or "1", unit) for name, type_, at, scale, unit in found] == [
        (line.point.split(".")[-1], line.type, line.address, line.scale, line.units) for line in rows
    ]


def test_how_to_pages_do_name_registers():
    texts = "".join(page.read_text() for page in HOW_TO)
    assert (len(ROW.findall(texts)), len(HOLDING.findall(texts)), len(IGNITION.findall(texts))) == (7, 3, 4)


# commands and data


def parsed(line):
    """Whether a line of a shell names commands and options that there are. Raises where one is wrong."""
    words = shlex.split(line.partition(">")[0], comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        del words[0]
    match words:
        case []:
            return
        case ["sems-gateway", "--version" | "--help"]:
            pass
        case ["sems-gateway", *rest]:
            assert rest[0] in COMMANDS, line
            command = loaded(rest[0])
            command.make_parser(typer.Context(command)).parse_args(list(rest[1:]))
        case ["make", *rest]:
            targets = [word for word in rest if "=" not in word]
            assert targets
            assert set(targets) <= TARGETS, line
        case ["uv", "tool", "install", "." | ".[kafka]"]:
            pass
        case _:
            raise AssertionError(f"nothing tries {line!r}: mark the block")


@pytest.mark.parametrize("block", tried("sh"), ids=by_place)
def test_a_command_is_one_that_there_is(block):
    for line in block.text.replace("\\\n", " ").splitlines():
        parsed(line)


PAGES = [*pages(), *sorted(str(page.relative_to(ROOT)) for page in ROOT.glob(".github/ISSUE_TEMPLATE/*.md"))]


@pytest.mark.parametrize("page", PAGES)
def test_a_command_within_a_sentence_is_one_that_there_is(page):
    text = re.sub(r"^ *```.*?^ *```$", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    for words in re.findall(r"`((?:sems-gateway|make) [^`]+)`", text):
        parsed(" ".join(words.split()).replace("|", " ").replace("…", ""))


def test_templates_ask_for_what_shows_a_fault():
    asked = "".join((ROOT / page).read_text() for page in PAGES if page.startswith(".github/"))
    assert re.search(r"sems-gateway doctor \w+ --json", asked)
    assert re.search(r"sems-gateway learn \w+ --record", asked)


@pytest.mark.parametrize("line", ["sems-gateway sned x", "sems-gateway run --fast c.yaml", "make tea", "curl http://x"])
def test_a_command_that_there_is_not_is_found(line):
    with pytest.raises(Exception, match=r"sned|--fast|tea|curl"):
        parsed(line)


@pytest.mark.parametrize("block", tried("json"), ids=by_place)
def test_a_document_is_json(block):
    rest, decoder, read = block.text.strip(), json.JSONDecoder(), 0
    while rest:
        _, end = decoder.raw_decode(rest)
        rest, read = rest[end:].lstrip(), read + 1
    assert read


@pytest.mark.parametrize("block", tried("csv"), ids=by_place)
def test_a_register_map_is_one(block, tmp_path):
    file = tmp_path / "map.csv"
    file.write_text(block.text)
    rows = list(csv.DictReader(io.StringIO(block.text)))
    assert len(CustomFamily(file, "abcd").lines) == len(rows)


def test_the_register_map_of_plugins_md_is_one():
    (table,) = (block for block in BLOCKS if block.page == "docs/plugins.md" and "RegisterTable(" in block.text)
    names = {}
    exec("from gateway.api.modbus import Register, RegisterTable\n" + table.text, names)
    assert [register.point for register in names["ACME"].registers] == ["ac_power", "active_power_limit"]


async def test_the_program_of_control_md_proves_an_audit(tmp_path):
    (program,) = (block for block in BLOCKS if block.page == "docs/control.md" and block.language == "python")
    make = Bench(tmp_path).command
    (tmp_path / "data").mkdir()
    journal = Journal(tmp_path / "data" / "journal.sqlite")
    await journal.open()
    await journal.record(event(make()))
    await journal.close()

    def run():
        return subprocess.run([sys.executable, "-c", program.text], cwd=tmp_path, check=False, capture_output=True)

    assert run().returncode == 0
    import sqlite3

    db = sqlite3.connect(tmp_path / "data" / "journal.sqlite", isolation_level=None)
    db.execute("DROP TRIGGER audit_stands")
    db.execute("UPDATE audit SET value = '1'")
    db.close()
    assert b"AssertionError" in run().stderr
