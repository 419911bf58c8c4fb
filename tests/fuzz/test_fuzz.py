"""Each target takes some broken inputs, always the same ones, and all that ever was a find; `make fuzz` takes more."""

import pytest

from tests.fuzz.campaign import FOUND, GROWTH, Campaign
from tests.fuzz.targets import TARGETS


def texts(report):
    return [find.text for find in report.finds if find.kind == "crash"]


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_broken_inputs_are_refused_or_taken(target, tmp_path):
    report = Campaign(target, traced_every=0).run(tmp_path, inputs=target.quick)
    assert texts(report) == []
    assert report.inputs == target.quick
    assert report.growth < GROWTH


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_what_was_found_once_is_mended(target, tmp_path):
    files = sorted((FOUND / target.name).glob("*"))
    if files:
        report = Campaign(target, traced_every=0).run(tmp_path, given=[file.read_bytes() for file in files])
        assert texts(report) == []


def test_a_crash_is_a_find_and_so_is_what_a_net_caught(tmp_path):
    from tests.fuzz.doubles import caught, crashing

    for target, words in ((crashing, "ZeroDivisionError"), (caught, "KeyError")):
        report = Campaign(target, traced_every=0).run(tmp_path, given=[b"x"])
        assert len(report.finds) == 1
        assert words in report.finds[0].text
