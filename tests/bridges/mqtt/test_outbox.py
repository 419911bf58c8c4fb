import asyncio

import msgspec
import pytest

import gateway.bridges.mqtt.outbox as outbox_module
from gateway.bridges.mqtt.message import Message
from gateway.bridges.mqtt.outbox import Outbox
from gateway.core.mailbox import Updates
from gateway.core.model import DeviceState, Quality
from tests.kit.bench import INVERTER

SN = INVERTER.serial
STATE = DeviceState(device=INVERTER, quality=Quality.GOOD, time=None, source="x", values={})


def result(n):
    return Message(topic="t", payload=b"%d" % n)


@pytest.fixture
def outbox(monkeypatch):
    monkeypatch.setattr(outbox_module, "RESULT_BACKLOG", 3)
    return Outbox()


def numbers(outbox):
    return [int(message.payload) for message in (*outbox.kept, *outbox.results)]


def test_results_are_bounded_and_the_oldest_go_first(outbox):
    for n in range(5):
        outbox.put_result(result(n))
    assert numbers(outbox) == [2, 3, 4]
    assert outbox.dropped_results == 2
    assert outbox.health_changed


def test_what_may_not_have_arrived_comes_before_what_waits(outbox):
    outbox.put_result(result(3))
    outbox.close([result(1), result(2)])
    assert numbers(outbox) == [1, 2, 3]
    outbox.close([result(0)])
    assert numbers(outbox) == [1, 2, 3]
    assert outbox.dropped_results == 1


def test_of_what_may_not_have_arrived_the_newest_are_kept(outbox):
    outbox.put_result(result(9))
    outbox.close([result(n) for n in range(5)])
    assert numbers(outbox) == [3, 4, 9]
    assert outbox.dropped_results == 3


def test_states_wait_only_while_the_broker_is_there(outbox):
    outbox.put(Updates(states={SN: STATE}))
    assert not outbox.states
    outbox.open([])
    outbox.put(Updates(states={SN: STATE}))
    assert outbox.states == {SN: STATE}
    outbox.close([])
    assert not outbox.states


def test_what_has_come_since_it_was_opened_is_newer_than_the_state_it_begins_with(outbox):
    newer, gone = msgspec.structs.replace(STATE, source="y"), msgspec.structs.replace(INVERTER, serial="gone")
    outbox.put_result(result(1))
    outbox.close([])
    outbox.open(())
    outbox.put(Updates(states={SN: newer}, removed={"gone"}))
    outbox.begin_with(STATE)
    outbox.begin_with(msgspec.structs.replace(STATE, device=gone))
    assert outbox.states == {SN: newer}
    # What was kept from before waits for it.
    assert outbox.next_result() is None
    outbox.states.clear()
    assert outbox.next_result() == result(1)


def test_a_device_is_either_shown_or_removed(outbox):
    outbox.open([STATE])
    outbox.put(Updates(removed={SN}))
    assert (outbox.states, outbox.removed) == ({}, {SN})
    outbox.put(Updates(states={SN: STATE}))
    assert (outbox.states, outbox.removed) == ({SN: STATE}, set())
    outbox.put(Updates(removed={SN}))
    outbox.open([STATE])
    assert (outbox.states, outbox.removed) == ({SN: STATE}, set())


def test_steps_of_fleets_let_others_go_ahead_and_those_of_one_topic_stay_in_order():
    outbox = Outbox()
    for number in range(3):
        outbox.put_result(Message(topic=f"fleet{number}", payload=b"%d" % number), bulk=True)
    outbox.put_result(Message(topic="fleet1", payload=b"3"))
    outbox.put_result(Message(topic="alone", payload=b"4"))
    assert outbox.waiting == 5
    assert outbox.filled
    assert [int(outbox.next_result().payload) for _ in range(5)] == [4, 0, 1, 2, 3]
    assert outbox.next_result() is None
    assert not outbox.filled
    outbox.put_result(Message(topic="fleet1", payload=b"5"), bulk=True)
    outbox.put_result(Message(topic="fleet2", payload=b"6"))
    assert [int(outbox.next_result().payload) for _ in range(2)] == [6, 5]


def test_of_fleets_steps_the_oldest_go_first(outbox):
    outbox.put_result(result(0))
    for number in range(1, 5):
        outbox.put_result(Message(topic="fleet", payload=b"%d" % number), bulk=True)
    assert [int(outbox.next_result().payload) for _ in range(3)] == [0, 3, 4]
    assert outbox.dropped_results == 2


def test_steps_of_fleets_are_kept_while_the_broker_is_away():
    outbox = Outbox()
    outbox.put_result(Message(topic="fleet", payload=b"1"), bulk=True)
    outbox.put_result(result(2))
    outbox.close([result(0)])
    outbox.put_result(Message(topic="fleet", payload=b"3"))
    assert [int(outbox.next_result().payload) for _ in range(4)] == [0, 2, 1, 3]


async def test_steps_of_fleets_hold_up_no_request():
    outbox = Outbox()
    outbox.open([])
    for number in range(outbox_module.RESULT_BACKLOG):
        outbox.put_result(Message(topic=f"fleet{number}", payload=b""), bulk=True)
    await asyncio.wait_for(outbox.room_for_results(), 60)
