"""The bill of materials and the list of licences say what production runs, and all of it may be shipped."""

import copy
import json

import pytest

from tests.kit.process import ROOT
from tests.supply.bom import BOM, LOCK, allowed, faults, licence
from tests.supply.lock import Lock

BILL = json.loads(BOM.read_text())
PINS = Lock(LOCK.read_text())


def component(bill, name):
    return next(one for one in bill["components"] if one["name"] == name)


def spoilt(change):
    bill = copy.deepcopy(BILL)
    change(bill)
    return list(faults(bill, PINS))


def test_the_bill_agrees_with_the_lock():
    assert list(faults(BILL, PINS)) == [], "run make sbom"


def test_the_bill_is_of_the_gateway_and_says_what_it_needs_itself():
    root = BILL["metadata"]["component"]
    assert (root["name"], root["licenses"][0]["license"]["id"]) == ("sems-gateway", "MIT")
    (needs,) = [one["dependsOn"] for one in BILL["dependencies"] if one["ref"] == root["bom-ref"]]
    assert {ref.split("==")[0].lower() for ref in needs} >= {"httpx", "pymodbus", "paho-mqtt"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda bill: bill["components"].remove(component(bill, "httpx")), "httpx is not in it"),
        (lambda bill: component(bill, "httpx").update(name="evil"), "evil is not in requirements.lock"),
        (lambda bill: component(bill, "httpx").update(version="0.1"), "httpx 0.1 is "),
        (lambda bill: component(bill, "httpx")["externalReferences"][0]["hashes"].pop(), "httpx has other hashes"),
        (
            lambda bill: component(bill, "httpx").update(licenses=[{"expression": "AGPL-3.0-only"}]),
            "under AGPL-3.0-only",
        ),
    ],
)
def test_a_bill_that_does_not_agree_is_found_out(change, says):
    assert any(says in fault for fault in spoilt(change))


@pytest.mark.parametrize(
    ("expression", "fine"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("EPL-2.0 OR BSD-3-Clause", True),
        ("Apache-2.0 AND BSD-2-Clause", True),
        ("Apache-2.0 AND GPL-2.0-only", False),
        ("GPL-2.0-only OR AGPL-3.0-only", False),
    ],
)
def test_one_side_of_a_choice_is_enough(expression, fine):
    assert allowed(expression) is fine


def test_a_package_that_names_no_licence_is_not_waved_through():
    with pytest.raises(LookupError, match="evil declares no licence"):
        licence({"name": "evil", "licenses": [{"license": {"name": "do what you want"}}]})


def test_the_readme_leads_to_the_list_and_to_the_threat_model():
    readme = (ROOT / "README.md").read_text()
    assert "docs/licences.md" in readme
    assert "SECURITY.md" in readme
