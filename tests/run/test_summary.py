"""A start ends in one line that says what there is, where it listens, and whether control is on."""

import asyncio
import json
import re

import pytest

from tests.bridges.open_api.kit import cloud
from tests.kit.ports import free_port
from tests.kit.process import sems_gateway
from tests.kit.terminal import on_terminal

CONFIG = """
log: {{format: {format}}}
bridges:
  sems: {{type: open_api, account: demo, password: demo, url: '{url}'}}
  modbus: {{type: modbus, port: {port}}}
  control: {{type: web, port: 0}}
{control}
"""
RULE = "control: {enabled: true, allow: [{devices: ['*'], setpoints: [running]}]}"


@pytest.fixture
async def config(tmp_path):
    async with cloud() as simulator:

        def make(control="", form="json"):
            file = tmp_path / "config.yaml"
            port = free_port()
            file.write_text(CONFIG.format(format=form, url=simulator.url, port=port, control=control))
            file.chmod(0o600)
            return file, port

        yield make


@pytest.mark.system
@pytest.mark.parametrize(("control", "words"), [("", "off"), (RULE, "on, 1 rule")])
async def test_it_says_what_there_is(config, control, words):
    file, port = config(control)

    def said():
        with sems_gateway("run", file) as gateway:
            return json.loads(gateway.line('.*"event": "running".*')[0])

    line = await asyncio.to_thread(said)
    assert line["plants"] == 3
    assert line["devices"] > 5
    assert line["control"] == words
    assert re.search(
        rf"sems http://127\S+, modbus 127\.0\.0\.1:{port} \(\d+ units\), control 127\.0\.0\.1:\d+", line["at"]
    )
    assert "down" not in line


@pytest.mark.system
async def test_on_a_terminal_the_time_comes_first_and_no_hash(config):
    file, _ = config(form="auto")

    def written():
        with on_terminal("run", file) as gateway:
            gateway.says("running")
            return gateway.written

    plain = re.sub(r"\x1b\[[0-9;]*m", "", await asyncio.to_thread(written))
    lines = plain.replace("\r", "").splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[", line) for line in lines if line.strip()), lines
    assert "journal open" not in plain
