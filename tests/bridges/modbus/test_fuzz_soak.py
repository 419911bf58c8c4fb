"""Many clients at once, for long: reads, writes and garbage, cut anywhere, while data change.

`make soak` runs it with a million frames.
"""

import asyncio
import os
import random
import struct
import time
from collections import Counter

import pytest
import uvloop

from gateway.bridges.modbus.maps.native import BLOCKS
from tests.bridges.modbus.client import RawClient, frame, read, write_many, write_one
from tests.bridges.modbus.conftest import serving
from tests.bridges.modbus.test_fuzz import check
from tests.kit.bench import collected, until

FRAMES = int(os.environ.get("SEMS_GATEWAY_SOAK_FRAMES", "10000"))
CLIENTS, VANDALS = 40, 4
MOST_AT_ONCE = 60
ANSWER_TIMEOUT = 60
EDGES = [edge for block in BLOCKS for edge in (block.start, block.end)]
SOME_UNITS = [*[1] * 12, 0, 2, 254, 255]
OTHER_FUNCTIONS = [0, 1, 2, 5, 7, 8, 15, 0x2B, 0x64, 0x83]


def good_read(dice):
    block = dice.choice(BLOCKS)
    address = dice.randrange(block.start, block.end)
    return read(address, dice.randint(1, min(125, block.end - address)), dice.choice([3, 4]))


def odd_read(dice):
    address = dice.choice([dice.choice(EDGES) + dice.randint(-130, 5), dice.randrange(0x10000)]) & 0xFFFF
    return read(address, dice.choice([0, 1, 2, 125, 126, dice.randrange(0x10000)]), dice.choice([3, 4]))


def good_write(dice):
    return dice.choice([write_one(5801, dice.randrange(1001)), write_many(5000, struct.pack(">i", dice.randrange(2)))])


def odd_write(dice):
    return dice.choice([write_one(dice.randrange(5000), 1), write_many(5002, dice.randbytes(4)), b"\x06\0", b"\x10"])


def odd_frame(dice):
    return dice.choice([read(0, 1)[: dice.randint(1, 4)], bytes([dice.choice(OTHER_FUNCTIONS)]) + dice.randbytes(252)])


KINDS = {good_read: 70, odd_read: 20, good_write: 0.3, odd_write: 3.7, odd_frame: 6}
"""What to ask, and of a hundred how often. A good write takes long: it is journaled."""


def some_pdu(dice):
    (kind,) = dice.choices(list(KINDS), KINDS.values())
    return kind(dice)


async def talk(port, seed, frames):
    """Send frames, cut anywhere, and check every answer; now and then on a new connection."""
    dice = random.Random(seed)
    client = await RawClient.connect(port)
    while frames > 0:
        batch = [
            (dice.randrange(0x10000), dice.choice(SOME_UNITS), some_pdu(dice))
            for _ in range(min(frames, dice.randint(1, MOST_AT_ONCE)))
        ]
        data = b"".join(frame(pdu, unit=unit, transaction=transaction) for transaction, unit, pdu in batch)
        at = 0
        while at < len(data):
            size = dice.choice([1, 7, 12, 100, 1000, len(data)])
            client.send(data[at : at + size])
            at += size
            if dice.random() < 0.2:
                await asyncio.sleep(0)
        for transaction, unit, pdu in batch:
            answered, by, answer = await answer_of(client)
            assert (answered, by) == (transaction, unit)
            check(unit, pdu, answer)
        frames -= len(batch)
        if dice.random() < 0.02:
            await client.close()
            client = await RawClient.connect(port)
    await client.close()


async def answer_of(client):
    async with asyncio.timeout(ANSWER_TIMEOUT):
        head = await client.reader.readexactly(7)
        transaction, protocol, length, unit = struct.unpack(">HHHB", head)
        assert protocol == 0
        return transaction, unit, await client.reader.readexactly(length - 1)


async def vandalise(port, seed):
    """Throw garbage, with or without sense before it, and go without a good-bye."""
    dice = random.Random(seed)
    while True:
        client = await RawClient.connect(port)
        try:
            for _ in range(dice.randrange(4)):
                client.send(frame(some_pdu(dice), transaction=dice.randrange(0x10000)))
            client.send(dice.randbytes(dice.randrange(2000)))
            await asyncio.sleep(dice.random() * 0.05)
            if dice.random() < 0.5:
                client.writer.transport.abort()
        finally:
            await client.close()


async def change(served, dice):
    while True:
        served.bench.publish(ac_power=dice.uniform(-1e4, 1e4), battery_soc=dice.uniform(0, 100))
        await asyncio.sleep(0.01)


async def soak(tmp_path):
    many = {"max_connections": 1000, "max_connections_per_host": 1000}
    async with serving(tmp_path, **many) as served, collected(served.bench.router) as (events, _):
        await served.publish(ac_power=1)
        beside = [asyncio.create_task(vandalise(served.port, -n)) for n in range(1, VANDALS + 1)]
        beside.append(asyncio.create_task(change(served, random.Random(0))))
        begun = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for n in range(CLIENTS):
                group.create_task(talk(served.port, n, -(-FRAMES // CLIENTS)))
        seconds = time.perf_counter() - begun
        for task in beside:
            assert not task.done()
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        counts = served.bridge.counts
        await until(lambda: not served.bridge.listeners[0].connections)
        assert counts.messages >= FRAMES
        await until(lambda: not served.bench.dispatcher._open)
        await asyncio.sleep(0)
        steps = Counter(event.state.value for event in events)
        assert steps["accepted"] == steps["succeeded"] + steps["superseded"]
        print(  # noqa: T201 - what a soak is run for
            f"\n{FRAMES:,} frames checked in {seconds:.1f} s; {counts.messages:,} answered, {counts.exceptions:,} of "
            f"them exceptions; {CLIENTS} clients, {VANDALS} vandals; steps of commands: {dict(steps)}"
        )


@pytest.mark.parametrize("loop", [asyncio.SelectorEventLoop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_no_crash_no_hang_no_wrong_answer(tmp_path, loop):
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(soak(tmp_path))
