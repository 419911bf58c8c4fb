"""The catalogue is data, and its rows fit the point table."""

import pytest

from gateway.core.points import POINTS, SETPOINTS
from gateway.sems.catalogue import SemsError, load

CATALOGUE = load("open_api")


@pytest.mark.parametrize("interface", CATALOGUE.interfaces, ids=lambda interface: interface.name)
def test_rows_name_points_that_exist_or_attributes(interface):
    for row in interface.response:
        assert bool(row.point) != bool(row.attribute), row
        assert not row.point or row.point in POINTS, row
    for row in interface.request:
        assert bool(row.arg) != (row.const is not None), row
    assert set(interface.setpoints) <= set(SETPOINTS)


def test_a_control_call_carries_every_setpoint_of_its_group():
    for interface in CATALOGUE.interfaces:
        for setpoint in interface.setpoints:
            group = SETPOINTS[setpoint].group
            together = {p.id for p in SETPOINTS.values() if group and p.group == group} or {setpoint}
            assert together <= {row.arg for row in interface.request}


def test_requests_are_written_as_sems_takes_them():
    limit = CATALOGUE.control_of("active_power_limit")
    assert limit.parameters({"serial": "X", "active_power_limit": 50.0}) == {
        "InverterSN": "X",
        "ActivePowerLimit": "50",
        "ActivePowerLimitSettingMark": "1",
    }
    switch = CATALOGUE.control_of("running")
    assert switch.parameters({"serial": "X", "running": False})["InverterStatus"] == "2"
    battery = CATALOGUE.control_of("battery_mode")
    filled = {"serial": "X", "battery_mode": "discharge", "battery_power_target": 3000.4, "battery_target_soc": 20.0}
    filled |= {"battery_ordered": True, "begins": 1000, "ends": 4600}
    assert battery.parameters(filled) == {
        "InverterSN": "X",
        "BatteryCDEnable": 1,
        "BatteryCDMode": 3,
        "BatteryCDPW": 3000,
        "BatteryCDTargetSOC": 20,
        "CDStartTime": 1000,
        "CDEndTime": 4600,
    }
    handed_back = battery.parameters(filled | {"battery_ordered": False, "battery_mode": "auto"})
    assert (handed_back["BatteryCDEnable"], handed_back["BatteryCDMode"]) == (0, 1)


@pytest.mark.parametrize(("api", "field", "none"), [("open_api", "ExportLimit", "-1"), ("developer", "items", -1)])
def test_no_limit_has_a_word_of_its_own(api, field, none):
    interface = load(api).control_of("export_limit")
    sent = interface.parameters({"serial": "none", "export_limit": "none"})
    assert none in (sent[field], *(sent["items"][0]["data"].values() if "items" in sent else ()))
    assert "none" in (sent.get("InverterSN"), *(item["sn"] for item in sent.get("items", ())))


def test_codes():
    assert CATALOGUE.error_of("100002") is SemsError.TOKEN_EXPIRED
    assert CATALOGUE.error_of("GY0429") is SemsError.RATE_LIMITED
    assert CATALOGUE.error_of("42") is None
    assert CATALOGUE.control_of("charging") is None
    with pytest.raises(KeyError):
        CATALOGUE.interface("GetNothing")
