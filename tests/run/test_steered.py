"""What fleets and limits say and hardly mean: `check` tells it, with what to write instead, and where."""

import json

import pytest
from typer.testing import CliRunner

from gateway.api.registry import installed
from gateway.cli import app
from gateway.run.settings import Config, ConfigError

HEAD = """\
gateway: {data_dir: .}
bridges:
  web: {type: web}
"""
FLEETS = """\
fleets:
  north:
    members: {devices: [SN1, SN2]}
  south:
    members: {devices: ["SN3*"]}
limits:
  grid:
    device: fleet:north
    failsafe: 4200
"""
ALLOW = [
    'devices: ["fleet:*"], setpoints: [power_target], origins: [web]',
    'devices: ["SN*"], setpoints: [active_power_limit], origins: ["fleet/*"]',
    'devices: ["limit:grid"], setpoints: [export_limit], origins: [web]',
    'devices: ["fleet:north"], setpoints: [active_power_limit], origins: [limit/grid]',
]
"""All that is needed, and no more."""


def control(*rules):
    return "control:\n  enabled: true\n  allow:\n" + "".join(f"    - {{{rule}}}\n" for rule in rules)


@pytest.fixture
def doubted(tmp_path):
    def doubted(fleets=FLEETS, rules=ALLOW):
        file = tmp_path / "config.yaml"
        file.write_text(HEAD + fleets + (control(*rules) if rules else ""))
        file.chmod(0o600)
        return [line.rpartition("config.yaml:")[2] for line in Config.load(file, installed()).warnings()]

    return doubted


def test_nothing_is_doubted_where_all_is_there(doubted):
    assert doubted() == []


def test_what_only_shows_needs_no_rules(doubted):
    assert doubted(rules=()) == []


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        (0, ['5: fleets.north: no rule of control.allow lets anybody command it; add {devices: ["fleet:north"]',
             "7: fleets.south: no rule of control.allow lets anybody command it"]),
        (1, ['5: fleets.north: no rule of control.allow lets it command its members; add {devices: ["*"]',
             "7: fleets.south: no rule of control.allow lets it command its members"]),
        (2, ['10: limits.grid: no rule of control.allow lets anybody set it; add {devices: ["limit:grid"]']),
        (3, [('10: limits.grid: no rule of control.allow lets it command fleet:north; add {devices: ["fleet:north"], '
             "setpoints: [active_power_limit], origins: [limit/grid]}")]),
    ],
)  # fmt: skip
def test_a_rule_that_is_missing_is_told_with_its_words(doubted, missing, expected):
    found = doubted(rules=[rule for n, rule in enumerate(ALLOW) if n != missing])
    # Who may set the fleet by the limit alone can command it, and so is south not named by the fourth rule.
    expected = expected[1:] if missing == 0 else expected
    assert len(found) == len(expected), found
    for line, begin in zip(found, expected, strict=True):
        assert line.lstrip().startswith(begin) or begin in line


def test_what_an_import_limit_writes_to_needs_rules_too(doubted):
    limits = FLEETS.partition("limits:")[0] + "limits:\n  home: {device: SN4, import_failsafe: 4200, chargers: [EV]}\n"
    rules = [
        'devices: ["limit:home"], setpoints: [import_limit], origins: [web]',
        "devices: [EV], setpoints: [charging], origins: [limit/home]",
    ]
    assert doubted(limits, [*ALLOW[:2], *rules]) == []
    assert [line.partition(";")[0] for line in doubted(limits, ALLOW[:2])] == [
        "10: limits.home: no rule of control.allow lets anybody set it",
        "10: limits.home: no rule of control.allow lets it command EV",
    ]
    (line,) = doubted(limits.replace(", chargers: [EV]", ""), [*ALLOW[:2], *rules])
    assert 'add {devices: ["SN4"], setpoints: [battery_mode, battery_power_target], origins: [limit/home]}' in line


def test_a_fleet_that_only_it_itself_may_command_is_told(doubted):
    found = doubted(rules=['devices: ["*"], setpoints: ["*"], origins: ["fleet/*"]', ALLOW[2], ALLOW[3]])
    assert any("fleets.south: no rule of control.allow lets anybody command it" in line for line in found)


@pytest.mark.parametrize(
    ("rule", "is_told"),
    [
        ('devices: ["SN*"], setpoints: [battery_mode], origins: [fleet]', True),  # half of an order
        ('devices: ["SN*"], setpoints: ["battery_*"], origins: [fleet]', False),
        ('devices: ["SN*"], setpoints: [running], origins: [fleet]', True),
        ('kinds: [ev_charger], setpoints: ["*"], origins: [fleet]', True),
        ('plants: [House], setpoints: ["*"], origins: [fleet]', False),  # which devices these are shows later
        ('devices: ["SN*"], setpoints: ["*"], origins: [fleet/south]', True),
    ],
)
def test_a_rule_has_to_let_members_be_steered(doubted, rule, is_told):
    found = doubted(rules=[ALLOW[0], rule, ALLOW[2], ALLOW[3]])
    assert (
        any("fleets.north: no rule of control.allow lets it command its members" in line for line in found) == is_told
    )


def test_members_that_are_written_out_and_no_rule_names_are_told(doubted):
    rules = [rule.replace('"SN*"', "SN1, SN3") for rule in ALLOW]
    (line,) = doubted(rules=rules)
    assert "fleets.north.members.devices: no rule of control.allow lets it command SN2; add" in line


def test_a_fallback_is_a_command_and_needs_a_rule(doubted):
    fleets = FLEETS.replace("[SN1, SN2]}", "[SN1, SN2]}\n    fallback: {after: 300, value: 0}")
    (line,) = doubted(fleets)
    assert line.startswith("7: fleets.north.fallback: no rule of control.allow lets the fleet fall back by itself; add")
    rule = 'devices: ["fleet:north"], setpoints: [power_target], origins: [fleet/north]'
    assert rule in line
    assert doubted(fleets, [*ALLOW, rule]) == []


def test_a_device_in_two_fleets_and_a_second_limit_are_told(doubted):
    second = FLEETS.replace('"SN3*"', "SN3, SN1") + "  two: {device: fleet:north, failsafe: 0}\n"
    found = doubted(second, ())
    assert [line.partition(" ")[2].partition(";")[0] for line in found] == [
        "fleets.south.members.devices[1]: SN1 is a member of fleet north already, and of one at most",
        "limits.two.device: limit grid is of fleet:north already, and each writes over the other",
    ]


def test_a_member_that_nobody_has_seen_is_told_once_it_is_known_which_there_are(doubted, tmp_path):
    fleets = FLEETS.replace("SN2]}", "SN2]}\n    weights: {SN9: 2}") + "  own: {device: SN8, failsafe: 0}\n"
    assert doubted(fleets, ()) == []
    seen = dict.fromkeys(("SN1", "SN2", "SN31", "fleet:north"), "2026-06-21T12:00:00Z")
    (tmp_path / "devices.json").write_text(json.dumps({"version": 1, "devices": seen}))
    found = doubted(fleets, ())
    assert [line.partition(" ")[2].partition(";")[0] for line in found] == [
        "fleets.north.members: no device 'SN9' has been seen",
        "limits.own.device: no device 'SN8' has been seen",
    ]
    (tmp_path / "devices.json").write_text("{")
    assert doubted(fleets, ()) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("device: fleet:north", "device: fleet:nord",
         "limits.grid.device: there is no fleet 'nord'; did you mean 'north'?"),
        ("device: fleet:north", "device: limit:grid", "limits.grid.device: 'limit:grid' is a limit itself"),
        ("[SN1, SN2]", '["fleet:north"]', "fleets.north.members: 'fleet:north' is a fleet, and no fleet"),
        ("[SN1, SN2]}", "[SN1], kinds: [inverter]}\n    share: soc", "fleets.north: share: soc needs members"),
        ("failsafe: 4200", "failsafe_duration: 9000", "limits.grid: name failsafe (W that may be fed in)"),
    ],
)  # fmt: skip
def test_what_can_not_work_is_refused_by_check(tmp_path, old, new, expected):
    file = tmp_path / "config.yaml"
    file.write_text(HEAD + FLEETS.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        Config.load(file, installed())
    (line,) = caught.value.lines()
    assert line.partition(": ")[2].startswith(expected), line
    done = CliRunner().invoke(app, ["check", str(file)])
    assert done.exit_code == 2
    assert expected[:20] in " ".join(done.output.split())


BATTERY_AND_CAR = """\
fleets:
  north: {members: {kinds: [storage, inverter]}}
  south: {members: {kinds: [inverter]}}
  east: {members: {plants: ["*"]}}
  west: {members: {devices: ["SN9*"]}}
limits:
  home:
    device: SN1
    import_failsafe: 4200
    chargers: [EV]
  garage:
    device: SN4
    import_failsafe: 4200
    chargers: [EV]
"""
EVERYTHING = ['devices: ["*"], setpoints: ["*"]']


def test_a_battery_that_a_fleet_and_a_limit_steer_and_a_charger_of_two_limits_are_named(doubted):
    only = BATTERY_AND_CAR.replace("SN4", "fleet:west")
    assert doubted(only, EVERYTHING) == [
        ("11: limits.home.device: SN1 is a member of fleet north too, and each writes over the other; "
         "take it out of one"),
        "17: limits.garage.chargers[0]: EV is of limit home already, and each writes over the other; keep one",
    ]  # fmt: skip


def test_a_limit_that_may_not_order_the_battery_and_one_with_a_meter_of_its_own_meet_no_fleet(doubted):
    fleet, _, _ = BATTERY_AND_CAR.partition("  south")
    charger = fleet + "limits:\n  home: {device: SN1, import_failsafe: 4200, chargers: [EV]}\n"
    rules = [
        'devices: ["limit:*", "fleet:*"], setpoints: ["*"]',
        'devices: [EV], setpoints: [charging], origins: ["limit/*"]',
        'devices: ["*"], setpoints: [active_power_limit], origins: ["fleet/*"]',
    ]
    assert doubted(charger, rules) == []
    export = fleet + "limits:\n  home: {device: SN1, failsafe: 4200}\n"
    assert doubted(export, EVERYTHING) == []
    rules[1] = 'devices: [SN1], setpoints: [active_power_limit], origins: ["limit/*"]'
    assert "fleet north too" in doubted(export, rules)[0]
