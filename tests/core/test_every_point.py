"""A row of the point table is whole: each has a register, a field of SEMS, and a word in the docs.

What it looks like to Home Assistant is tested in tests/bridges/mqtt/test_home_assistant_looks.py, what docs/control.md
says of a setpoint in tests/test_setpoint_docs.py.
"""

import re
from pathlib import Path

import pytest

from gateway.bridges.modbus.maps.native import NATIVE
from gateway.bridges.mqtt.home_assistant.looks import look
from gateway.core.points import POINTS, SETPOINTS
from gateway.sems.catalogue import load, platforms
from gateway.simulator.setpoints import Setpoints

REGISTERS = {row.field.removeprefix("native.") for row in NATIVE.rows}
CATALOGUES = [load(api) for api in [*platforms().values(), "realtime"]]
FIELDS = {point for catalogue in CATALOGUES for interface in catalogue.interfaces for point in interface.points}
DOCS = "\n".join(file.read_text() for file in (Path(__file__).parents[2] / "docs").rglob("*.md"))
CALLED = {f"alarm_{what}": f"data.alarm_{what}" for what in ("code", "text", "time")} | {
    "fault_text": "data.fault_text",
    "firmware": "device.firmware",
}
"""Texts that have a register under a name of the gateway's own."""
COUNTED = {"alarms_active", "alarm_severity", "alarm_code", "alarm_text", "alarm_time"}
"""What the gateway finds out itself, from the alarms that SEMS lists."""
STEERED = {"power_target", "import_limit"}
"""What only a fleet takes, or a limit."""
OF_FLEETS = {
    "fleet_state", "available_up", "available_down", "tracking_error", "unplaced_power", "members", "members_out",
    "data_age_p50", "data_age_p95", "writes_today", "limit_state", "import_limit_state", "import_excess",
}  # fmt: skip


@pytest.mark.parametrize("point", POINTS)
def test_every_point_has_a_register_a_field_a_look_and_a_word(point):
    assert CALLED.get(point, point) in REGISTERS, "give it a row in gateway/bridges/modbus/maps/native.py"
    assert point in FIELDS | COUNTED | STEERED | OF_FLEETS, "give it a field in a file of gateway/sems/catalogues"
    assert look(POINTS[point]), "give it a look in gateway/bridges/mqtt/home_assistant/looks.py"
    assert re.search(rf"\b{point}\b", DOCS), "say in docs/ what it is"


@pytest.mark.parametrize("api", platforms().values())
def test_every_setpoint_can_be_set_by_some_generation_and_a_group_as_a_whole(api):
    catalogue = load(api)
    able = {setpoint for interface in catalogue.interfaces for setpoint in interface.setpoints}
    for point in SETPOINTS.values():
        group = {other.id for other in SETPOINTS.values() if point.group and other.group == point.group}
        assert not group & able or group <= able, f"{api} sets a part of {group} alone"


def test_every_setpoint_is_set_somewhere_and_the_simulator_obeys_it():
    able = {setpoint for one in CATALOGUES for interface in one.interfaces for setpoint in interface.setpoints}
    assert able | STEERED == SETPOINTS.keys(), "give it an interface in a file of gateway/sems/catalogues"
    assert set(Setpoints.__struct_fields__) >= SETPOINTS.keys() - STEERED, (
        "give it a field in gateway/simulator/setpoints.py"
    )
