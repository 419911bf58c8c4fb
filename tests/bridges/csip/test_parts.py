"""XML, identity, mapping and settings of the bridge."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.api.testing import DEVICE
from gateway.bridges.csip import CsipBridge, xml
from gateway.bridges.csip.events import Held
from gateway.bridges.csip.identity import lfdi_of, made_mrid, sfdi_of
from gateway.bridges.csip.mapping import Wish, setpoints_for, wishes
from gateway.bridges.csip.resources import control_of, modes_of
from gateway.core.model import Range
from tests.bridges.csip.server import SPACES, watts
from tests.kit.certificates import Authority

RANGES = {"export_limit": Range(0, 5000, 100), "active_power_limit": Range(20, 100, 1), "running": Range()}
INVERTER = msgspec.structs.replace(DEVICE, rated_power=8000.0, setpoints=RANGES)


def base(inside):
    return modes_of(xml.read(f"<DERControlBase {SPACES}>{inside}</DERControlBase>".encode()))


# XML


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"<a>",
        b"<a/>",
        b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a xmlns="urn:ieee:std:2030.5:ns"/>',
        b'<?xml version="1.0" encoding="klingon"?><a xmlns="urn:ieee:std:2030.5:ns"/>',
        f"<a {SPACES}>".encode() + b"<a>" * 40 + b"</a>" * 40 + b"</a>",
        b'<a xmlns="urn:ieee:std:2030.5:ns">&unknown;</a>',
    ],
)
def test_what_is_no_document_of_2030_5_is_refused(raw):
    with pytest.raises(xml.BadXmlError):
        xml.read(raw)


def test_other_namespaces_are_passed_over_with_all_in_them():
    root = xml.read(
        b'<a xmlns="urn:ieee:std:2030.5:ns" xmlns:c="https://csipaus.org/ns/v1.3" xmlns:x="urn:x">'
        b"<x:b><b>1</b></x:b><c:b>2</c:b></a>"
    )
    assert [child.text for child in root.children] == ["2"]


@settings(max_examples=200)
@given(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])), st.integers(-(2**47), 2**47))
def test_what_is_written_is_read_again(text, number):
    root = xml.read(xml.write("a", [("b", text), ("csipaus:c", [("d", number)])]))
    assert root.string("b") == text.replace("\r", "\n").strip()
    assert root.one("c").needed("d") == number


@settings(max_examples=300)
@given(st.text("0123456789.+-eExX٣", max_size=25))
def test_a_number_is_a_whole_one_or_none(text):
    try:
        assert xml.whole(text, "n") == int(text)
    except xml.BadXmlError:
        assert not (text.isascii() and text.lstrip("+-").isdigit() and len(text) <= 10) or text[:2] in {
            "+-",
            "-+",
            "--",
            "++",
        }


# identity


def test_lfdi_and_sfdi_are_those_of_the_standards_own_example(tmp_path):
    assert sfdi_of("3E4F45AB31EDFE5B67E343E5E4562E31984E23E5") == 167_261_211_391
    certificate, _ = Authority(tmp_path).sign("device")
    found = lfdi_of(certificate)
    assert len(found) == 40
    assert found == found.upper()
    assert sum(map(int, str(sfdi_of(found)))) % 10 == 0
    assert len({made_mrid(found, what, 37_244) for what in ("site", "der")}) == 2
    assert made_mrid(found, "site", 37_244).endswith("0000917C")
    assert len(made_mrid(found, "site", 2**32 - 1)) == 32


# modes


def test_values_have_multipliers_percent_has_hundredths():
    assert base(watts("opModExpLimW", 15, 3) + watts("opModGenLimW", 12345, -2)) == {
        "opModExpLimW": 15_000.0,
        "opModGenLimW": 123.45,
    }
    assert base("<opModMaxLimW>5025</opModMaxLimW><opModFixedW>-2500</opModFixedW>") == {
        "opModMaxLimW": 50.25,
        "opModFixedW": -25.0,
    }
    assert base("<opModEnergize>0</opModEnergize><opModConnect>true</opModConnect><rampTms>5</rampTms>") == {
        "opModEnergize": False,
        "opModConnect": True,
    }


@pytest.mark.parametrize(
    "inside",
    [
        watts("opModExpLimW", 1, 99),
        watts("opModExpLimW", "1.5"),
        "<opModMaxLimW/>",
        "<opModEnergize>maybe</opModEnergize>",
    ],
)
def test_an_event_that_can_not_be_read_is_invalid_and_has_a_name(inside):
    raw = (
        f'<DERControl {SPACES} replyTo="/rsp"><mRID>ab</mRID><creationTime>1</creationTime>'
        "<EventStatus><currentStatus>0</currentStatus></EventStatus><interval><duration>60</duration><start>1</start></interval>"
        f"<DERControlBase>{inside}</DERControlBase></DERControl>"
    )
    found = control_of(xml.read(raw.encode()))
    assert (found.mrid, found.valid, found.reply_to) == ("AB", False, "/rsp")


# mapping


def test_each_mode_sets_what_the_device_has():
    assert setpoints_for(INVERTER, {}, 8000.0) == {
        "opModExpLimW": "export_limit",
        "opModGenLimW": "active_power_limit",
        "opModMaxLimW": "active_power_limit",
        "opModEnergize": "running",
        "opModConnect": "running",
    }
    without = setpoints_for(INVERTER, {}, None)
    assert "opModGenLimW" not in without, "watts are no percent of an unknown power"
    assert without["opModMaxLimW"] == "active_power_limit"
    assert setpoints_for(INVERTER, {"opModLoadLimW": "export_limit", "opModExpLimW": "charging"}, 8000.0) == {
        "opModLoadLimW": "export_limit",
        "opModGenLimW": "active_power_limit",
        "opModMaxLimW": "active_power_limit",
        "opModEnergize": "running",
        "opModConnect": "running",
    }


def wished(**held):
    return wishes(
        {mode: Held(value, "E", 9.0) for mode, value in held.items()},
        setpoints_for(INVERTER, {}, 8000.0),
        RANGES,
        8000.0,
    )


@pytest.mark.parametrize(
    ("held", "setpoint", "value"),
    [
        ({"opModExpLimW": 2599.0}, "export_limit", 2500.0),
        ({"opModExpLimW": 99_999.0}, "export_limit", 5000.0),
        ({"opModGenLimW": 4000.0}, "active_power_limit", 50.0),
        ({"opModGenLimW": 4079.0}, "active_power_limit", 50.0),
        ({"opModGenLimW": 99_999.0}, "active_power_limit", 100.0),
        ({"opModGenLimW": 4000.0, "opModMaxLimW": 30.0}, "active_power_limit", 30.0),
        ({"opModEnergize": True, "opModConnect": False}, "running", False),
        ({"opModEnergize": True, "opModConnect": True}, "running", True),
    ],
)
def test_what_modes_come_to(held, setpoint, value):
    assert wished(**held) == {setpoint: Wish(value, frozenset({"E"}), 9.0)}


def test_a_limit_below_what_the_device_takes_is_met_in_part():
    assert wished(opModGenLimW=100.0)["active_power_limit"] == Wish(20.0, frozenset({"E"}), 9.0, is_short=True)


@given(st.floats(0, 20_000), st.sampled_from([0.1, 1, 7, 100]))
def test_a_limit_is_never_exceeded(watts, step):
    ranges = {"export_limit": Range(0, 10_000, step)}
    found = wishes({"opModExpLimW": Held(watts)}, {"opModExpLimW": "export_limit"}, ranges, None)["export_limit"].value
    assert found <= watts + 1e-6
    assert found > min(watts, 10_000) - step - 1e-6


# settings


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"url": "http://a/dcap"}, "https"),
        ({"url": "https://user@a/dcap"}, "https"),
        ({"pin": 123_456}, "add up"),
        ({"limits": {"opModNonsense": "running"}}, "no mode"),
        ({"limits": {"opModEnergize": "run"}}, "no setpoint"),
        ({"fallback": {"limits": {"opModExpLimW": True}}}, "a number"),
        ({"fallback": {"limits": {"opModEnergize": 1}}}, "true or false"),
        ({"lfdi": "12"}, "pattern"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, wrong, words):
    authority = Authority(tmp_path)
    certificate, key = authority.sign("device")
    tls = {"certificate": certificate, "key": key, "ca": authority.pem}
    good = {"url": "https://a", "tls": tls, "device": "D"}
    assert CsipBridge.Settings.model_validate(good).url == "https://a/dcap"
    with pytest.raises(ValueError, match=words):
        CsipBridge.Settings.model_validate(good | wrong)
    with pytest.raises(ValueError, match="needs ca"):
        CsipBridge.Settings.model_validate(good | {"tls": tls | {"ca": None, "check_name": False}})
    with pytest.raises(ValueError, match="can't be used"):
        CsipBridge.Settings.model_validate(good | {"tls": tls | {"key": authority.sign("other")[1]}})
