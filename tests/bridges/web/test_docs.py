"""Each curl of docs/http.md, run against the server with curl itself."""

import asyncio
import json
import re
import shutil
from pathlib import Path

import pytest

from gateway.bridges.modbus import ModbusBridge, ModbusSettings
from gateway.bridges.web.problems import KINDS
from tests.bridges.web.conftest import SN, WRITER, served
from tests.kit.bench import EVERYTHING, until

DOC = Path(__file__).parents[3] / "docs" / "http.md"
COMMANDS = re.findall(r"^curl .*$", DOC.read_text("utf-8"), re.MULTILINE)


def test_each_problem_stands_in_the_table_by_its_status():
    rows = re.findall(r"^\| ([\d, ]+) \| (.*) \|$", DOC.read_text("utf-8"), re.MULTILINE)
    listed = {name: statuses for statuses, text in rows for name in re.findall(r"`(\w+)`", text)}
    for kind, row in KINDS.items():
        assert str(row.status) in listed[kind], kind


@pytest.mark.system
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_every_example_does_what_it_says(tmp_path):
    answers = []
    async with served(tmp_path, control=EVERYTHING.model_copy(update={"resume": ["web"]})) as it:
        modbus = it.bench.run(ModbusBridge, ModbusSettings(port=0), "modbus")
        await until(lambda: modbus.bridge.register_maps(SN))
        for command in COMMANDS:
            process = await asyncio.create_subprocess_shell(
                command.replace("http://127.0.0.1:9090", it.url),
                stdout=asyncio.subprocess.PIPE,
                env={"PATH": "/usr/bin:/bin", "TOKEN": WRITER, "SN": SN},
            )
            out, _ = await process.communicate()
            answers.append(json.loads(out))
    devices, storage, device, bridges, registers, recent, budgets, document, *commands = answers
    explained, taken, ended, command, cancelled, halted, resumed = commands
    assert devices["total"] == storage["total"] == 1
    assert device["setpoints"]["active_power_limit"]["max"] == 100
    assert "web" in bridges["bridges"]
    assert registers["map"] == "native"
    assert registers["registers"]
    assert recent["step"] == 120
    assert budgets["budgets"] == []
    assert document["openapi"] == "3.1.0"
    assert explained["permitted"] is True
    assert taken["commands"][0]["value"] == 60
    assert ended["commands"][0]["state"] == "succeeded"
    assert [step["state"] for step in command["steps"]] == ["accepted", "sent", "succeeded"]
    assert cancelled["reason"] == "not_cancellable"
    assert (halted["halted"], halted["reason"]) == (True, "work on the line")
    assert resumed == {"halted": False}
