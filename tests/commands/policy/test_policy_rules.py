"""Rules: which devices, origins, values, steps; and what a wrong one is told."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.registry import installed
from gateway.commands.policy.policy import ControlSettings, Policy, Refusal, Rule
from gateway.commands.policy.rules import on_step
from gateway.core.model import Command, Device, DeviceKind, DeviceState, Origin, Quality, Range, Reason
from gateway.core.origins import matches
from gateway.core.points import SETPOINTS
from gateway.run.settings import Config, ConfigError
from tests.kit.bench import INVERTER
from tests.kit.clock import NOON

LIMIT = "active_power_limit"
PLANT = Device(serial="plant-1", kind=DeviceKind.PLANT, name="Hill House", setpoints={LIMIT: Range(0, 100)})
NUMBERS = st.floats(-150, 150, allow_nan=False).map(lambda x: round(x, 2))


class Still:
    """A clock that stands, or is moved."""

    def __init__(self):
        self.passed = 0.0

    def now(self):
        return NOON

    def monotonic(self):
        return 1000.0 + self.passed


def state(device, **values):
    return DeviceState(device=device, quality=Quality.GOOD, time=NOON, source="x", values=values)


KNOWN = {"plant-1": state(PLANT), INVERTER.serial: state(INVERTER)}


def rule(**fields):
    return Rule(**({"devices": ["*"], "setpoints": [LIMIT]} | fields))


def policy(*rules, clock=None, known=KNOWN, **settings):
    control = ControlSettings(enabled=True, allow=list(rules), **settings)
    return Policy(control, clock or Still(), known.get)


def command(value=50, setpoint=LIMIT, **fields):
    plain = {"id": "c", "serial": INVERTER.serial, "origin": "test", "created": NOON, "expires": NOON}
    return Command(**(plain | {"value": value, "setpoint": setpoint} | fields))


def reason(verdict):
    return verdict.reason if isinstance(verdict, Refusal) else None


@pytest.mark.parametrize(
    ("fields", "allowed"),
    [
        ({"plants": ["plant-1"]}, True),
        ({"plants": ["Hill House"]}, True),
        ({"plants": ["Hill*"]}, True),
        ({"plants": ["hill house"]}, False),
        ({"plants": ["plant-2"]}, False),
        ({"kinds": ["storage"]}, True),
        ({"kinds": ["inverter", "ev_charger"]}, False),
        ({"kinds": ["storage"], "plants": ["plant-2"]}, False),
        ({"kinds": ["storage"], "plants": ["plant-1"], "devices": ["9010*"]}, True),
        ({"kinds": ["storage"], "plants": ["plant-1"], "devices": ["8*"]}, False),
    ],
)
def test_a_rule_names_plants_and_kinds(fields, allowed):
    verdict = policy(Rule(setpoints=[LIMIT], **fields)).judge(command(), INVERTER)
    assert reason(verdict) is (None if allowed else Reason.NOT_PERMITTED)


def test_a_plant_itself_is_of_its_plant_and_one_without_a_plant_of_none():
    of_plant = policy(Rule(setpoints=[LIMIT], plants=["plant-1", "Hill House"]))
    assert reason(of_plant.judge(command(), PLANT)) is None
    alone = msgspec.structs.replace(INVERTER, plant="")
    assert reason(policy(Rule(setpoints=[LIMIT], plants=["*"])).judge(command(), alone)) is Reason.NOT_PERMITTED
    unknown = policy(Rule(setpoints=[LIMIT], plants=["Hill House"]), known={})
    assert reason(unknown.judge(command(), INVERTER)) is Reason.NOT_PERMITTED


@pytest.mark.parametrize(
    ("pattern", "asks", "allowed"),
    [
        ("modbus", "modbus:10.0.0.1:5", True),
        ("modbus", "modbus/operator:10.0.0.1:5", True),
        ("modbus/operator", "modbus/operator:10.0.0.1:5", True),
        ("modbus/operator", "modbus:10.0.0.1:5", False),
        ("modbus/operator", "modbus/guest:operator", False),
        ("modbus/*", "modbus:1", False),
        ("modbus/*", "modbus/x:1", True),
        ("m*", "modbus/x:1", True),
        ("*", "web/a:::1", True),
        ("mqtt/al*", "mqtt/alice", True),
        ("mqtt/al*", "mqtt/bob", False),
        ("operator", "modbus/operator", False),
    ],
)
def test_an_origin_is_a_bridge_or_a_bridge_and_a_role(pattern, asks, allowed):
    verdict = policy(rule(origins=[pattern])).judge(command(origin=asks), INVERTER)
    assert reason(verdict) is (None if allowed else Reason.NOT_PERMITTED)


@given(st.text(min_size=1, max_size=20), st.text(max_size=20))
def test_no_role_passes_for_another(role, detail):
    asked = Origin.of("modbus", role, detail)
    assert asked.who == Origin.of("modbus", role)
    assert matches("modbus", asked.who)
    if role != "operator":
        assert not matches("modbus/operator", asked.who)


@pytest.mark.parametrize(
    ("value", "expected"), [(50, None), (49.5, Reason.BAD_STEP), (20, None), (100, None), (0, Reason.OUT_OF_RANGE)]
)
def test_a_step_is_kept(value, expected):
    verdict = policy(rule(min=20, step=10)).judge(command(value), INVERTER)
    assert reason(verdict) is expected
    if expected is Reason.BAD_STEP:
        assert verdict.detail == "active_power_limit takes multiples of 10 % here, e.g. 40 or 50, not 49.5"


def test_steps_of_device_and_rule_go_together_and_bounds_lie_on_them():
    device = msgspec.structs.replace(INVERTER, setpoints={LIMIT: Range(5, 97, 4)})
    judge = policy(rule(step=6))
    assert judge.permitted(device, Origin("test")) == {LIMIT: Range(12, 96, 12)}
    assert [v for v in range(101) if reason(judge.judge(command(v), device)) is None] == list(range(12, 97, 12))
    assert policy(rule()).permitted(device, Origin("test")) == {LIMIT: Range(8, 96, 4)}
    narrow = msgspec.structs.replace(INVERTER, setpoints={LIMIT: Range(51, 52)})
    assert all(policy(rule(step=10)).judge(command(v), narrow).reason for v in range(101))


def test_a_revert_value_is_judged_alike():
    judge = policy(rule(min=20, max=80, step=10))
    for value, expected in ((80, None), (90, Reason.OUT_OF_RANGE), (25, Reason.BAD_STEP), ("x", Reason.BAD_VALUE)):
        verdict = judge.judge(command(revert_after=60.0, revert_value=value), INVERTER)
        assert reason(verdict) is expected
        assert expected is None or verdict.detail.startswith("revert_value: ")
    assert reason(judge.judge(command(revert_after=60.0, revert_value=101), INVERTER)) is Reason.OUT_OF_RANGE


LIMITS = st.fixed_dictionaries(
    {},
    optional={
        "min": st.integers(-12, 12).map(lambda n: 10.0 * n),
        "max": st.integers(-12, 12).map(lambda n: 10.0 * n),
        "step": st.sampled_from([0.1, 0.5, 1, 2, 5, 10]),
        "ramp": st.sampled_from([10, 20.5, 60, 300]),
    },
).filter(lambda f: f.get("min", -999) <= f.get("max", 999))


@given(LIMITS, LIMITS, NUMBERS, st.none() | st.sampled_from([1, 2.5, 10]))
def test_what_is_tighter_never_loosens(loose, more, value, device_step):
    tight = loose | {
        key: (max if key == "min" else min)(loose.get(key, number), number)
        for key, number in more.items()
        if key != "step" or "step" not in loose
    }
    if tight.get("min", -999) > tight.get("max", 999):
        return
    device = msgspec.structs.replace(INVERTER, setpoints={LIMIT: Range(0, 100, device_step)})
    known = {INVERTER.serial: state(device, active_power_limit=50.0)}
    permitted = policy(rule(**tight), known=known).judge(command(value), device)
    if not isinstance(permitted, Refusal):
        assert policy(rule(**loose), known=known).judge(command(value), device) == permitted


@given(LIMITS, NUMBERS, st.none() | st.sampled_from([1, 2.5, 10]))
def test_what_is_permitted_is_what_the_reported_range_says(limits, value, device_step):
    limits.pop("ramp", None)
    device = msgspec.structs.replace(INVERTER, setpoints={LIMIT: Range(0, 100, device_step)})
    judge = policy(rule(**limits))
    low, high, step = msgspec.structs.astuple(judge.permitted(device, Origin("test"))[LIMIT])
    expected = low <= value <= high and (step is None or on_step(value, step))
    assert (reason(judge.judge(command(value), device)) is None) is expected


CONFIG = """\
bridges:
  web: {{type: web, tokens: {{scada: {{token: 0123456789abcdef0}}}}}}
  mqtt: {{type: mqtt, host: localhost, users: [alice]}}
  modbus: {{type: modbus, listeners: [{{port: 5021, role: operator}}]}}
control:
  enabled: true
  {rest}
  allow:
    - devices: ["*"]
      setpoints: [running]
    - {rule}
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{kinds: [invertr], setpoints: [running]}", "kinds[0]: there is no kind of device 'invertr'; did you mean 'i"),
        ("{kinds: [5], setpoints: [running]}", "kinds[0]: input should be"),
        ("{devices: [a], setpoints: [runing]}", "setpoints[0]: there is no setpoint 'runing'; did you mean 'running'?"),
        ("{devices: [a], setpoints: [active]}", "setpoints[0]: there is no setpoint 'active'; did you mean 'active_p"),
        ("{plant: [a], setpoints: [running]}", "unknown key 'plant'; did you mean 'plants'?"),
        ("{setpoints: [running]}", 'say which devices: devices: ["*"] for all, or plants, or kinds'),
        ("{devices: [a], setpoints: [running], step: 1}", "running is no number; take out step"),
        ("{devices: [a], setpoints: [battery_mode], ramp: 1, step: 1}", "battery_mode is no number; take out step and"),
        ("{devices: [a], setpoints: [active_power_limit, export_limit], min: 1, max: 2}", "with min and max, a rule"),
        ("{devices: [a], setpoints: [active_power_limit], min: 5, step: 10}", "min 5 is no multiple of step 10"),
        ("{devices: [a], setpoints: [active_power_limit], max: 5, step: 10}", "max 5 is no multiple of step 10"),
        ("{devices: [a], setpoints: [active_power_limit], ramp: 5, step: 10}", "ramp 5 is less than step 10"),
        ("{devices: [a], setpoints: [active_power_limit], min: 5, max: 1}", "min 5 is above max 1"),
        ("{devices: [a], setpoints: [active_power_limit], step: 0}", "greater than 0"),
        ("{devices: [a], setpoints: [running], origins: [mqtt/alcie]}", "origins[0]: the bridge 'mqtt' knows no role"),
        ("{devices: [a], setpoints: [running], origins: [web/scda]}", "no role 'scda'; did you mean 'scada'?"),
        ("{devices: [a], setpoints: [running], origins: [modbus/x]}", "knows no role 'x'; known here: operator"),
        (
            "{devices: [a], setpoints: [running], origins: [cli/me]}",
            "nobody has a role at the bridge 'cli'; write 'cli'",
        ),
    ],
)
def test_a_rule_that_makes_no_sense_is_told_with_its_line(tmp_path, text, expected):
    (problem,) = problems(tmp_path, CONFIG.format(rest="ttl: 60", rule=text))
    assert problem.line == 11
    assert expected in f"{problem.where}: {problem.text}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rates: {mqqt: 5}", "control.rates.mqqt: there is no bridge 'mqqt'; did you mean 'mqtt'?"),
        ("rates: {mqtt: 0}", "greater than or equal to 1"),
        ('rates: {"mqtt:x": 5}', "'mqtt:x' is no origin"),
        ("resume: [clii]", "control.resume[0]: there is no bridge 'clii'; did you mean 'cli'?"),
    ],
)
def test_rates_and_resume_are_checked_too(tmp_path, text, expected):
    (problem,) = problems(tmp_path, CONFIG.format(rest=text, rule="{devices: [a], setpoints: [running]}"))
    assert problem.line == 7
    assert expected in f"{problem.where}: {problem.text}"


def test_good_ones_are_taken(tmp_path):
    rules = (
        "{kinds: [ev_charger], setpoints: [charging], origins: [mqtt/alice, mqtt/*, 'm*/x', web/scada, modbus, cli]}"
    )
    file = tmp_path / "c.yaml"
    file.write_text(CONFIG.format(rest="rates: {mqtt/alice: 3, '*': 5}", rule=rules))
    config = Config.load(file, installed())
    assert config.rule_lines == (9, 11)
    assert config.unknown_origin("mqtt/alice:x") == config.unknown_origin("cli:me") == ""
    assert "knows no role" in config.unknown_origin("mqtt/bob")
    assert "no bridge 'revert'" in config.unknown_origin("revert")


def problems(tmp_path, text):
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        Config.load(file, installed())
    return caught.value.problems


def test_names_that_nobody_has_are_found():
    control = ControlSettings(
        allow=[
            rule(devices=[INVERTER.serial, "8*"]),
            Rule(plants=["plant-1", "Hill*", "Vale"], setpoints=[LIMIT]),
            Rule(kinds=["meter"], setpoints=[LIMIT]),
        ]
    )
    found = control.unmet({d.serial: d for d in (INVERTER, PLANT)})
    assert [msgspec.structs.astuple(unmet) for unmet in found] == [(0, "devices", "8*"), (1, "plants", "Vale")]
    assert {unmet.name for unmet in control.unmet({})} == {INVERTER.serial, "8*", "plant-1", "Hill*", "Vale"}


@pytest.mark.parametrize(
    ("fields", "holds"),
    [
        ({"devices": ["*"], "setpoints": ["*"]}, True),
        ({"devices": ["*"], "setpoints": ["active_*", "battery_*"]}, True),
        ({"devices": ["*"], "setpoints": ["battery_*"]}, False),
        ({"kinds": ["*"], "setpoints": [LIMIT]}, True),
        ({"kinds": ["inv*", "stor*"], "setpoints": [LIMIT]}, True),
        ({"kinds": ["ev_*", "inv*"], "setpoints": [LIMIT]}, False),
        ({"plants": ["*"], "setpoints": ["active_power_limi?"]}, True),
    ],
)
def test_patterns_mean_the_same_everywhere_in_a_rule(fields, holds):
    asked = Rule(**fields)
    assert asked.covers(INVERTER, "Hill House", LIMIT, "a/x") is (
        holds and (asked.plants is None or bool(INVERTER.plant))
    )


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"setpoints": ["warp_*"]}, "there is no setpoint 'warp_\\*'"),
        ({"setpoints": [LIMIT], "kinds": ["warp*"]}, "there is no kind of device"),
        ({"setpoints": ["active_*"], "max": 50}, "takes one setpoint"),
    ],
)
def test_a_pattern_that_can_never_hold_or_has_limits_is_refused(fields, says):
    with pytest.raises(ValueError, match=says):
        Rule(devices=["*"], **fields)


def test_every_number_setpoint_takes_limits():
    for name, point in SETPOINTS.items():
        numeric = point.type.value in ("float", "integer")
        if numeric:
            assert rule(setpoints=[name], step=1, ramp=1).step == 1
