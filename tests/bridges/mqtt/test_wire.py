"""What is read by a shortcut is what paho itself would have read, however the bytes come."""

import re
import socket

import paho.mqtt.client as paho
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gateway.bridges.mqtt.wire import BufferedPaho


def publish(protocol, *, qos, retain=False, payload=b"50", topic=b"sems/SN1/set", properties=None):
    """Return a PUBLISH as a broker sends it."""
    body = len(topic).to_bytes(2) + topic + ((7).to_bytes(2) if qos else b"")
    if protocol == paho.MQTTv5:
        body += properties.pack() if properties else b"\0"
    body += payload
    size = len(body)
    length = bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
    return bytes([0x30 | qos << 1 | retain]) + length + body


class Connection:
    """A client over a pair of sockets, and all that it has told of."""

    def __init__(self, protocol):
        self.client = BufferedPaho(paho.CallbackAPIVersion.VERSION2, protocol=protocol)
        ours, self.broker = socket.socketpair()
        self.client.socket_factory = lambda: ours
        self.client._create_socket_connection = lambda: ours
        self.client.max_inflight_messages_set(0)
        self.client.on_socket_register_write = lambda *_: None
        self.got = []
        self.client.on_plain = lambda *message: self.got.append(("plain", *message))
        self.client.on_message = self._on_message
        self.client.connect("broker.example")
        self.broker.sendall(b"\x20\x03\0\0\0" if protocol == paho.MQTTv5 else b"\x20\x02\0\0")
        self.client.loop_read()
        self.client.flush()
        self.broker.recv(65536)

    def _on_message(self, _, __, message):
        topic = message._topic.decode("utf-8", "replace")
        self.got.append(("paho", topic, bytes(message.payload), message.qos, message.retain))

    def read(self, data, part=None):
        """Have the client read these bytes, so many at a time."""
        for begin in range(0, len(data), part or len(data)):
            self.broker.sendall(data[begin : begin + (part or len(data))])
            self.client.loop_read()
            while (wire := self.client.socket()) is not None and wire.pending():
                self.client.loop_read()

    def close(self):
        if (wire := self.client.socket()) is not None:
            wire.close()
        self.broker.close()


@pytest.fixture(params=[paho.MQTTv5, paho.MQTTv311], ids=["5", "3.1.1"])
def connection(request):
    connection = Connection(request.param)
    yield connection
    connection.close()


@pytest.mark.parametrize("payload", [b"", b"50", b"x" * 5_000])
@pytest.mark.parametrize("part", [None, 1, 3])
def test_messages_are_the_same_in_one_piece_and_in_parts(connection, payload, part):
    protocol = connection.client._protocol
    sent = [(qos, retain) for qos in (0, 1) for retain in (False, True)]
    connection.read(b"".join(publish(protocol, qos=q, retain=r, payload=payload) for q, r in sent), part)
    assert [tuple(got[1:]) for got in connection.got] == [("sems/SN1/set", payload, q, r) for q, r in sent]
    connection.client.flush()
    assert connection.broker.recv(100) == bytes.fromhex("4002000740020007")


def test_a_message_with_properties_has_them():
    connection, found = Connection(paho.MQTTv5), []
    properties = Properties(PacketTypes.PUBLISH)
    properties.ResponseTopic = "answers/1"
    connection.client.on_message = lambda _, __, message: found.append(message.properties.ResponseTopic)
    connection.read(publish(paho.MQTTv5, qos=0) + publish(paho.MQTTv5, qos=0, properties=properties))
    assert found == ["answers/1"]
    assert [got[0] for got in connection.got] == ["plain"]
    connection.close()


def test_an_acknowledgement_settles_its_own_message_alone(connection):
    first, second = (connection.client.publish("a/b", b"x", 1) for _ in range(2))
    connection.read(publish(connection.client._protocol, qos=0) + b"\x40\x02" + second.mid.to_bytes(2))
    assert second.is_published()
    assert not first.is_published()
    connection.read(b"\x40\x02" + second.mid.to_bytes(2) + b"\x40\x02" + first.mid.to_bytes(2))
    assert first.is_published()


def test_an_acknowledgement_with_a_reason_is_one():
    connection = Connection(paho.MQTTv5)
    message = connection.client.publish_plain("a/b", b"x", 1, False)
    connection.read(publish(paho.MQTTv5, qos=0) + b"\x40\x03" + message.mid.to_bytes(2) + b"\x10")
    assert message.is_published()
    connection.close()


def test_a_refusal_is_told_and_is_no_plain_acknowledgement():
    connection, refused = Connection(paho.MQTTv5), []
    connection.client.on_refused = lambda mid, code: refused.append((mid, code.value))
    message = connection.client.publish("a/b", b"x", 1)
    connection.read(publish(paho.MQTTv5, qos=0) + b"\x40\x03" + message.mid.to_bytes(2) + b"\x87")
    assert refused == [(message.mid, 0x87)]
    connection.close()


@pytest.mark.parametrize(
    "body", [b"", b"\0", b"\0\x05ab", b"\0\x02\xff\xfe\0"], ids=["none", "half", "short", "no text"]
)
@pytest.mark.parametrize("protocol", [paho.MQTTv5, paho.MQTTv311], ids=["5", "3.1.1"])
def test_what_is_out_of_order_does_what_paho_makes_of_it(protocol, body):
    packet = bytes([0x30, len(body)]) + body
    alone, behind = Connection(protocol), Connection(protocol)
    alone.read(packet, 1)  # what comes in parts is always paho's
    behind.read(publish(protocol, qos=0) + packet)
    assert [got[1:] for got in behind.got[1:]] == [got[1:] for got in alone.got]
    assert (behind.client.socket() is None) == (alone.client.socket() is None)
    for each in (alone, behind):
        each.close()


@pytest.mark.parametrize("size", [0, 50, 110, 111, 112, 113, 114, 16_360, 16_390])
@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("retain", [False, True])
@pytest.mark.parametrize("protocol", [paho.MQTTv5, paho.MQTTv311], ids=["5", "3.1.1"])
def test_a_plain_message_has_the_bytes_that_paho_gives_it(protocol, retain, qos, size):
    sent = []
    for publish_ in (BufferedPaho.publish_plain, BufferedPaho.publish):
        connection = Connection(protocol)
        message = publish_(connection.client, "sems/Gerät/x", b"x" * size, qos, retain)
        connection.client.flush()
        sent.append(connection.broker.recv(65_536))
        assert not message.is_published() or qos == 0
        connection.read(b"\x40\x02" + message.mid.to_bytes(2))
        assert message.is_published() or qos == 0
        connection.close()
    assert sent[0] == sent[1]


def test_messages_stay_in_order_when_the_broker_reads_late(connection):
    count, got = 5_000, b""
    for number in range(count):
        connection.client.publish_plain("a/b", b"<%d>" % number + b"x" * 200, 0, False)
        if number == 1_000:  # some of what waits goes out, and there is room for what comes behind the rest
            connection.client.socket().flush()
            got += connection.broker.recv(65_536)
    while got.count(b">") < count:
        connection.client.flush()
        got += connection.broker.recv(65_536)
    assert [int(found) for found in re.findall(rb"<(\d+)>", got)] == list(range(count))


@pytest.mark.parametrize("topic", ["a/+", "#"])
def test_a_wildcard_is_no_topic(connection, topic):
    with pytest.raises(ValueError, match="wildcard"):
        connection.client.publish_plain(topic, b"x", 1, False)
