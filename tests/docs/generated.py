"""What is generated out of the code: parts of docs, and golden files. `make docs` renews it, tests compare it."""

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from typer.testing import CliRunner

from gateway.bridges.modbus.directory import SHOWN
from gateway.bridges.modbus.gateway_unit import GATEWAY
from gateway.bridges.modbus.maps.goodwe.rows import GOODWE
from gateway.bridges.modbus.registers import OF_A_MAP, cells, markdown, registers
from gateway.cli import app
from gateway.cli.interfaces import Format, chosen, render
from gateway.sems.catalogue import load
from tests import rooms
from tests.docs import reference, setpoints
from tests.supply import bom

ROOT = Path(__file__).parents[2]
MADE = "made by `make docs`"
CATALOGUES = ("open_api", "realtime", "developer")


class Part(NamedTuple):
    """A file, or what stands in it between two markers."""

    file: str
    made: Callable[[], str]
    """Returns it as it is today."""
    begin: str = ""
    end: str = ""
    lasting: bool = False
    """Whether lines may only be added: clients rely on those that are there."""

    @property
    def name(self):
        return f"{self.file} {self.begin}".strip()

    def halves(self):
        """What stands before, inside and behind."""
        text = (ROOT / self.file).read_text()
        if not self.begin:
            return "", text.strip(), ""
        before, begin, rest = text.partition(f"<!-- {self.begin} -->")
        inside, end, behind = rest.partition(f"<!-- {self.end} -->")
        assert end, f"{self.file} has no {self.begin!r} with its {self.end!r}"
        return f"{before}{begin}\n\n", inside.strip(), f"\n\n{end}{behind}"

    def lost(self):
        """Lines that clients rely on and that are no more."""
        made = set(self.made().splitlines())
        return [line for line in self.halves()[1].splitlines() if line not in made] if self.lasting else []

    def is_of_today(self):
        return self.halves()[1] == self.made().strip()

    def renew(self):
        """Write it as it is today."""
        before, _, behind = self.halves()
        (ROOT / self.file).write_text(f"{before}{self.made().strip()}{behind or chr(10)}")


def native():
    return "\n".join(",".join(line[:8]) for line in cells(registers(), OF_A_MAP))


def goodwe():
    return "\n".join(
        f"{row.address},{row.count},{row.encoding},{row.exponent},{row.field},{'RW' if row.writable else 'R'}"
        for row in GOODWE.rows
    )


def interfaces(api):
    catalogue = load(api)
    return render(Format.MARKDOWN, catalogue, chosen(catalogue, None))


PLAN = """
gateway: {{data_dir: {data}}}
bridges:
  sems: {{type: open_api, account: demo, password: demo, url: "http://127.0.0.1:9", calls_per_hour: 3600}}
"""


def outages():
    """How long it takes to read again what an outage left out, as `sems-gateway plan` says."""
    lines = ["| devices, plants | 1 h away | 6 h | 24 h |", "|---|---|---|---|"]
    with TemporaryDirectory() as directory:
        file = Path(directory) / "config.yaml"
        file.write_text(PLAN.format(data=directory))
        for devices, plants in ((10, 1), (1_000, 50), (10_000, 500)):
            done = CliRunner().invoke(app, ["plan", str(file), "--devices", str(devices), "--plants", str(plants)])
            found = re.findall(r"(\d+) h in ([^(;]+) \((\d+) calls\)", done.output)
            assert [hours for hours, *_ in found] == ["1", "6", "24"], done.output
            cells = [f"{time}, {int(calls):,} calls" for _, time, calls in found]
            lines.append(f"| {devices:,}, {plants:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def licences():
    return bom.table(json.loads(bom.BOM.read_text()))


PARTS = (
    Part("tests/bridges/modbus/native.golden.csv", native, lasting=True),
    Part("tests/bridges/modbus/goodwe.golden.csv", goodwe, lasting=True),
    Part("docs/reference/native-registers.md", markdown, "registers:begin", "registers:end"),
    Part("docs/reference/gateway-registers.md", partial(markdown, GATEWAY, SHOWN), "gateway:begin", "gateway:end"),
    Part("docs/reference/setpoints.md", setpoints.tables, "setpoints: begin", "setpoints: end"),
    *(Part("docs/reference/interfaces.md", partial(interfaces, api), f"interfaces {api}", "end") for api in CATALOGUES),
    Part("docs/reference/settings.md", reference.settings, MADE, "end"),
    Part("docs/reference/commands.md", reference.commands, MADE, "end"),
    Part("docs/reference/points.md", reference.points, MADE, "end"),
    Part("docs/reference/http-api.md", reference.http_api, MADE, "end"),
    Part("docs/reference/metrics.md", reference.metrics, MADE, "end"),
    Part("docs/polling.md", outages, "outages", "end"),
    Part("docs/development.md", rooms.picture, "rooms: made by `make docs`", "end of rooms"),
    Part("docs/licences.md", licences),
)
