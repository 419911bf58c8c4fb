"""Default deny."""

import pytest
from pydantic import ValidationError

from gateway.commands.policy.policy import ControlSettings, Refusal, Rule
from gateway.core.model import Origin, Range, Reason
from tests.kit.bench import INVERTER, Bench
from tests.kit.clock import FakeClock, virtual


def rule(**fields):
    return Rule(**({"devices": ["*"], "setpoints": ["active_power_limit"]} | fields))


def judge(control, tmp_path, **command):
    bench = Bench(tmp_path, control, FakeClock())
    return bench.policy.judge(bench.command(**command), INVERTER)


def reason(verdict):
    assert isinstance(verdict, Refusal)
    return verdict.reason


@virtual
async def test_read_only_unless_enabled(tmp_path):
    assert reason(judge(ControlSettings(allow=[rule()]), tmp_path)) is Reason.CONTROL_DISABLED


@virtual
async def test_enabled_without_a_rule_denies(tmp_path):
    assert reason(judge(ControlSettings(enabled=True), tmp_path)) is Reason.NOT_PERMITTED


@pytest.mark.parametrize(
    ("fields", "allowed"),
    [
        ({}, True),
        ({"devices": [INVERTER.serial]}, True),
        ({"devices": ["9010*"]}, True),
        ({"devices": ["8*", "other"]}, False),
        ({"setpoints": ["running"]}, False),
        ({"origins": ["test"]}, True),
        ({"origins": ["mqtt", "modbus"]}, False),
    ],
)
@virtual
async def test_a_rule_names_device_setpoint_and_origin(tmp_path, fields, allowed):
    verdict = judge(ControlSettings(enabled=True, allow=[rule(**fields)]), tmp_path, origin="test:somebody")
    assert verdict == 50.0 if allowed else reason(verdict) is Reason.NOT_PERMITTED


@virtual
async def test_the_tighter_of_the_limits_counts(tmp_path):
    control = ControlSettings(enabled=True, allow=[rule(min=20, max=200)])
    assert reason(judge(control, tmp_path, value=19)) is Reason.OUT_OF_RANGE
    assert reason(judge(control, tmp_path, value=101)) is Reason.OUT_OF_RANGE
    assert judge(control, tmp_path, value=20) == 20.0
    bench = Bench(tmp_path, control, FakeClock())
    assert bench.policy.permitted(INVERTER, Origin("test")) == {"active_power_limit": Range(20, 100)}


@virtual
async def test_nothing_is_permitted_while_control_is_off(tmp_path):
    policy = Bench(tmp_path, ControlSettings(allow=[rule()]), FakeClock()).policy
    assert policy.permitted(INVERTER, Origin("test")) == {}


@pytest.mark.parametrize(
    "fields",
    [
        {"setpoints": ["warp_factor"]},
        {"setpoints": ["running", "active_power_limit"], "min": 1},
        {"min": 5, "max": 4},
        {"unknown": 1},
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(fields):
    with pytest.raises(ValidationError):
        rule(**fields)
