"""What a bridge has found is logged when it begins and when it ends, and stays bounded."""

from datetime import UTC, datetime

import structlog
from structlog.testing import capture_logs

from gateway.core.findings import FOR_INFORMATION, HOUR, MAX_FINDINGS, MAX_LINES, MAX_TEXT, SHOWN, FindingCode, Findings
from tests.kit.process import ROOT

NOW = datetime(2026, 6, 21, 12, tzinfo=UTC)


def findings():
    return Findings(structlog.get_logger("test"))


def test_it_is_logged_once_when_it_begins_and_once_when_it_ends():
    known = findings()
    with capture_logs() as logged:
        assert known.find(FindingCode.NO_DATA, "SN", "1 time", "wait", NOW)
        assert known.find(FindingCode.NO_DATA, "SN", "2 times", "wait", NOW)
        assert not known.find(FindingCode.NO_DATA, "SN", "2 times", "wait", NOW)
        assert known.settle(FindingCode.NO_DATA, "SN")
        assert not known.settle(FindingCode.NO_DATA, "SN")
    assert [(entry["log_level"], entry["finding"], entry["subject"]) for entry in logged] == [
        ("warning", "no_data", "SN"),
        ("info", "no_data", "SN"),
    ]


def test_a_flood_of_them_stays_bounded():
    known = findings()
    for number in range(2 * MAX_FINDINGS):
        known.find(FindingCode.VALUE_UNREADABLE, str(number), "x" * 10_000, "y" * 10_000, NOW)
    assert len(list(known)) == MAX_FINDINGS
    assert {len(found.text) for found in known} == {len(found.remedy) for found in known} == {MAX_TEXT}


def test_many_of_a_kind_are_ten_lines_and_a_summary_in_an_hour_and_so_is_one_that_comes_and_goes():
    for subjects in (map(str, range(100)), ["SN"] * 100):
        known = findings()
        with capture_logs() as logged:
            for subject in subjects:
                known.find(FindingCode.NO_DATA, subject, "text", "", NOW)
                known.settle(FindingCode.NO_DATA, subject)
            known.find(FindingCode.DATE_ORDER, "SN", "another kind", "", NOW)
        assert [entry["log_level"] for entry in logged] == ["warning", "info"] * MAX_LINES + ["warning", "info"]
        assert "subject" not in logged[-2], "the summary"
        with capture_logs() as logged:
            known.find(FindingCode.NO_DATA, "later", "text", "", NOW + HOUR)
        assert [entry["subject"] for entry in logged] == ["later"]


def test_unknown_fields_of_many_interfaces_are_one_line_and_the_state_has_each():
    known, interfaces = findings(), [f"Get{number}" for number in range(2 * MAX_LINES)]
    with capture_logs() as logged:
        for interface in interfaces:
            assert known.find(FindingCode.FIELDS_UNKNOWN, interface, f"{interface} has fields: ext", "use it", NOW)
    (line,) = logged
    assert (line["event"], line["subject"], line["log_level"]) == ("Get0 has fields: ext", "Get0", "info")
    assert "others like it only show with the state" in line["more"]
    assert [each.subject for each in known] == interfaces
    with capture_logs() as logged:
        known.clear()
        known.find(FindingCode.FIELDS_UNKNOWN, "Get1", "text", "", NOW)
        assert not logged, "nor at each restart of the bridge"
        known.find(FindingCode.FIELDS_UNKNOWN, "Get2", "text", "", NOW + HOUR)
    assert [entry["subject"] for entry in logged] == ["Get2"]


def test_every_kind_has_a_word_and_those_that_only_inform_are_no_trouble():
    assert set(SHOWN) == set(FindingCode)
    known = findings()
    for code in FindingCode:
        known.find(code, "", "text", "", NOW)
    assert {found.code for found in known if not found.is_trouble} == FOR_INFORMATION


def test_the_docs_have_every_kind():
    table = (ROOT / "docs" / "errors.md").read_text("utf-8").partition("## Findings")[2]
    for code, words in SHOWN.items():
        assert f"| `{code.value}` | {words} |" in table
