"""How what a broker can't bear is found, and for how long it is set aside."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.bridges.mqtt.families import family
from gateway.bridges.mqtt.suspicion import PAUSE_FIRST, SHARE, STRIKES, Sent, Suspicion


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def watch(clock=None):
    return Suspicion(lambda topic: family("sems", topic), clock or Clock())


def sent(topic, size=10):
    return Sent(topic, topic, size)


@given(st.integers(1, 600), st.data())
def test_whichever_it_is_it_is_found_within_few_connections(count, data):
    bad = data.draw(st.integers(0, count - 1))
    messages = [sent(f"x/{n}") for n in range(count)]
    watched, ended = watch(), 0
    under_way = messages
    while not watched.bars(f"x/{bad}", 10):
        ended += 1
        watched.ended(under_way, proven=True)
        # As the client sends them: the suspects first to last, so many at once, each group when the last is borne.
        some = [one for one in messages if one.key in watched.suspects]
        at_once = watched.at_once
        while some and messages[bad] not in some[:at_once]:
            for one in some[:at_once]:
                watched.acquit(one)
            del some[:at_once]
        under_way = some[:at_once]
        assert ended <= 3 + STRIKES + SHARE
    assert not any(watched.bars(f"x/{n}", 10) for n in range(count) if n != bad)


def test_what_ends_a_young_connection_or_is_borne_is_no_strike():
    watched = watch()
    for _ in range(5):
        watched.ended([sent("a")], proven=False)
        watched.ended([sent("a")], proven=True)
        watched.acquit(sent("a"))
    assert not watched.bars("a", 10)


def test_what_is_set_aside_is_tried_again_after_a_while_and_one_more_strike_is_enough():
    clock = Clock()
    watched = watch(clock)
    for _ in range(STRIKES):
        watched.ended([sent("a")], proven=True)
    assert watched.bars("a", 10)
    assert watched.bars("a", 11)
    assert not watched.bars("a", 9)
    clock.now += PAUSE_FIRST
    assert not watched.bars("a", 10)
    assert "a" in watched.suspects
    watched.ended([sent("a")], proven=True)
    clock.now += PAUSE_FIRST
    assert watched.bars("a", 10), "for twice as long"
    clock.now += PAUSE_FIRST
    assert not watched.bars("a", 10)
    watched.acquit(sent("a"))
    watched.ended([sent("a")], proven=True)
    assert not watched.bars("a", 10), "it was borne since"


def test_two_of_a_family_are_the_family_but_not_what_is_smaller():
    watched = watch()
    for topic in ("sems/A/device", "sems/B/device"):
        for _ in range(STRIKES):
            watched.ended([sent(topic, 500)], proven=True)
    assert watched.bars("sems/C/device", 500)
    assert not watched.bars("sems/C/device", 499)
    assert not watched.bars("sems/C", 5000)
    assert watched.room("sems/C/device") == 499


def test_families_are_lines_of_access_rules():
    kinds = {
        "sems/A": "sems/+",
        "sems/A/device": "sems/+/device",
        "sems/A/ac_power": "sems/+/+",
        "sems/bridge/health": "sems/bridge/health",
        "sems/bridge/response/devices": "sems/bridge/response/devices",
        "sems/response/x": "sems/response/x",
        "homeassistant/device/x/config": "homeassistant/device/+/config",
        "spBv1.0/g/DBIRTH/node/A": "spBv1.0/g/DBIRTH/node/+",
        "spBv1.0/g/NBIRTH/node": "spBv1.0/g/NBIRTH/node",
        "other/A": "other/A",
    }
    assert {topic: family("sems", topic) for topic in kinds} == kinds


def test_only_what_was_suspect_before_is_named_and_nothing_is_where_the_broker_was_away():
    watched = watch()
    assert watched.known_of([sent("a")]) == []
    watched.ended([sent("a")], proven=True)
    assert watched.known_of([sent("a"), sent("b")]) == [sent("a")]
    watched.broker_was_away()
    assert not watched.watching
    watched.ended([sent("a")], proven=True)
    assert not watched.bars("a", 10)
