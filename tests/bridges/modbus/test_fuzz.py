"""Any frames, cut anywhere: every one is answered, in order, with its own ids, and by the book."""

import asyncio
import os
import struct
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.bridges.modbus.directory import DIRECTORY
from gateway.bridges.modbus.gateway_unit import GATEWAY, UNITS
from gateway.bridges.modbus.maps.native import BLOCKS
from tests.bridges.modbus.client import RawClient, frame, read
from tests.bridges.modbus.conftest import serving

EXAMPLES = int(os.environ.get("SEMS_GATEWAY_FUZZ_EXAMPLES", "100"))
"""Of some 60 frames each."""

MAPS = {1: BLOCKS} | dict.fromkeys(UNITS, GATEWAY.blocks)
"""Unit → what it has."""
SERVED = {unit: {n for block in blocks for n in range(block.start, block.end)} for unit, blocks in MAPS.items()}
"""Unit → its registers."""
BETWEEN = {
    unit: {
        n
        for before, after in pairwise(sorted(blocks, key=lambda block: block.start))
        if after.start - before.end <= 123  # with a register of either, the longest read
        for n in range(before.end, after.start)
    }
    for unit, blocks in MAPS.items()
}
"""Unit → registers between blocks that are near each other, read with either of the two."""

words = st.integers(0, 0xFFFF)
near_blocks = st.sampled_from([edge for block in BLOCKS for edge in (block.start, block.end)]).flatmap(
    lambda edge: st.integers(max(0, edge - 130), edge + 5)
)
reads = st.builds(read, near_blocks | words, st.integers(0, 127) | words, st.sampled_from([3, 4]))
writes = st.builds(struct.Struct(">BHH").pack, st.just(6), near_blocks | words, words)
anything = st.builds(lambda function, rest: bytes([function]) + rest, st.integers(0, 255), st.binary(max_size=252))
truncated = st.builds(lambda pdu, n: pdu[:n], reads | writes, st.integers(1, 5))
pdus = st.one_of(reads, reads, writes, truncated, anything)
requests = st.lists(st.tuples(words, st.sampled_from([1, 1, 1, 0, 2, 254, 255]), pdus), min_size=40, max_size=120)


@pytest.fixture
def served(tmp_path):
    """The server on a loop of its own, which hypothesis can run again and again."""
    with asyncio.Runner() as runner:
        context = serving(tmp_path)
        served = runner.run(context.__aenter__())
        runner.run(served.publish(ac_power=1))
        yield runner, served
        runner.run(context.__aexit__(None, None, None))


def expected(unit, pdu):
    """Return what may be answered: the kind of answer, or None where that depends on the server's state."""
    function = pdu[0]
    if function not in {3, 4}:
        return None
    if unit not in MAPS:
        return 0x0A
    if len(pdu) != 5:
        return 0x03
    address, count = struct.unpack(">HH", pdu[1:])
    if not 1 <= count <= 125:
        return 0x03
    if unit in UNITS and address + count > DIRECTORY:
        return None  # as many entries as there are devices: test_directory.py
    asked = set(range(address, address + count))
    return 2 * count if asked & SERVED[unit] and asked <= SERVED[unit] | BETWEEN[unit] else 0x02


def check(unit, pdu, answer):
    function, wanted = pdu[0], expected(unit, pdu)
    if answer[0] != function or function >= 0x80:
        assert answer[0] == function | 0x80
        assert len(answer) == 2
        assert answer[1] in {1, 2, 3, 4, 6, 0x0A, 0x0B}
        assert wanted is None or answer[1] == wanted
    elif function in {3, 4}:
        assert wanted in {None, answer[1]}
        assert answer[1] == len(answer) - 2
    assert unit in MAPS or answer[1] == 0x0A


async def exchange(port, frames, cuts):
    client = await RawClient.connect(port)
    try:
        data = b"".join(frame(pdu, unit=unit, transaction=transaction) for transaction, unit, pdu in frames)
        edges = sorted({0, len(data), *(cut % len(data) for cut in cuts)})
        for begin, end in pairwise(edges):
            client.send(data[begin:end])
            await asyncio.sleep(0)
        for transaction, unit, pdu in frames:
            answered, by, answer = await client.answer()
            assert (answered, by) == (transaction, unit)
            check(unit, pdu, answer)
    finally:
        await client.close()


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(frames=requests, cuts=st.lists(st.integers(0, 1 << 16), max_size=40))
def test_every_frame_is_answered_in_order_with_its_own_ids(served, frames, cuts):
    runner, server = served
    runner.run(asyncio.wait_for(exchange(server.port, frames, cuts), 120))


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.binary(max_size=600))
def test_no_bytes_bring_the_server_down(served, data):
    async def throw(port):
        client = await RawClient.connect(port)
        client.send(data)
        await client.close()
        async_client = await RawClient.connect(port)
        assert await async_client.words(0) == [1]
        await async_client.close()

    runner, server = served
    runner.run(asyncio.wait_for(throw(server.port), 120))
