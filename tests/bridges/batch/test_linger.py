"""How long commands are gathered: by the time that they wait, where time is free."""

import asyncio
from types import SimpleNamespace

import pytest
import structlog

from gateway.bridges.batch import sender as sender_module
from gateway.bridges.batch.sender import FLOOD, Sender
from gateway.bridges.batch.tally import Tally
from tests.kit.clock import FakeClock, virtual

WAY = 0.003
"""Seconds that a message takes into the topic."""


class Topic:
    """A sender whose messages arrive after `way` seconds; knows when each left, and how many commands it had."""

    def __init__(self, monkeypatch, way=WAY):
        self.clock = FakeClock()
        self.way = way
        self.left = []
        self.tasks = []
        monkeypatch.setattr(sender_module, "encode", lambda _, __, items, *___: bytes(len(items)))
        context = SimpleNamespace(
            clock=self.clock,
            keep_receipt=self._kept,
            may_leave=lambda *_: True,
            still_wanted=lambda *_: True,
            spawn=self._spawn,
            log=None,
        )
        self.sender = Sender(
            SimpleNamespace(commands="topic"),
            SimpleNamespace(linger_ms=50, items_most=500, send_within=5),
            context,
            SimpleNamespace(partitions=lambda _: 1, send=self._send),
            SimpleNamespace(expect=lambda *_: None, forget=lambda *_: None),
            Tally(structlog.get_logger("test"), self.clock),
        )
        self._spawn(self.sender.run(), "sender")

    def _spawn(self, work, _):
        self.tasks.append(asyncio.ensure_future(work))

    async def _kept(self, *_):
        pass

    async def _send(self, _, message, **__):
        self.left.append((asyncio.get_running_loop().time(), len(message)))
        await asyncio.sleep(self.way)

    async def put(self, *at, fleet=()):
        """Have a command come at each of these times, of a fleet at those; return after what time it was in the topic.

        Of a fleet's none.
        """
        began = asyncio.get_running_loop().time()

        async def one(number, time, *, bulk=False):
            await asyncio.sleep(time)
            item = SimpleNamespace(command=SimpleNamespace(id=str(number), serial=str(number), bulk=bulk))
            await self.sender.send(item, 60)
            return asyncio.get_running_loop().time() - began - time

        try:
            of_fleet = [one(number, time, bulk=True) for number, time in enumerate(fleet, len(at))]
            return (await asyncio.gather(*(one(number, time) for number, time in enumerate(at)), *of_fleet))[: len(at)]
        finally:
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)


@virtual
async def test_one_alone_waits_for_nobody(monkeypatch):
    (took,) = await Topic(monkeypatch).put(0)
    assert took == pytest.approx(WAY)


@virtual
async def test_one_behind_another_leaves_as_soon_as_that_has_arrived(monkeypatch):
    first, second = await Topic(monkeypatch).put(0, 0.001)
    assert first == pytest.approx(WAY)
    assert second == pytest.approx(WAY - 0.001 + WAY)


@virtual
async def test_one_behind_another_that_is_long_on_its_way_waits_a_tenth_of_the_time(monkeypatch):
    _, second = await Topic(monkeypatch, way=1.0).put(0, 0.001)
    assert second == pytest.approx(0.005 + 1.0)


@virtual
async def test_in_a_flood_others_are_waited_for_until_less_come(monkeypatch):
    topic = Topic(monkeypatch)
    count = 20 * FLOOD
    await topic.put(*(number * 0.0005 for number in range(count)))  # ten in each tenth of the time
    assert topic.left[0][1] == 1
    assert len(topic.left) <= 4
    assert sum(items for _, items in topic.left) == count


@virtual
async def test_what_is_of_no_fleet_waits_for_none_of_one(monkeypatch):
    topic = Topic(monkeypatch, way=0.02)
    fleet = [number * 0.0005 for number in range(20 * FLOOD)]
    took = await topic.put(0.0102, 0.0402, fleet=fleet)
    assert max(took) <= 0.0201
    assert len(topic.left) <= 8
