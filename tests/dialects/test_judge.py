"""The judge of the table in docs/reference/dialects.md: it knows the truth, and every lie."""

import asyncio
import copy

import pytest

from tests.dialects.changes import carries_units
from tests.dialects.cloud import SharedWorld
from tests.dialects.evaluate import dialects_of, usual_of
from tests.dialects.judge import Verdict, judge
from tests.dialects.oracle import overrides_of, report_of

SEEDS = (0, 1, 6, 17)


@pytest.fixture(scope="module", params=["open_api", "developer"])
def truths(request):
    return asyncio.run(_truths(request.param))


async def _truths(api):
    usual = {api: await usual_of(api, 1)}
    return [truth for truth, _ in await dialects_of(SharedWorld(1), [(api, seed) for seed in SEEDS], usual)]


def test_who_knows_the_dialect_restores_all_of_it(truths):
    for truth in truths:
        judged, wrong = judge(truth, report_of(overrides_of(truth.dialect)))
        assert not wrong
        assert {one.verdict for one in judged} <= {Verdict.RESTORED}
        assert judged


def test_who_says_nothing_restores_nothing_and_is_not_wrong(truths):
    for truth in truths:
        judged, wrong = judge(truth, report_of({}))
        assert not wrong
        assert {one.verdict for one in judged if one.identifiable} <= {Verdict.MISSED}


def some(truth, kind):
    """The lines that an oracle has to say something of, with a value to be seen."""
    return [
        line for line in truth.dialect.lines
        if line.after is not None and truth.identifiable(line) and line.after.field != line.before.field
        and line.after.point and line.after.type == "number" and not line.after.options
    ][:kind]  # fmt: skip


@pytest.mark.parametrize(
    "lie",
    [
        lambda said, _: said.update(scale=said.get("scale", 1) * 1000),
        lambda said, _: said.update(scale=said.get("scale", 1) * -1),
        lambda said, other: said.update(field=other.after.field),
    ],
    ids=["scale", "sign", "field"],
)
def test_a_lie_is_found(truths, lie):
    lied = 0
    for truth in truths:
        units = {
            line.interface
            for line in truth.dialect.lines
            if carries_units(truth.dialect, line.interface, line.after or line.before)
        }
        lines = [line for line in some(truth, None) if line.interface not in units]
        for line in lines[:2]:
            other = next(
                (o for o in lines if o.interface == line.interface and o.before.point != line.before.point), None
            )
            if other is None:
                continue
            overrides = copy.deepcopy(overrides_of(truth.dialect))
            said = overrides["interfaces"][line.interface]["fields"][line.before.field]
            said["scale"] = said.get("scale", line.before.scale)
            lie(said, other)
            judged, wrong = judge(truth, report_of(overrides))
            assert [one.interface for one in wrong] == [line.interface], (line, wrong)
            assert any(one.verdict is not Verdict.RESTORED for one in judged if one.line == line)
            lied += 1
    assert lied > 3


def test_a_field_that_is_there_must_not_be_removed(truths):
    truth = truths[0]
    line = some(truth, 1)[0]
    overrides = copy.deepcopy(overrides_of(truth.dialect))
    overrides["interfaces"][line.interface]["fields"][line.before.field] = None
    _, wrong = judge(truth, report_of(overrides))
    assert [one.interface for one in wrong] == [line.interface]


def test_lists_that_lead_elsewhere_are_wrong(truths):
    found = 0
    for truth in truths:
        for name in {line.interface for line in truth.dialect.lines if truth.moved(line.interface)}:
            if not any(truth.identifiable(line) for line in truth.dialect.lines if line.interface == name):
                continue  # there is nothing in it, such as no alarm
            overrides = copy.deepcopy(overrides_of(truth.dialect))
            overrides["interfaces"][name]["lists"] = ["nowhere"]
            _, wrong = judge(truth, report_of(overrides))
            assert name in {one.interface for one in wrong}
            found += 1
    assert found
