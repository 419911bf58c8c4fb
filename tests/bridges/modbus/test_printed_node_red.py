"""The exported flow in a real Node-RED with node-red-contrib-modbus: it reads right values."""

import asyncio
import json

import pytest

from gateway.bridges.modbus.exports import EXPORTS
from gateway.bridges.modbus.printed import Filter, served
from tests.bridges.modbus.conftest import serving
from tests.bridges.modbus.test_printed import LARGE, VALUES
from tests.kit.node_red import node_red
from tests.kit.process import eventually


@pytest.mark.parametrize("order", ["abcd", "cdab"])
async def test_node_red_reads_what_is_served(tmp_path, order):
    async with serving(tmp_path, devices=(LARGE,), maps=("native", "sunspec"), word_order=order) as gate:
        await gate.publish(LARGE.serial, **VALUES)
        settings = gate.bridge._settings.model_copy(update={"port": gate.port})
        lines = served("modbus", settings, gate.bridge.places, {LARGE.serial: LARGE}, "gw")
        flow = json.loads(EXPORTS["node-red"]([x for x in lines if Filter(unit=1).takes(x)], "127.0.0.1"))
        out = tmp_path / "values"
        for node in flow:
            if node["type"] == "modbus-read":
                node["rate"] = "1"
            if node["type"] == "function":
                node["wires"] = [[f"{node['id']}-json"]]
        for node in [node for node in flow if node["type"] == "function"]:
            flow.append(
                {
                    "id": f"{node['id']}-json", "type": "file", "z": "sems-tab", "filename": str(out),
                    "filenameType": "str", "appendNewline": True, "overwriteFile": "false", "wires": [[]],
                }
            )  # fmt: skip

        def found():
            values = {}
            text = out.read_text() if out.exists() else ""
            for line in text.rpartition("\n")[0].splitlines():  # the last one may be half written
                values |= json.loads(line)
            return values

        def run():
            with node_red(tmp_path / "user", flow):
                eventually(lambda: {*VALUES, "device_serial"} <= found().keys(), 300, found)

        await asyncio.to_thread(run)
    values = found()
    assert {name: pytest.approx(values[name], abs=0.051) for name in VALUES} == VALUES
    assert values["device_serial"] == LARGE.serial
