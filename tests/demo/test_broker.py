"""The demo's broker, with real clients of all versions."""

import asyncio
import errno
import importlib.util
import os
import runpy
import signal
import socket
import sys
import threading
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from structlog.testing import capture_logs

from tests.demo.clients import V5, V31, V311, client, connect, packet, raw, text
from tests.kit.bench import until
from tests.kit.broker import embedded_broker
from tests.kit.mosquitto import need

pytest.importorskip("iotcore")

from gateway.demo import broker as module
from gateway.demo import mqtt_front
from gateway.demo.broker import DemoBroker

ROOT = Path(__file__).parents[2]
BOTH = pytest.mark.parametrize("version", [V311, V5], ids=["3.1.1", "5"])
CROSSED = pytest.mark.parametrize(
    ("first", "second"),
    [(V311, V5), (V5, V311), (V31, V5), (V31, V311)],
    ids=["3.1.1-5", "5-3.1.1", "3.1-5", "3.1-3.1.1"],
)
DISCONNECT = b"\xe0\x00"


@pytest.fixture
async def port():
    async with embedded_broker() as (_, port):
        yield port


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_port():
    """One broker for all that keep nothing in it."""
    async with embedded_broker() as (_, port):
        yield port


def subscribe(level, topic_filter, qos=0):
    return packet(0x82, b"\0\1", b"\0" if level == 5 else b"", text(topic_filter), bytes([qos]))


def gone(pid):
    """True when no such process runs. One that nobody has waited for has no command line any more."""
    try:
        return not Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return True


# messages


@CROSSED
async def test_a_late_subscriber_gets_the_retained_message(port, first, second):
    async with client(port, first) as publisher, client(port, second) as subscriber:
        await publisher.publish("a/b", b"1", retain=True)
        await publisher.publish("a/b", b"2", retain=True)
        await subscriber.subscribe("a/#")
        assert await subscriber.got() == [("a/b", b"2")]
        assert subscriber.messages[0].retain
        await publisher.publish("a/b", b"", retain=True)
        await subscriber.got(2)
        async with client(port, second) as later:
            await later.subscribe("a/b")
            await publisher.publish("a/b", b"live")
            assert await later.got() == [("a/b", b"live")]


@CROSSED
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_message_goes_both_ways(port, first, second, qos):
    async with client(port, first) as one, client(port, second) as other:
        for me, you in ((one, other), (other, one)):
            await me.subscribe("t/+", qos)
            await you.publish("t/x", bytes(range(256)), qos)
            assert await me.got() == [("t/x", bytes(range(256)))]
            assert me.messages[0].qos == qos


def request_properties():
    properties = Properties(PacketTypes.PUBLISH)
    properties.ResponseTopic = "answers/1"
    properties.CorrelationData = b"\x00\xffid"
    properties.ContentType = "application/json"
    properties.MessageExpiryInterval = 100
    properties.UserProperty = [("a", "1"), ("a", "2")]
    return properties


async def test_request_and_response_carry_topic_and_correlation(port):
    async with client(port, V5) as asking, client(port, V5) as answering:
        await asking.subscribe("answers/#")
        await answering.subscribe("requests")
        await asking.publish("requests", b"?", properties=request_properties())
        await answering.got()
        request = answering.messages[0].properties
        assert request.ContentType == "application/json"
        assert request.UserProperty == [("a", "1"), ("a", "2")]
        response = Properties(PacketTypes.PUBLISH)
        response.CorrelationData = request.CorrelationData
        await answering.publish(request.ResponseTopic, b"!", properties=response)
        assert await asking.got() == [("answers/1", b"!")]
        assert asking.messages[0].properties.CorrelationData == b"\x00\xffid"


@pytest.mark.parametrize("retain", [False, True])
async def test_a_message_with_properties_reaches_older_clients(port, retain):
    async with client(port, V5) as publisher, client(port, V311) as live, client(port, V31) as oldest:
        await live.subscribe("#")
        await oldest.subscribe("#")
        await publisher.publish("a", b"payload", retain=retain, properties=request_properties())
        assert await live.got() == await oldest.got() == [("a", b"payload")]
        async with client(port, V311) as late:
            await late.subscribe("a")
            await publisher.publish("a", b"then", properties=request_properties())
            assert (await late.got(1 + retain))[-1] == ("a", b"then")


@BOTH
@pytest.mark.parametrize("topic", ["ü", "ü/x", "€/x/y", "🔆", "a/ü", "/ü"])
async def test_topics_beyond_ascii(port, version, topic):
    async with client(port, version) as one, client(port, version) as other, client(port, version) as all_:
        await one.subscribe(topic)
        await all_.subscribe("#")
        await all_.subscribe("+/x")
        await other.publish(topic, b"1", retain=True)
        assert await one.got() == [(topic, b"1")]
        assert (await all_.got())[0] == (topic, b"1")
        async with client(port, version) as late:
            await late.subscribe(topic)
            assert await late.got() == [(topic, b"1")]
        await one.unsubscribe(topic)
        await other.publish(topic, b"2")
        await all_.got(2)
        assert len(one.messages) == 1


@BOTH
async def test_large_messages(port, version):
    payload = os.urandom(3_000_000)
    async with client(port, version) as one, client(port, version) as other:
        await one.subscribe("big")
        await other.publish("big", payload)
        assert await one.got() == [("big", payload)]


@BOTH
async def test_more_retained_messages_than_the_broker_has_room_for_at_once(port, version):
    async with client(port, V311) as publisher, client(port, version) as late:
        for number in range(600):
            publisher.paho.publish(f"many/{number}", b"x" * 300, 1, retain=True)
        await publisher.publish("done")
        await late.subscribe("many/#", qos=0)
        assert len({topic for topic, _ in await late.got(600)}) == 600


# subscriptions


@BOTH
async def test_a_subscription_to_sys_is_taken_and_stays_silent(port, version):
    async with client(port, version) as curious, client(port, V311) as other:
        codes = await curious.subscribe("$SYS/#")
        assert [code.value for code in codes] == [1]
        await other.publish("$SYS/broker/uptime", b"1", retain=True)
        await other.publish("ü", b"1")
        await curious.subscribe("x")
        await other.publish("x", b"2")
        assert await curious.got() == [("x", b"2")]
        await curious.unsubscribe("$SYS/#")


@BOTH
async def test_what_was_never_subscribed_can_be_unsubscribed(port, version):
    async with client(port, version) as one:
        await one.unsubscribe("never")
        await one.subscribe([("a", 1), ("b", 0)])
        await one.unsubscribe(["a", "b", "c"])
        await one.publish("a")
        await one.subscribe("c")
        await one.publish("c", b"2")
        assert await one.got() == [("c", b"2")]


async def test_shared_subscriptions_take_turns(port):
    async with client(port, V5) as one, client(port, V5) as two, client(port, V311) as publisher:
        for each in (one, two):
            await each.subscribe("$share/group/work/#")
        for number in range(10):
            await publisher.publish(f"work/ü{number}", str(number).encode())
        await until(lambda: len(one.messages) + len(two.messages) == 10, "each message once")


async def test_shared_subscriptions_need_a_session_that_ends(port):
    async with client(port, V5, "me", clean=False, expiry=100) as one:
        one.paho.subscribe("$share/group/work/#", 1)
        await until(lambda: one.ended is not None, "the broker ends the connection")
        assert one.ended.value == mqtt_front.Reason.NO_SHARED_SUBSCRIPTIONS


# connections


@pytest.mark.asyncio(loop_scope="module")
@BOTH
@pytest.mark.parametrize("client_id", ["a+b", "a/b/c", "#", "$x", "ü", "a b", "\ue000", "x" * 200, ""])
async def test_odd_client_ids(shared_port, version, client_id):
    for _ in range(3):  # the broker itself dies of the second
        async with client(shared_port, version, client_id) as one:
            await one.subscribe("t")
            await one.publish("t")
            await one.got()


async def test_client_ids_that_look_alike_to_the_broker_are_different_clients(port):
    async with AsyncExitStack() as stack:
        ones = [await stack.enter_async_context(client(port, V5, name)) for name in ("a+b", "a/b", "a_b", "a#b", "a$b")]
        for one in ones:
            await one.subscribe("t")
        await ones[0].publish("t")
        for one in ones:
            await one.got()


@BOTH
async def test_keep_alive_zero_is_taken(port, version):
    async with client(port, version, keepalive=0) as one:
        await one.publish("t")


async def test_a_silent_client_is_dropped_after_its_keep_alive(port):
    async with (
        client(port, V5) as watching,
        raw(port, connect(4, "quiet", flags=6, keepalive=1, tail=text("w") + text("gone"))),
    ):
        await watching.subscribe("w")
        assert await watching.got() == [("w", b"gone")]


@BOTH
async def test_credentials_are_taken_and_not_looked_at(port, version):
    async with client(port, version, credentials=("name", b"\xff\xfe binary")) as one:
        await one.publish("t")


async def test_a_packet_right_behind_connect_is_not_lost(port):
    async with raw(port, connect(4) + subscribe(4, "t") + packet(0x30, text("t"), b"hello")) as one:
        assert [(await one.receive()).head for _ in range(3)] == [0x20, 0x90, 0x30]


@BOTH
async def test_the_will_is_published_when_the_socket_just_closes(port, version):
    async with client(port, V311) as watching, client(port, version, "one", will=("ü/will", b"gone", 1, True)) as one:
        await watching.subscribe("ü/will")
        await one.vanish()
        assert await watching.got() == [("ü/will", b"gone")]
        async with client(port, V5) as late:
            await late.subscribe("#")
            assert await late.got() == [("ü/will", b"gone")]


@BOTH
async def test_no_will_after_a_goodbye(port, version):
    async with client(port, V311) as watching:
        await watching.subscribe("#")
        async with client(port, version, "one", will=("will", b"gone", 1, False)):
            pass
        async with client(port, version, "one") as again:
            await again.publish("done")
        assert await watching.got() == [("done", b"x")]


async def test_goodbye_with_a_reason_leaves_the_will(port):
    async with client(port, V311) as watching, client(port, V5, "one", will=("will", b"gone")) as one:
        await watching.subscribe("#")
        one.paho.disconnect(ReasonCode(PacketTypes.DISCONNECT, identifier=4))
        assert await watching.got() == [("will", b"gone")]


@BOTH
async def test_a_client_takes_over_and_the_wills_are_told_apart(port, version):
    async with client(port, V311) as watching:
        await watching.subscribe("#")
        async with (
            client(port, version, "same", will=("will", b"first")) as first,
            client(port, version, "same", will=("will", b"second")) as second,
        ):
            await until(lambda: first.ended is not None, "the first is dropped")
            assert version != V5 or first.ended.value == mqtt_front.Reason.TAKEN_OVER
            await second.publish("alive")
            assert await watching.got(2) == [("will", b"first"), ("alive", b"x")]
            await second.vanish()
            assert (await watching.got(3))[2] == ("will", b"second")


@BOTH
async def test_many_at_once_with_one_name_leave_one(port, version):
    async with AsyncExitStack() as stack:
        ones = [await stack.enter_async_context(raw(port, connect(version, "same"))) for _ in range(8)]
        ends = [asyncio.create_task(one.receive_all()) for one in ones]
        await until(lambda: sum(end.done() for end in ends) == 7, "seven are dropped")
        for one in ones:
            one.vanish()
        await asyncio.gather(*ends)


async def test_a_session_outlives_its_connection_when_asked_to(port):
    for version, expiry in ((V311, 0), (V5, 1000)):
        async with client(port, version, f"keeper{version}", clean=False, expiry=expiry) as one:
            assert not one.session_present
            await one.subscribe("t")
        async with client(port, V5) as other:
            await other.publish("t", b"meanwhile")
        async with client(port, version, f"keeper{version}", clean=False, expiry=expiry) as one:
            assert one.session_present
            assert await one.got() == [("t", b"meanwhile")]


async def test_a_version_5_session_without_expiry_ends_with_its_connection(port):
    async with client(port, V5, "one", clean=False) as one:
        await one.subscribe("t")
    async with client(port, V5, "one", clean=False) as one:
        assert not one.session_present


# what must not end the broker


async def alive(port):
    async with client(port, V311) as one, client(port, V5) as other:
        await one.subscribe("alive/#")
        await other.publish("alive/1")
        await one.got()


@pytest.mark.parametrize("will", [False, True], ids=["", "will"])
@pytest.mark.parametrize("level", [4, 5])
async def test_leaving_while_a_flood_arrives_does_not_end_the_broker(port, level, will):
    extra = {"flags": 6, "tail": (b"\0" if level == 5 else b"") + text("will") + text("x")} if will else {}
    async with client(port, V311) as publisher:
        for number in range(1000):
            publisher.paho.publish(f"flood/{number}", b"x" * 300, 1, retain=True)
        await publisher.publish("done")
    for number in range(24):
        hello = connect(level, f"short{number}", **extra) + subscribe(level, "flood/#")
        async with raw(port, hello) as short:
            for _ in range(number % 4):  # before CONNACK, after it, after SUBACK, after the first message
                await short.receive()
            short.send(DISCONNECT)
            await short.receive_all()
        async with raw(port, hello) as shorter:
            for _ in range(number % 4):
                await shorter.receive()
            shorter.vanish()
    await alive(port)


async def test_many_short_connections_disturb_none_of_the_others(port):
    async with client(port, V311) as watching:
        await watching.subscribe("churn", qos=1)

        async def come_and_go(level, number):
            publish = packet(0x32, text("churn"), b"\0\1", b"\0" if level == 5 else b"", str(number).encode())
            async with raw(port, connect(level, f"churn{number}") + publish + DISCONNECT) as one:
                return [packet.head for packet in await one.receive_all()]

        for start in range(0, 240, 24):
            await asyncio.gather(*(come_and_go(4 + number % 2, number) for number in range(start, start + 24)))
        assert len({payload for _, payload in await watching.got(240)}) == 240
        assert watching.ended is None


BAD_FIRST = {
    "no CONNECT": b"\xc0\x00",
    "no end of the length": b"\x10\xff\xff\xff\xff\xff",
    "too long": b"\x10\xff\xff\xff\x7f",
    "cut short": packet(0x10, text("MQTT"), b"\x05\x02"),
    "flags": b"\x11\x00",
    "reserved flag": connect(4, flags=3),
    "more than it should have": connect(4, tail=b"x"),
    "no UTF-8": connect(4, b"\xff"),
    "NUL": connect(4, "\0"),
    "unknown property": connect(5, properties=b"\x02\x7f\x00"),
    "property of another packet": connect(5, properties=b"\x03\x23\x00\x01"),
    "length of properties": connect(5, properties=b"\xff\xff\xff\xff\x01"),
    "will without topic": connect(4, flags=6, tail=text("") + text("x")),
    "will with the front's own mark": connect(4, flags=6, tail=text("\x01a") + text("x")),
}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("first", BAD_FIRST.values(), ids=BAD_FIRST.keys())
async def test_a_first_packet_that_is_none_ends_the_connection(shared_port, first):
    async with raw(shared_port, first) as one:
        assert await one.receive() is None
    await alive(shared_port)


async def test_another_version_is_told_so(port):
    async with raw(port, connect(6, name="MQTT")) as one:
        assert (await one.receive()).body == b"\0\1"
        assert await one.receive() is None


async def test_who_does_not_speak_is_not_kept(port, monkeypatch):
    monkeypatch.setattr(mqtt_front, "CONNECT_TIMEOUT", 0.05)
    async with raw(port) as silent:
        assert await silent.receive() is None


BAD_NEXT = {
    "a second CONNECT": connect(4),
    "CONNACK": b"\x20\x02\x00\x00",
    "SUBACK": b"\x90\x03\x00\x01\x00",
    "UNSUBACK": b"\xb0\x02\x00\x01",
    "PINGRESP": b"\xd0\x00",
    "AUTH": b"\xf0\x00",
    "reserved": b"\x00\x00",
    "QoS 3": packet(0x36, text("a"), b"\0\1"),
    "no identifier": packet(0x32, text("a"), b"\0\0"),
    "no topic": packet(0x30, b"\0"),
    "topic that is no UTF-8": packet(0x30, text(b"\xff\xff"), b"\0"),
    "topic with the front's own mark": packet(0x30, text("\x01ü"), b"\0"),
    "flags of SUBSCRIBE": packet(0x80, b"\0\1", text("a"), b"\0"),
    "SUBSCRIBE to nothing": packet(0x82, b"\0\1", b"\0"),
    "SUBSCRIBE without options": packet(0x82, b"\0\1", b"\0", text("a")),
    "share of nothing": packet(0x82, b"\0\1", b"\0", text("$share/g"), b"\0"),
    "UNSUBSCRIBE from nothing": packet(0xA2, b"\0\1", b"\0"),
    "acknowledgement of nothing": packet(0x40, b"\0\1"),
    "half an acknowledgement": packet(0x40, b"\0"),
    "too long": b"\x30\xff\xff\xff\x7f",
}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize("next_", BAD_NEXT.values(), ids=BAD_NEXT.keys())
async def test_a_packet_out_of_order_ends_its_connection_only(shared_port, level, next_):
    async with raw(shared_port, connect(level, "bad")) as one:
        assert (await one.receive()).kind == 2
        one.send(next_)
        last = await one.receive_all()
        assert all(packet.kind in {9, 14} for packet in last)
    await alive(shared_port)


async def test_version_3_has_no_options_in_subscribe(port):
    async with raw(port, connect(4) + packet(0x82, b"\0\1", text("a"), b"\x04")) as one:
        assert [packet.kind for packet in await one.receive_all()] == [2]


async def test_malformed_bytes_never_end_the_broker(port):
    """Bounded: what breaks the front's own parsing is looked for in test_mqtt_front."""
    heads = st.integers(0, 255)
    bodies = st.binary(max_size=40) | st.builds(
        lambda *parts: b"".join(parts), st.just(b"\0\1\0"), st.binary(max_size=6).map(text), st.binary(max_size=9)
    )
    junk = st.lists(st.builds(packet, heads, bodies) | st.binary(max_size=20), max_size=6).map(b"".join)

    @settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @given(st.sampled_from([b"", connect(3), connect(4), connect(5)]), junk)
    def throw(first, rest):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as one:
            one.sendall(first + rest)
            one.shutdown(socket.SHUT_WR)
            try:
                while one.recv(65536):
                    pass
            except ConnectionResetError:
                pass

    await asyncio.to_thread(throw)
    await alive(port)


# the process


async def test_start_and_stop():
    broker = DemoBroker()
    await broker.stop()
    await broker.start()
    await broker.start()
    port, pid = broker.port, broker._process.pid
    async with client(port, V5) as one:
        await one.publish("t", b"1", retain=True)
        await broker.stop()
        await until(lambda: one.ended is not None, "clients are dropped")
    await broker.stop()
    assert gone(pid)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)

    await broker.start()
    try:
        assert broker.port == port
        async with client(port, V5) as one:
            await one.subscribe("#")
            await one.publish("t", b"2")
            assert await one.got() == [("t", b"2")]
    finally:
        await broker.stop()


async def test_many_starts_leave_nothing_behind():
    def kept():
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    async with embedded_broker():
        pass
    before = kept()
    for _ in range(4):
        async with embedded_broker() as (_, port), raw(port, connect(4)) as one:
            await one.receive()
    await until(lambda: kept() <= before, f"no more than {before}, but {kept()}")


async def test_a_taken_port_is_said():
    async with embedded_broker() as (_, port):
        broker = DemoBroker(port)
        with pytest.raises(OSError, match=f"MQTT port 127.0.0.1:{port} can't be had .*; name another") as raised:
            await broker.start()
        assert raised.value.errno == errno.EADDRINUSE
        assert broker._process is None
        await broker.stop()


async def test_a_port_that_is_taken_at_the_last_moment_is_said(monkeypatch):
    with socket.socket() as rival:
        rival.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        rival.bind(("127.0.0.1", 0))
        broker = DemoBroker(rival.getsockname()[1])
        start_child = broker._start_child

        async def and_meanwhile():
            inner_port = await start_child()
            rival.listen()
            return inner_port

        monkeypatch.setattr(broker, "_start_child", and_meanwhile)
        with pytest.raises(OSError, match="can't be had"):
            await broker.start()
        assert broker._process is None


async def test_no_client_is_taken_before_the_broker_inside_is_ready(monkeypatch):
    broker = DemoBroker()
    start_child = broker._start_child
    bound = []
    bind = broker._bind
    monkeypatch.setattr(broker, "_bind", lambda: bound.append(bind()) or bound[0])

    async def and_meanwhile():
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*bound[0].getsockname())
        return await start_child()

    monkeypatch.setattr(broker, "_start_child", and_meanwhile)
    await broker.start()
    await alive(broker.port)
    await broker.stop()


def test_without_iotcore_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'sems-gateway\[demo\]'") as raised:
        runpy.run_path(module.__file__)
    assert raised.value.name == "iotcore"


def test_it_serves_only_this_machine():
    with pytest.raises(ValueError, match="no passwords"):
        DemoBroker(host="0.0.0.0")


async def test_ipv6():
    broker = DemoBroker(host="::1")
    try:
        await broker.start()
    except OSError:
        pytest.skip("no IPv6 here")
    reader, writer = await asyncio.open_connection("::1", broker.port)
    writer.write(connect(4) + DISCONNECT)
    async with asyncio.timeout(10):
        assert (await reader.read())[:1] == b"\x20"
    writer.close()
    await broker.stop()


async def test_a_child_that_fails_is_quoted(monkeypatch):
    monkeypatch.setattr(module, "_CHILD", "raise SystemExit('it will not')")
    with pytest.raises(OSError, match="did not start: it will not"):
        await DemoBroker().start()


async def test_a_child_that_does_nothing_is_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr(module, "_CHILD", "import sys; sys.stdin.read()")
    monkeypatch.setattr(module, "START_TIMEOUT", 0.3)
    with pytest.raises(OSError, match="did not start within"):
        await DemoBroker().start()


async def test_a_start_that_is_cancelled_leaves_no_child():
    broker = DemoBroker()
    starting = asyncio.create_task(broker.start())
    pid = (await until(lambda: broker._process, "a child")).pid
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert gone(pid)


async def test_a_child_that_hangs_is_killed(monkeypatch):
    monkeypatch.setattr(module, "STOP_TIMEOUT", 0.1)
    broker = DemoBroker()
    await broker.start()
    pid = broker._process.pid
    os.kill(pid, signal.SIGSTOP)
    await broker.stop()
    assert gone(pid)


async def test_a_broker_that_is_gone_is_told_and_clients_are_refused():
    broker = DemoBroker()
    await broker.start()
    async with client(broker.port, V311) as one:
        with capture_logs() as logs:
            broker._process.kill()
            await until(lambda: one.ended is not None, "clients are dropped")
            await until(lambda: logs, "a word in the log")
        assert "start the demo again" in logs[0]["event"]
    for level, answer in ((4, b"\0\3"), (5, b"\0\x88\0")):
        async with raw(broker.port, connect(level, "one")) as one:
            assert (await one.receive()).body == answer
            assert await one.receive() is None
    await broker.stop()


@pytest.mark.parametrize("times", [1, 3])
async def test_a_panic_inside_is_logged_once_and_counted(monkeypatch, times):
    panics = "".join(f"thread 'router-0' panicked at {number}.rs\n" for number in range(times))
    panic = f"import sys; print({panics!r}, file=sys.stderr, flush=True)\n"
    monkeypatch.setattr(module, "_CHILD", panic + module._CHILD)
    with capture_logs() as logs:
        async with embedded_broker():
            await until(lambda: logs, "a word in the log")
    first = {
        "log_level": "warning",
        "event": "the demo's MQTT broker has hit a defect of its own",
        "detail": "thread 'router-0' panicked at 0.rs",
    }
    last = {
        "log_level": "warning",
        "event": "the demo's MQTT broker has hit defects of its own",
        "times": times,
    }
    assert logs == ([first, last] if times > 1 else [first])


async def program(code):
    """Run a program with a broker and a client, in a session of its own; returns it and the broker's process id."""
    start = (
        "import asyncio, signal\n"
        "from gateway.demo.broker import DemoBroker\n"
        "from tests.demo.clients import V5, client\n"
        "async def main():\n"
        "    stop = asyncio.Event()\n"
        "    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)\n"
        "    broker = DemoBroker()\n"
        "    await broker.start()\n"
        "    async with client(broker.port, V5) as one:\n"
        "        print(broker._process.pid, flush=True)\n"
        "        await stop.wait()\n"
        "        await one.publish('state', b'offline', retain=True)\n"
        "        print('published', flush=True)\n"
        "    await broker.stop()\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        start + code,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    return process, int(await process.stdout.readline())


@pytest.mark.system
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_ctrl_c_leaves_time_to_say_offline(loop):
    pytest.importorskip(loop)
    process, pid = await program(f"import {loop}\n{loop}.run(main())\n")
    os.killpg(process.pid, signal.SIGINT)
    out, err = await process.communicate()
    assert (out, err, process.returncode) == (b"published\n", b"", 0)
    assert gone(pid)


@pytest.mark.system
async def test_a_killed_parent_leaves_no_orphan():
    process, pid = await program("asyncio.run(main())\n")
    assert not gone(pid)
    process.kill()
    await process.communicate()
    await until(lambda: gone(pid), "the broker ends too")


# mosquitto's clients


async def run(program, *args):
    process = await asyncio.create_subprocess_exec(
        need(program), *args, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    return process.returncode, out.decode().split("\n")[:-1], err.decode()


@pytest.mark.system
@pytest.mark.parametrize(
    ("publishing", "subscribing"), [("mqttv311", "mqttv5"), ("mqttv5", "mqttv31"), ("mqttv31", "mqttv311")]
)
async def test_mosquittos_clients(port, publishing, subscribing):
    for qos in "012":
        for topic in ("state/1", "ü/2"):
            assert await run(
                "mosquitto_pub", "-p", str(port), "-V", publishing, "-t", topic, "-m", f"on {qos}", "-r", "-q", qos
            ) == (0, [], "")
        command = [
            "mosquitto_sub",
            "-p",
            str(port),
            "-V",
            subscribing,
            "-t",
            "#",
            "-q",
            qos,
            "-F",
            "%t %p %r",
            "-W",
            "9",
        ]
        code, lines, errors = await run(*command, "-C", "2")
        assert (code, sorted(lines), errors) == (0, [f"state/1 on {qos} 1", f"ü/2 on {qos} 1"], "")


@pytest.mark.system
async def test_mosquittos_clients_with_properties(port):
    properties = "response-topic a/b", "correlation-data zz", "content-type t", "user-property k v"
    options = [part for each in properties for part in ("-D", "publish", *each.split())]
    assert (await run("mosquitto_pub", "-p", str(port), "-V", "5", "-t", "t", "-m", "hi", "-r", *options))[0] == 0
    wanted = "%p %R %D %C %P"
    assert (await run("mosquitto_sub", "-p", str(port), "-V", "5", "-t", "t", "-C", "1", "-W", "9", "-F", wanted))[
        1
    ] == ["hi a/b zz t k:v"]
    assert (await run("mosquitto_sub", "-p", str(port), "-t", "t", "-C", "1", "-W", "9"))[1] == ["hi"]


@pytest.mark.system
async def test_mosquitto_sub_that_wants_one_of_many_does_not_end_the_broker(port):
    async with client(port, V311) as publisher:
        for number in range(1000):
            publisher.paho.publish(f"flood/{number}", b"x" * 300, 1, retain=True)
        await publisher.publish("done")
    for version in ("mqttv5", "mqttv311") * 3:
        code, lines, _ = await run("mosquitto_sub", "-p", str(port), "-V", version, "-t", "#", "-C", "1", "-W", "9")
        assert (code, len(lines)) == (0, 1)
    await alive(port)
