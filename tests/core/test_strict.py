"""Numbers of ASCII digits, and JSON that says nothing twice."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import cli
from gateway.cli.output import EXIT_CONFIG
from gateway.core.bad_json import BAD_JSON
from gateway.core.strict import DoubledKeyError, decode, number

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
)  # fmt: skip
ELSEWHERE = [
    "\u0665\u0660",
    "\uff15\uff10",
    "\u096b\u0966",
    "5\u0660",
    "5_0",
    "\u06f5",
    "1.\u0665",
    "\U0001d7d3\U0001d7ce",
    "5e\uff12",
]
"""What Python takes for a number, and nobody else."""


@pytest.mark.parametrize("text", ELSEWHERE)
def test_only_ascii_digits_are_a_number(text):
    float(text)
    with pytest.raises(ValueError, match="no number"):
        number(text)


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53))
def test_what_json_writes_is_a_number(value):
    assert number(json.dumps(value)) == value


@given(JSON)
def test_what_says_nothing_twice_is_read_as_it_is(value):
    assert decode(json.dumps(value)) == decode(json.dumps(value, ensure_ascii=False).encode()) == value


@pytest.mark.parametrize(
    "raw",
    [
        '{"value": 50, "value": 60}',
        '{"value": 50, "value": 50}',
        '{"value": 50, "\\u0076alue": 60}',
        '{"a": [{"b": 1, "c": 2, "b": 3}]}',
        '{"": 1, "": 1}',
    ],
)
def test_what_says_something_twice_is_refused_everywhere(raw):
    for form in (raw, raw.encode()):
        with pytest.raises(DoubledKeyError, match="twice") as caught:
            decode(form)
        assert isinstance(caught.value, BAD_JSON)


def test_a_type_is_checked_as_ever():
    with pytest.raises(msgspec.ValidationError):
        decode(b"[1]", dict[str, int])


@pytest.mark.parametrize(
    "words", [["--ttl", "\u0665"], ["--ttl=5_0"], ["--revert-after", "\uff16\uff10"], ["--spread=1_0"]]
)
def test_an_option_of_the_command_line_takes_no_other_number(monkeypatch, capsys, words):
    monkeypatch.setattr("sys.argv", ["sems-gateway", "send", "SN", "running", "off", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == EXIT_CONFIG
    assert "takes no such number" in capsys.readouterr().err
