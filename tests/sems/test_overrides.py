"""A user whose GoodWe document says otherwise overrides a line; what fits nothing is named with its line."""

import re
from pathlib import Path

import pytest
import yaml
from pydantic import Field, ValidationInfo, field_validator

from gateway.api.bridge import BridgeSettings
from gateway.config.document import ConfigError, Document
from gateway.sems.catalogue import SemsError, Standing, load
from gateway.sems.overrides import NO_OVERRIDES, Overrides, checked, overridden

CLASSIC = load("open_api")


class Settings(BridgeSettings):
    api: str = "open_api"
    overrides: Overrides = Field(default=NO_OVERRIDES, description="what is otherwise")

    @field_validator("overrides")
    @classmethod
    def _fit(cls, overrides, info: ValidationInfo):
        return checked(overrides, info.data["api"])


@pytest.fixture
def read(tmp_path):
    """The catalogue that a configuration makes; a problem is raised as one of the configuration."""

    def read(text, api="open_api"):
        file = tmp_path / "config.yaml"
        file.write_text(text)
        document = Document.read(file)
        try:
            settings = Settings.model_validate({"api": api} | document.data, context={"directory": tmp_path})
        except ValueError as error:
            raise ConfigError(file, [document.problem((), Settings, e) for e in error.errors()]) from None
        return overridden(load(api), settings.overrides)

    return read


def row(catalogue, interface, field):
    return next(r for r in catalogue.interface(interface).response if r.field == field)


def test_without_any_the_catalogue_is_as_it_was(read):
    assert read("overrides: {}").interfaces == CLASSIC.interfaces
    assert overridden(CLASSIC, NO_OVERRIDES) == CLASSIC


def test_a_row_changes_name_and_scale_and_stands_as_config(read):
    catalogue = read("overrides: {interfaces: {GetInverterBySN: {fields: {pac: {field: Pac, scale: 1000}}}}}")
    changed = row(catalogue, "GetInverterBySN", "Pac")
    assert (changed.point, changed.scale, changed.standing) == ("ac_power", 1000, Standing.CONFIG)
    before, after = CLASSIC.interface("GetInverterBySN"), catalogue.interface("GetInverterBySN")
    assert "pac" not in [r.field for r in after.response]
    assert after.standing is before.standing, "of the interface itself nothing was said"
    assert [r for r in after.response if r != changed] == [r for r in before.response if r.field != "pac"]


def test_a_new_field_comes_before_those_that_give_the_same_point(read):
    catalogue = read("overrides: {interfaces: {GetInverterBySN: {fields: {heatsink: {point: temperature}}}}}")
    first, *others = [r for r in catalogue.interface("GetInverterBySN").response if r.point == "temperature"]
    assert (first.field, first.standing) == ("heatsink", Standing.CONFIG)
    assert [r.field for r in others] == ["tempperature"]


def test_null_removes(read):
    text = """
    overrides:
      codes: {100004: null}
      interfaces:
        GetPlantIncome: null
        GetInverterBySN: {fields: {qac: null, status: {options: {2: null, 7: fault}}}}
        SetWorkMode: {request: {WorkModeSettingMark: null}}
    """
    catalogue = read(text)
    assert [i.name for i in CLASSIC.interfaces if i not in catalogue.interfaces] == [
        "GetPlantIncome", "GetInverterBySN", "SetWorkMode"
    ]  # fmt: skip
    assert "GetPlantIncome" not in [i.name for i in catalogue.interfaces]
    assert "qac" not in [r.field for r in catalogue.interface("GetInverterBySN").response]
    assert row(catalogue, "GetInverterBySN", "status").options == {
        "-1": "offline", "0": "waiting", "1": "normal", "7": "fault"
    }  # fmt: skip
    assert [r.field for r in catalogue.interface("SetWorkMode").request] == ["InverterSN", "WorkMode"]
    assert catalogue.error_of("100004") is None


def test_everything_that_an_interface_says_of_itself(read):
    text = """
    overrides:
      base: /api/v2/
      success: [0, "00000"]
      codes: {E77: token_expired}
      token: {header: X-Token, lifetime: 600}
      request_id: X-Request
      interfaces:
        GetInverterAlarms: {method: GET, path: alarms/inverter, rounds: 3, batch: 10, lists: [items, ""], of: [storage]}
        GetInverterPower: {lists: [records]}
    """
    catalogue = read(text)
    alarms = catalogue.interface("GetInverterAlarms")
    assert (alarms.method, catalogue.url_path(alarms)) == ("GET", "/api/v2/alarms/inverter")
    assert (alarms.rounds, alarms.batch, alarms.lists, alarms.of) == (3, 10, ("items", ""), ("storage",))
    assert alarms.standing is Standing.CONFIG
    assert catalogue.success == ("0", "00000")
    assert catalogue.error_of("E77") is SemsError.TOKEN_EXPIRED
    assert (catalogue.token.header, catalogue.token.lifetime, catalogue.request_id) == ("X-Token", 600, "X-Request")
    power = {r.field: r.shape for r in catalogue.interface("GetInverterPower").response}
    assert power == dict.fromkeys(power), "its shapes are no more"


def test_a_request_by_argument_or_by_field(read):
    text = """
    overrides:
      interfaces:
        GetInverterBySN: {request: {serial: {field: sn}, lang: {const: en}}}
        SetInverterSwitch: {request: {InverterStatus: {options: {true: "9"}}, InverterStatusSettingMark: {const: 2}}}
        GetInverterHistory: {request: {end_date: {arg: day, type: local_time, format: "%d.%m.%Y"}}}
    """
    catalogue = read(text)
    assert catalogue.interface("GetInverterBySN").parameters({"serial": "X"}) == {"lang": "en", "sn": "X"}
    switch = catalogue.interface("SetInverterSwitch")
    assert switch.parameters({"serial": "X", "running": True}) == {
        "InverterSN": "X", "InverterStatus": "9", "InverterStatusSettingMark": 2
    }  # fmt: skip
    assert {r.standing for r in switch.request} == {Standing.ASSUMED, Standing.CONFIG}
    end = next(r for r in catalogue.interface("GetInverterHistory").request if r.field == "end_date")
    assert (end.type, end.format) == ("local_time", "%d.%m.%Y")


def test_the_other_api(read):
    text = "overrides: {interfaces: {DeviceTelemetry: {fields: {parameters.innerTemperature: {absent: [999]}}}}}"
    assert row(read(text, "developer"), "DeviceTelemetry", "parameters.innerTemperature").absent == (999,)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("GetInvertrBySN: {}", ("interfaces.GetInvertrBySN: there is no interface 'GetInvertrBySN'; "
                               "did you mean 'GetInverterBySN'?")),
        ("Zzz: {}", "interfaces.Zzz: there is no interface 'Zzz'; the nearest: "),
        ("GetToken: null", "interfaces.GetToken: nothing works without GetToken; change it instead"),
        ("GetMeterBySN: {pth: x}", "interfaces.GetMeterBySN.pth: unknown key 'pth'; did you mean 'path'?"),
        ("GetMeterBySN: {path: a b}", "interfaces.GetMeterBySN.path: string should match pattern"),
        ("GetMeterBySN: {rounds: 0}", "interfaces.GetMeterBySN.rounds: input should be greater than or equal to 1"),
        ("GetMeterBySN: {of: [metre]}", ("interfaces.GetMeterBySN.of[0]: there is no type of device 'metre'; "
                                        "did you mean 'meter'?")),
        ("GetMeterBySN: {fields: {pmetr: {scale: 2}}}", ("fields.pmetr: there is no field 'pmetr'; did you mean "
                                                        "'pmeter'?; to add a field say its `point`")),
        ("GetMeterBySN: {fields: {pmeter: {scal: 2}}}", ("fields.pmeter.scal: unknown key 'scal'; "
                                                        "did you mean 'scale'?")),
        ("GetMeterBySN: {fields: {pmeter: {scale: 0}}}", "fields.pmeter.scale: a scale is a number other than 0"),
        ("GetMeterBySN: {fields: {pmeter: {scale: .nan}}}", "fields.pmeter.scale: input should be a finite number"),
        ("GetMeterBySN: {fields: {x: {point: grid_powr}}}", ("fields.x.point: there is no point 'grid_powr'; "
                                                            "did you mean 'grid_power'?")),
        ("GetMeterBySN: {fields: {x: {attribute: tim}}}", ("fields.x.attribute: there is no attribute 'tim'; "
                                                          "did you mean 'time'?")),
        ("GetMeterBySN: {fields: {x: {point: soc, attribute: time}}}", "fields.x: say either `point` or `attribute`"),
        ("GetMeterBySN: {fields: {x: {point: status}}}", ("fields.x: add `options`: which of SEMS's values is which of "
                                                         "offline, waiting, normal, fault")),
        ("GetMeterBySN: {fields: {x: {point: grid_power, type: local_time}}}", "fields.x.type: a point is no time"),
        ("GetMeterBySN: {fields: {x: null}}", "fields.x: there is no field 'x'"),
        ("GetMeterBySN: {fields: {status: {options: {3: broken}}}}",
         "fields.status.options.3: status takes one of offline, waiting, normal, fault, not 'broken'"),
        ("GetPlantAlarms: {fields: {level: {options: {4: alert}}}}", ("fields.level.options.4: there is no severity "
                                                                     "'alert'; did you mean 'fault'?")),
        ("SetWorkMode: {request: {work_mod: {field: x}}}", ("request.work_mod: there is no field 'work_mod'; did you "
                                                           "mean 'work_mode'?; to add a field say its `arg` or ")),
        ("SetWorkMode: {request: {x: {arg: work_mod}}}", ("request.x.arg: there is no argument 'work_mod'; "
                                                         "did you mean 'work_mode'?")),
        ("SetWorkMode: {request: {work_mode: {options: {lazy: 9}}}}", ("request.work_mode.options.lazy: work_mode "
                                                                      "takes one of general,")),
        ("GetMeterBySN: 5", "interfaces.GetMeterBySN: input should be a valid dictionary"),
    ],
)  # fmt: skip
def test_what_fits_nothing_is_an_error_that_names_the_line(read, tmp_path, text, expected):
    inline = f"overrides:\n  interfaces:\n    {text}\n"
    with pytest.raises(ConfigError) as caught:
        read(inline)
    assert f"{tmp_path}/config.yaml:3: overrides.interfaces." in str(caught.value)
    assert expected in str(caught.value)
    (tmp_path / "ours.yaml").write_text(f"# from our document\ninterfaces:\n  {text}\n")
    with pytest.raises(ConfigError) as caught:
        read("overrides: ours.yaml")
    assert f"config.yaml:1: overrides: {tmp_path}/ours.yaml:3: interfaces." in str(caught.value)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{codes: {7: token_expird}}", "1: overrides.codes.7: input should be 'token_expired',"),
        ("{codes: {7: null}}", "1: overrides.codes.7: there is no code '7'; known here: 100002,"),
        ("{codes: {0: token_expired}}", "1: overrides.codes.0: 0 means success; change `success` first"),
        ("{base: api}", "1: overrides.base: string should match pattern"),
        ("{interface: {}}", "1: overrides.interface: unknown key 'interface'; did you mean 'interfaces'?"),
        ("nowhere.yaml", "1: overrides: there is no file "),
        ("5", "1: overrides: input should be a valid dictionary"),
        ("broken.yaml", "broken.yaml:3: this is no YAML:"),
        ("twice.yaml", "twice.yaml:2: base: stands on line 1 already; keep one"),
    ],
)
def test_other_mistakes(read, tmp_path, text, expected):
    (tmp_path / "broken.yaml").write_text("interfaces:\n  a: [\n")
    (tmp_path / "twice.yaml").write_text("base: /a/\nbase: /b/\n")
    with pytest.raises(ConfigError) as caught:
        read(f"overrides: {text}")
    assert expected in str(caught.value)


def test_all_mistakes_are_told_at_once(read):
    with pytest.raises(ConfigError) as caught:
        read(
            "overrides:\n  interfaces:\n    GetX: {}\n    GetMeterBySN:\n      fields:\n        a: {}\n        b: {}\n"
        )
    assert [p.line for p in caught.value.problems] == [3, 6, 7]


def test_a_file_is_as_good_as_a_mapping(read, tmp_path):
    (tmp_path / "ours.yaml").write_text("interfaces: {GetInverterBySN: {fields: {pac: {scale: 1000}}}}")
    assert row(read("overrides: ours.yaml"), "GetInverterBySN", "pac").scale == 1000


def test_the_example_in_the_document(read):
    text = (Path(__file__).parents[2] / "docs" / "sems.md").read_text()
    example = next(block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "Pac" in block)
    overrides = yaml.safe_load(example)["bridges"]["sems"]["overrides"]
    catalogue = read(yaml.safe_dump({"overrides": overrides}))
    assert row(catalogue, "GetInverterBySN", "Pac").scale == 1000
    assert catalogue.error_of("100005") is SemsError.TOKEN_EXPIRED
