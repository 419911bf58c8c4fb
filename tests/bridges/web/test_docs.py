"""Each curl of docs/http.md, run against the server with curl itself."""

import asyncio
import json
import re
import shutil
from pathlib import Path

import pytest

from tests.bridges.web.conftest import SN, WRITER, served
from tests.kit.bench import EVERYTHING

DOC = Path(__file__).parents[3] / "docs" / "http.md"
COMMANDS = re.findall(r"^curl .*$", DOC.read_text("utf-8"), re.MULTILINE)


@pytest.mark.system
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_every_example_does_what_it_says(tmp_path):
    answers = []
    async with served(tmp_path, control=EVERYTHING.model_copy(update={"resume": ["web"]})) as it:
        for command in COMMANDS:
            process = await asyncio.create_subprocess_shell(
                command.replace("http://127.0.0.1:9090", it.url),
                stdout=asyncio.subprocess.PIPE,
                env={"PATH": "/usr/bin:/bin", "TOKEN": WRITER, "SN": SN},
            )
            out, _ = await process.communicate()
            answers.append(json.loads(out))
    devices, storage, device, bridges, explained, taken, ended, command, cancelled, halted, resumed = answers
    assert devices["total"] == storage["total"] == 1
    assert device["setpoints"]["active_power_limit"]["max"] == 100
    assert "web" in bridges["bridges"]
    assert explained["permitted"] is True
    assert taken["commands"][0]["value"] == 60
    assert ended["commands"][0]["state"] == "succeeded"
    assert [step["state"] for step in command["steps"]] == ["accepted", "sent", "succeeded"]
    assert cancelled["reason"] == "not_cancellable"
    assert (halted["halted"], halted["reason"]) == (True, "work on the line")
    assert resumed == {"halted": False}
