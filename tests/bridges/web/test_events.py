"""The stream of events: what it begins with, what it tells, and how little a reader can make it hold."""

import asyncio
import json
import socket
from contextlib import asynccontextmanager

import httpx
import pytest

from gateway.bridges.web import events
from gateway.bridges.web.events import Reader
from gateway.core.mailbox import Updates
from gateway.core.model import Alarm, CommandEvent, CommandState
from tests.bridges.web.conftest import READER, SN, WRITER, served
from tests.kit.bench import until
from tests.kit.process import PATIENCE

PATH = "/api/v1/events"


class Read:
    """Events as they come."""

    def __init__(self, lines):
        self._lines = lines
        self.seen = []

    async def next(self):
        name = await anext(self._lines)
        data = await anext(self._lines)
        assert await anext(self._lines) == ""
        self.seen.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
        return self.seen[-1]

    async def until(self, name, fits=lambda _: True):
        """Read on to an event, and return its data."""
        async with asyncio.timeout(PATIENCE):
            while True:
                got, data = await self.next()
                if got == name and fits(data):
                    return data

    async def rest(self):
        async with asyncio.timeout(PATIENCE):
            return [line async for line in self._lines]


@asynccontextmanager
async def reading(it, token=None):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with (
        httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client,
        client.stream("GET", it.url + PATH, headers=headers) as answer,
    ):
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].partition(";")[0] == "text/event-stream"
        assert answer.headers["cache-control"] == "no-store"
        yield Read(answer.aiter_lines())


async def refused(it, headers=None):
    """Return the status and reason of a request that is not to be answered with a stream, which has no end."""
    async with (
        httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client,
        client.stream("GET", it.url + PATH, headers=headers) as answer,
    ):
        assert answer.status_code != 200
        return answer.status_code, json.loads(await answer.aread())["reason"]


def values(data):
    return {device["serial"]: device["values"] for device in data["devices"]}


def steps(it, count):
    now = it.bench.clock.now()
    return [CommandEvent(command=it.bench.command(), state=CommandState.ACCEPTED, time=now) for _ in range(count)]


def alarm(it, id_="1"):
    return Alarm(serial=SN, id=id_, code="512", text="Isolation", raised=it.bench.clock.now())


async def test_it_begins_with_all_there_is_and_goes_on_with_what_changes(it):
    it.bench.publish(ac_power=1.0)
    it.bench.router.alarms("scripted", SN, [alarm(it)])
    async with reading(it) as stream:
        await stream.until("whole")
        names = [name for name, _ in stream.seen]
        assert names == ["begin", "halt", "bridges", "alarms", "devices", "whole"]
        told = dict(stream.seen)
        assert told["begin"]["write"] is False
        assert told["begin"]["units"]["ac_power"] == "W"
        assert told["halt"] == {"halted": False}
        assert told["bridges"]["bridges"]["web"]["up"] is True
        assert [each["code"] for each in told["alarms"]["alarms"]] == ["512"]
        device = told["devices"]["devices"][0]
        assert (device["serial"], device["quality"], device["values"]["ac_power"]) == (SN, "good", 1)

        it.bench.publish(ac_power=2.0)
        await stream.until("devices", lambda data: values(data)[SN]["ac_power"] == 2)
        it.bench.router.alarms("scripted", SN, [])
        assert (await stream.until("alarm"))["cleared"] is not None
        answer = await it.set({"active_power_limit": 50})
        id_ = answer.json()["commands"][0]["id"]
        await stream.until("step", lambda data: data["id"] == id_ and data["state"] == "succeeded")
        assert [data["state"] for name, data in stream.seen if name == "step"] == ["accepted", "sent", "succeeded"]
        await it.ask("POST", "/api/v1/halt", WRITER, json={"reason": "smoke"})
        assert (await stream.until("halt"))["reason"] == "smoke"
        it.bench.router.withdraw("scripted", SN)
        assert (await stream.until("removed"))["serials"] == [SN]
    await until(lambda: not it.runner.bridge._streams.readers)


async def test_a_device_that_ages_is_told(it):
    it.bench.publish(ac_power=1.0)
    async with reading(it) as stream:
        await stream.until("whole")
        it.bench.publish(age=7200.0, ac_power=1.0)
        it.bench.announce(serial="OLD")
        it.bench.publish("OLD", age=7200.0, ac_power=1.0)
        found = await stream.until("devices", lambda data: "OLD" in values(data))
        assert next(each for each in found["devices"] if each["serial"] == "OLD")["quality"] == "stale"


async def test_the_token_says_whether_it_may_write(it):
    async with reading(it, READER) as stream:
        assert (await stream.until("begin"))["write"] is False
    async with reading(it, WRITER) as stream:
        assert (await stream.until("begin"))["write"] is True


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "unauthorized"),
        ({"Authorization": "Bearer of-nobody-at-all"}, "unauthorized"),
        ({"Authorization": f"Bearer {READER}", "Origin": "http://127.0.0.1:1"}, "foreign_origin"),
        ({"Authorization": f"Bearer {READER}", "Sec-Fetch-Site": "same-site"}, "foreign_origin"),
        ({"Authorization": f"Bearer {READER}", "Host": "rebound.example"}, "foreign_host"),
    ],
)
async def test_strangers_do_not_read_it(tmp_path, headers, reason):
    async with served(tmp_path, token="a-token-for-every-reader") as it:
        assert (await refused(it, headers))[1] == reason
        assert not it.runner.bridge._streams.readers


async def test_head_ends(it):
    answer = await it.ask("HEAD", PATH)
    assert (answer.status_code, answer.content) == (200, b"")


async def test_a_sign_of_life_comes_where_nothing_else_does(it, monkeypatch):
    monkeypatch.setattr(events, "BEAT", 0.01)
    async with reading(it) as stream:
        await stream.until("whole")
        assert set(await stream.until("beat")) == {"time"}


async def test_only_the_newest_of_a_device_is_sent(it):
    async with reading(it) as stream:
        await stream.until("whole")
        for number in range(500):
            it.bench.publish(ac_power=float(number))
            await asyncio.sleep(0)
        await stream.until("devices", lambda data: values(data)[SN]["ac_power"] == 499)
        assert len([1 for name, _ in stream.seen if name == "devices"]) < 50


async def test_so_many_read_at_a_time(it, monkeypatch):
    monkeypatch.setattr(events, "MAX_READERS", 1)
    async with reading(it) as stream:
        await stream.until("whole")
        assert await refused(it) == (503, "too_many_streams")
    await until(lambda: not it.runner.bridge._streams.readers)
    async with reading(it) as stream:
        await stream.until("whole")


async def test_who_falls_behind_with_steps_is_dropped_and_begins_anew(it):
    async with reading(it) as stream:
        await stream.until("whole")
        it.runner.bridge._streams.deliver(Updates(events=steps(it, events.BACKLOG + 1)))
        assert not any("event: step" in line for line in await stream.rest())
    async with reading(it) as stream:
        await stream.until("whole")


async def test_who_does_not_read_holds_little_and_not_for_ever(it, monkeypatch):
    monkeypatch.setattr("gateway.http.connection.STALL_TIMEOUT", 1.0)
    for number in range(100):
        it.bench.announce(serial=f"SN{number}")
    with socket.socket() as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        silent.connect(("127.0.0.1", it.runner.bridge.port))
        silent.sendall(f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        readers = it.runner.bridge._streams.readers
        await until(lambda: readers)
        (reader,) = readers

        def unsent():
            for number in range(100):
                it.bench.publish(f"SN{number}", status="x" * 5_000)
            connections = it.runner.bridge.http.server_state.connections
            assert sum(each.transport.get_write_buffer_size() for each in connections) < 4_000_000
            assert len(reader.serials) <= 101
            return not readers

        await until(unsent)
        assert it.runner.bridge.http.closed["not_reading"] == 1


def test_what_waits_for_a_reader_is_bounded(it):
    reader = Reader()
    for _ in range(3 * events.BACKLOG):
        reader.put(Updates(events=steps(it, 1), alarms=[alarm(it)]))
        assert len(reader.news) <= events.BACKLOG
    assert reader.is_behind
