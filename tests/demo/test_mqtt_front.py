"""The front before the demo's broker: what it makes of packets, and how it lets clients go."""

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.demo import mqtt_front
from gateway.demo.mqtt_dialect import (
    Connect,
    Dialect,
    Framer,
    Packet,
    ProtocolError,
    read_connect,
)
from gateway.demo.mqtt_front import Front, answers
from tests.demo.clients import connect, packet, raw, text
from tests.kit.bench import until

LEVELS = st.sampled_from([3, 4, 5])
TOPICS = st.text(st.characters(blacklist_characters="\0\1#+", blacklist_categories=["Cs"]), min_size=1, max_size=20)
WILL = text("will") + text("x")
WILL5 = b"\0" + WILL
WORDS = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=20)


def only(data, limit=1 << 28):
    """Return the one packet that the bytes are."""
    framer = Framer(limit)
    framer.feed(data)
    (found,) = framer.take()
    return found


def publish(level, topic, payload=b"x", properties=b"\0"):
    return only(packet(0x31, text(topic), properties if level == 5 else b"", payload))


# cutting


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=300)), max_size=8), st.data())
def test_packets_come_out_as_they_went_in_however_they_are_cut(packets, data):
    stream = b"".join(Packet(*each).encode() for each in packets)
    framer, found = Framer(1000), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        framer.feed(stream[:size])
        stream = stream[size:]
        found += framer.take(data.draw(st.integers(1, 3)))
    while more := framer.take():
        found += more
    assert found == packets


@given(st.binary(max_size=60))
def test_any_bytes_are_packets_or_a_protocol_error(data):
    framer = Framer(20)
    framer.feed(data)
    found = []
    try:
        while packets := framer.take():
            found += packets
    except ProtocolError:
        assert len(data) > sum(len(packet.encode()) for packet in found)
    assert all(len(packet.body) <= 20 for packet in found)


def test_what_came_before_an_error_still_counts():
    framer = Framer(20)
    framer.feed(b"\xc0\x00\x30\x7f")
    assert framer.take() == [(0xC0, b"")]
    with pytest.raises(ProtocolError, match="TOO_LARGE"):
        framer.take()


# CONNECT


@given(st.binary(max_size=60) | st.builds(lambda rest: b"\0\4MQTT" + rest, st.binary(max_size=40)))
def test_any_first_packet_is_read_or_refused(body):
    try:
        found = read_connect(Packet(0x10, body))
    except ProtocolError:
        return
    assert only(found.packet).kind == 1


@given(LEVELS, WORDS, WORDS, st.binary(max_size=20), st.integers(0, 0xFFFF), st.booleans(), st.integers(0, 2))
def test_every_connect_becomes_one_of_version_5(level, client_id, topic, message, keepalive, clean, qos):
    topic = f"t{topic}"
    will = (b"\0" if level == 5 else b"") + text(topic) + text(message)
    flags = 0xC4 | qos << 3 | clean << 1
    found = read_connect(
        only(connect(level, client_id, flags=flags, keepalive=keepalive, tail=will + text("user") + text(b"\xff")))
    )
    body = only(found.packet).body
    assert body[:7] == b"\0\4MQTT\5"
    assert body[7] == 0x04 | qos << 3 | (clean or level == 5) << 1
    assert int.from_bytes(body[8:10], "big") == (keepalive or 65535)
    assert body[10:] == b"\0" + text(found.client_id) + b"\0" + text(topic) + text(message)
    assert not set("+$#/") & set(found.client_id)
    assert found.persistent == (not clean and level != 5)


@pytest.mark.parametrize(
    ("properties", "kept", "persistent"),
    [
        (b"\x00", b"\x00", False),
        (b"\x05\x11\x00\x00\x00\x00", b"\x05\x11\x00\x00\x00\x00", False),
        (b"\x05\x11\x00\x00\x01\x00", b"\x05\x11\x00\x00\x01\x00", True),
        (b"\x03\x22\x00\x10", b"\x00", False),
        (b"\x0e\x26\x00\x01a\x00\x01b\x22\x00\x10\x17\x01", b"\x09\x26\x00\x01a\x00\x01b\x17\x01", False),
    ],
)
def test_properties_of_connect(properties, kept, persistent):
    properties = bytes([len(properties) - 1]) + properties[1:]
    found = read_connect(only(connect(5, "me", flags=0, properties=properties)))
    assert only(found.packet).body[10:] == kept + text("me")
    assert found.persistent == persistent


def test_the_bridges_of_mosquitto_are_known():
    assert read_connect(only(connect(0x84))).level == 4


def test_a_client_id_that_becomes_too_long_is_refused():
    with pytest.raises(ProtocolError):
        read_connect(only(connect(4, "/" * 40_000)))


# the other packets


@given(LEVELS, st.booleans(), st.integers(0, 255), st.binary(max_size=40))
def test_any_packet_is_translated_or_refused(level, persistent, head, body):
    dialect = Dialect(level, persistent=persistent)
    try:
        translated = dialect.to_broker(Packet(head, body))
    except ProtocolError as error:
        answer = dialect.goodbye(error.reason)
        assert only(answer).kind == 14 if level == 5 else not answer
        return
    assert only(translated).head == head
    answer = dialect.answer(Packet(head, body))
    assert only(answer).kind == 11 if head >> 4 == 10 else not answer


@given(LEVELS, LEVELS, TOPICS, st.binary(max_size=20))
def test_topic_and_payload_pass_between_versions(one, other, topic, payload):
    inner = only(Dialect(one).to_broker(publish(one, topic, payload)))
    length = int.from_bytes(inner.body[:2], "big")
    assert inner.body[2] < 0x80
    assert inner.body[2 + length :] == b"\0" + payload
    assert only(Dialect(other).to_client(inner)) == publish(other, topic, payload)


def test_properties_pass_in_version_5_and_end_at_version_3():
    inner = Dialect(5).to_broker(publish(5, "t", b"x", b"\x04\x08\x00\x01r"))
    assert only(Dialect(5).to_client(only(inner))) == publish(5, "t", b"x", b"\x04\x08\x00\x01r")
    assert only(Dialect(4).to_client(only(inner))) == publish(4, "t", b"x")


def test_an_alias_may_stand_for_the_topic_in_version_5_only():
    assert only(Dialect(5).to_broker(publish(5, "", b"x", b"\x03\x23\x00\x01"))) == publish(
        5, "", b"x", b"\x03\x23\x00\x01"
    )
    with pytest.raises(ProtocolError):
        Dialect(4).to_broker(publish(4, ""))


@given(LEVELS, st.sampled_from([0x40, 0x50, 0x62, 0x70]), st.binary(max_size=5))
def test_acknowledgements_lose_what_version_5_added(level, head, more):
    assert only(Dialect(level).to_broker(Packet(head, b"\0\7" + more))) == (head, b"\0\7")
    assert only(Dialect(4).to_client(Packet(head, b"\0\7" + more))) == (head, b"\0\7")


@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        (b"a/#", b"a/#"),
        (b"$SYS/#", b"\x01$SYS/#"),
        (b"$shared", b"\x01$shared"),
        ("ü/+".encode(), b"\x01" + "ü/+".encode()),
        (b"$share/g/a", b"$share/g/a"),
        ("$share/g/ü".encode(), b"$share/g/\x01" + "ü".encode()),
    ],
)
def test_filters(level, asked, sent):
    dialect, none = Dialect(level), b"\0" if level == 5 else b""
    subscribe = only(packet(0x82, b"\0\7", none, text(asked), b"\1", text("b"), b"\0"))
    assert only(dialect.to_broker(subscribe)).body == b"\0\7\0" + text(sent) + b"\1" + text("b") + b"\0"
    unsubscribe = only(packet(0xA2, b"\0\7", none, text(asked), text("b")))
    assert only(dialect.to_broker(unsubscribe)).body == b"\0\7\0" + text(sent) + text("b")
    assert only(dialect.answer(unsubscribe)) == (0xB0, b"\0\7\0\0\0" if level == 5 else b"\0\7")


@pytest.mark.parametrize(
    ("level", "sent", "received"),
    [
        (5, b"\x90\x06\0\7\0\1\x80\x87", b"\x90\x06\0\7\0\1\x80\x87"),
        (4, b"\x90\x06\0\7\0\1\x80\x87", b"\x90\x05\0\7\1\x80\x80"),
        (4, b"\x20\x06\1\0\3\x22\x10\0", b"\x20\2\1\0"),
        (3, b"\x20\x06\1\0\3\x22\x10\0", b"\x20\2\0\0"),
        (4, b"\x20\x03\0\x85\0", b"\x20\2\0\2"),
        (4, b"\x20\x03\0\x87\0", b"\x20\2\0\5"),
        (4, b"\xd0\0", b"\xd0\0"),
        (4, b"\xe0\2\x8b\0", b""),
        (5, b"\xe0\2\x8b\0", b"\xe0\2\x8b\0"),
        (4, b"\xb0\4\0\7\0\0", b""),
        (5, b"\xb0\4\0\7\0\0", b""),
    ],
)
def test_answers_of_the_broker(level, sent, received):
    assert Dialect(level).to_client(only(sent)) == received


# letting go


@asynccontextmanager
async def front_before(broker):
    """A front; `broker` is what serves its connections."""
    server = await asyncio.start_server(broker, "127.0.0.1", 0)
    front = Front(server.sockets[0].getsockname()[1])
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    await front.start(bound)
    try:
        yield bound.getsockname()[1], front
    finally:
        await front.stop()
        await front.stop()
        server.close()


@pytest.mark.parametrize("last", [b"\xe0\x00", b"\xf0\x00", b""], ids=["DISCONNECT", "malformed", "gone"])
async def test_a_broker_that_does_not_let_go_is_left(monkeypatch, last):
    monkeypatch.setattr(mqtt_front, "LEAVE_TIMEOUT", 0.05)
    heard, left = bytearray(), asyncio.Event()

    async def stubborn(reader, writer):
        writer.write(b"\x20\x03\0\0\0")
        try:
            while data := await reader.read(1000):
                heard.extend(data)
            await asyncio.get_running_loop().create_future() if not last else None
        except OSError:
            pass
        finally:
            left.set()
            writer.close()

    async with front_before(stubborn) as (port, front):
        async with raw(port, connect(5, "one", flags=6, tail=WILL5)) as one:
            await one.receive()
            one.send(last)
            if not last:
                one.vanish()
            else:
                await one.receive_all()
        await until(lambda: not front._clients, "the client is forgotten")
        assert not front._sessions
        assert heard.endswith(b"\xc0\x00") == (last == b"\xe0\x00")


async def test_the_goodbye_of_a_client_with_a_will_waits_until_nothing_comes_any_more():
    ping, pong, message = b"\xc0\0", b"\xd0\0", b"\x30\x04\0\1t\0"
    heard = []
    go = asyncio.Event()

    async def slow(reader, writer):
        writer.write(b"\x20\x03\0\0\0")
        await reader.readuntil(ping + ping)
        writer.write(pong)
        await go.wait()
        for answer in (message + pong, message + pong, pong):
            assert not reader._buffer
            writer.write(answer)
            heard.append(await reader.readexactly(2))
        writer.close()

    async with front_before(slow) as (port, front), raw(port, connect(4, flags=6, tail=WILL)) as one:
        await one.receive()
        one.send(ping + b"\xe0\0")
        await one.receive_all()
        go.set()
        await until(lambda: not front._clients, "the client is forgotten")
    assert heard == [ping, ping, b"\xe0\0"]


async def test_the_goodbye_of_a_client_without_a_will_is_the_end_of_its_connection():
    heard = []

    async def broker(reader, writer):
        writer.write(b"\x20\x03\0\0\0")
        await reader.readexactly(len(connect(5)))
        heard.append(await reader.read())
        writer.close()

    async with front_before(broker) as (port, front), raw(port, connect(4)) as one:
        await one.receive()
        one.send(b"\x30\x03\0\1t\xe0\0")
        await one.receive_all()
        await until(lambda: not front._clients, "the client is forgotten")
    assert heard == [b"\x30\x04\0\1t\0"]


async def test_a_client_that_does_not_read_is_dropped_when_it_is_taken_over(monkeypatch):
    monkeypatch.setattr(mqtt_front, "LEAVE_TIMEOUT", 0.05)
    flooded = asyncio.Event()

    async def flood(reader, writer):
        writer.write(b"\x20\x03\0\0\0")
        try:
            while not flooded.is_set():
                writer.write(packet(0x30, text("t"), b"\0", bytes(100_000)))
                async with asyncio.timeout(0.2):
                    await writer.drain()
        except OSError:  # and TimeoutError
            flooded.set()
        await reader.read()
        writer.close()

    async with front_before(flood) as (port, front), raw(port, connect(5, "one")):
        await until(flooded.is_set, "nothing more is taken")
        async with raw(port, connect(5, "one")) as other:
            assert (await other.receive()).kind == 2
        await until(lambda: not front._clients, "both are forgotten")


async def test_the_front_stops_with_clients_in_every_state():
    async def silent(reader, writer):
        await reader.read()
        writer.close()

    async with (
        front_before(silent) as (port, front),
        raw(port) as mute,
        raw(port, connect(4, "one")) as waiting,
        raw(port, connect(4, "one")) as behind,
    ):
        await until(lambda: front._sessions and len(front._clients) == 3, "all have come")
        await front.stop()
        assert [await each.receive() for each in (mute, waiting, behind)] == [None] * 3


async def test_a_probe_of_what_is_no_broker():
    async def rude(reader, writer):
        writer.transport.abort()

    async def polite(reader, writer):
        writer.write(b"hello")
        writer.close()

    for other in (rude, polite):
        server = await asyncio.start_server(other, "127.0.0.1", 0)
        assert not await answers(server.sockets[0].getsockname()[1])
        server.close()


def test_a_connect_is_read_as_a_whole():
    assert read_connect(only(connect(4, "me", flags=0))) == Connect(
        4, "me", True, False, packet(0x10, b"\0\4MQTT\5\0\0\x3c\0", text("me"))
    )
