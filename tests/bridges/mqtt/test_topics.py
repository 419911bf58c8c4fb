from hypothesis import example, given
from hypothesis import strategies as st

from gateway.bridges.mqtt.topics import SetTopic, Topics, escape, unescape

TEXTS = st.text(st.characters(codec="utf-8"), min_size=1)


@given(TEXTS)
@example("bridge")
@example("response")
@example("%62ridge")
@example("a/b+c#d%e")
def test_a_serial_number_survives_its_way_through_a_topic(serial):
    level = escape(serial)
    assert unescape(level) == serial
    assert not set(level) & set("+#/")
    assert level.isprintable() or not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in level)
    assert level not in {"bridge", "response"}
    level.encode()


@given(st.text())
def test_any_text_makes_a_level(serial):
    escape(serial).encode()


@given(TEXTS)
def test_a_level_that_is_not_ours_is_nobody(level):
    serial = unescape(level)
    assert serial is None or escape(serial) == level


def test_ordinary_serial_numbers_stay_as_they_are():
    assert escape("9010KETU000W0001") == "9010KETU000W0001"


def test_set_topics_are_taken_apart():
    topics = Topics("a/b")
    assert topics.parse_set("a/b/SN/set") == SetTopic("a/b/SN", "SN", None)
    assert topics.parse_set("a/b/SN/set/running") == SetTopic("a/b/SN", "SN", "running")
    for other in ("a/SN/set", "a/b/SN", "a/b/SN/set/x/y", "a/b/set", "a/b/SN/get", "x"):
        assert topics.parse_set(other) is None
