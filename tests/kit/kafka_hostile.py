"""Records that no client of ours would write: random bytes and JSON, keys, times, headers, packings, transactions.

`flood` writes thousands of them; `odd_header` writes one by hand, whose header's name is no UTF-8, for no client does.
"""

import socket
import struct
import time

from confluent_kafka import Producer

from tests.fuzz import dice as change

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
ANY_TIME = {"message_timestamp_after_max_ms": 2**63 - 1, "message_timestamp_before_max_ms": 2**63 - 1}
"""Settings of a topic that takes every time stamp."""
LATE = (2**62, 2**55, 253_402_300_799_999, 1, 10**15)
_POLYNOMIAL = 0x82F63B78


def flood(kafka, topic, dice, count, samples, between=()):
    """Write `count` random records, half of them JSON made from samples, and the good ones of `between` among them."""
    producers = [
        Producer({"bootstrap.servers": kafka.plaintext, "compression.type": codec, "linger.ms": 20}) for codec in CODECS
    ]
    step = max(1, count // (len(between) + 1))
    left = list(between)
    for number in range(count):
        out = dice.choice(producers)
        raw = (
            change.json_of(dice, dice.choice(samples), 2) if dice.random() < 0.5 else dice.randbytes(dice.randrange(60))
        )
        value = None if dice.random() < 0.02 else raw
        key = dice.choice((None, b"", dice.randbytes(9), b"9010KETU000W0009"))
        headers = (
            [(dice.choice(("", "é", "x" * 300)), dice.choice((None, b"\xff", b"v")))] if dice.random() < 0.1 else None
        )
        stamp = dice.choice(LATE) if dice.random() < 0.05 else int(time.time() * 1000)
        out.produce(topic, value, key, headers=headers, timestamp=stamp)
        if number % step == step - 1 and left:
            good_key, good = left.pop(0)
            out.produce(topic, good, good_key)
        if number % 1000 == 0:
            out.poll(0)
    for good_key, good in left:
        producers[0].produce(topic, good, good_key)
    _abort(kafka, topic)
    odd_header(kafka, topic)
    for out in producers:
        assert out.flush(60) == 0


def _abort(kafka, topic):
    """Leave records of a transaction that was broken off, and its control record."""
    out = Producer({"bootstrap.servers": kafka.plaintext, "transactional.id": f"tests.{topic}"})
    out.init_transactions(60)
    out.begin_transaction()
    out.produce(topic, b"{}", b"k")
    out.flush(60)
    out.abort_transaction(60)


def odd_header(kafka, topic):
    """Write a record whose header's name is no UTF-8: reading such a header ends the process in confluent-kafka."""
    now = int(time.time() * 1000)
    body = (
        b"\0"
        + _varint(0)
        + _varint(0)
        + _varint(-1)
        + _bytes(b"{}")
        + _varint(1)
        + _bytes(b"\xff\xfe\xc0")
        + _bytes(b"v")
    )
    record = _varint(len(body)) + body
    signed = struct.pack(">hiqqqhii", 0, 0, now, now, -1, -1, -1, 1) + record
    batch = struct.pack(">ibI", -1, 2, _crc32c(signed)) + signed
    records = struct.pack(">qi", 0, len(batch)) + batch
    name = topic.encode()
    request = (
        struct.pack(">hhih", 0, 3, 1, -1)
        + struct.pack(">hhi", -1, -1, 30_000)
        + struct.pack(">ih", 1, len(name)) + name
        + struct.pack(">iii", 1, 0, len(records)) + records
    )  # fmt: skip
    host, port = kafka.plaintext.split(":")
    with socket.create_connection((host, int(port)), 60) as line:
        line.sendall(struct.pack(">i", len(request)) + request)
        answer = line.makefile("rb")
        (size,) = struct.unpack(">i", answer.read(4))
        said = answer.read(size)
    (error,) = struct.unpack_from(">h", said, 4 + 4 + 2 + len(name) + 4 + 4)
    assert error == 0, f"the broker refuses the record: {error}"


def _bytes(raw):
    return _varint(len(raw)) + raw


def _varint(number):
    zigzag, out = (number << 1) ^ (number >> 63), bytearray()
    while zigzag >= 0x80:
        out.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    return bytes([*out, zigzag])


def _crc32c(raw):
    crc = 0xFFFFFFFF
    for byte in raw:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
