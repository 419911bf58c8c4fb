"""A server ends connections that are kept open, also just as a call leaves: reads are made once more, orders never."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from gateway.sems import wire
from gateway.sems.catalogue import READS, Use, load
from gateway.sems.errors import ConnectionLostError, UnreachableError
from tests.kit.clock import NOON
from tests.sems.kit import Clock, Server, session

TOKEN = {"code": 0, "data": {"token": "T"}}
OAUTH_TOKEN = {"access_token": "T", "expires_in": 1800}
WELL = {"code": 0, "data": {"plant_id": "P"}}
READ = ("GetPlantDetail", {"plant": "P"})


class Impatient(Server):
    """Takes so many requests over a connection; as the next one has come, it hangs up, after `last_words`."""

    def __init__(self, takes, last_words, api):
        super().__init__(load(api))
        self.takes, self.last_words = takes, last_words
        self.connections = 0
        self.seen = []
        """The lines of all requests."""
        self.scripts = {"GetToken": [TOKEN], "Token": [OAUTH_TOKEN], "GetPlantDetail": [WELL]}

    async def handle(self, reader, writer):
        self.connections += 1
        left = self.takes
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.seen.append(head.split(b"\r\n")[0].decode())
                if not left:
                    writer.write(self.last_words)
                    return
                left -= 1
                await self._answer(Again(head, reader), writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


class Again:
    """A reader whose head was read already."""

    def __init__(self, head, reader):
        self.head, self.readexactly = head, reader.readexactly

    async def readuntil(self, _):
        return self.head


@asynccontextmanager
async def world(tmp_path, *, takes, last_words=b"", api="open_api"):
    server = Impatient(takes, last_words, api)
    async with await asyncio.start_server(server.handle, "127.0.0.1", 0) as listener:
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        async with session(url, tmp_path, Clock(), api=api) as it:
            yield server, it


async def test_a_read_over_a_connection_that_just_ended_is_made_once_more_and_counted(tmp_path):
    async with world(tmp_path, takes=1) as (server, it):  # the login's connection takes no other call
        assert await it.call(*READ) == {"plant_id": "P"}
        assert (len(server.seen), server.connections) == (3, 2)
        assert it.budget.used == 3  # a login, and two reads


async def test_it_is_made_once_more_and_no_more(tmp_path):
    async with world(tmp_path, takes=1) as (server, it):
        await it.call(*READ)
        server.takes = 0
        with pytest.raises(ConnectionLostError):
            await it.call(*READ)
        assert len(server.seen) == 4  # over a new connection, so nothing was kept open that could have ended


async def test_what_was_answered_in_part_is_not_made_again(tmp_path):
    async with world(tmp_path, takes=1, last_words=b"HTTP/1.1 200 OK\r\nContent-") as (server, it):
        with pytest.raises(ConnectionLostError):
            await it.call(*READ)
        assert len(server.seen) == 2


def orders():
    """What does something, or has something done: all that is no read."""
    return [
        (api, each.name)
        for api in ("open_api", "developer")
        for each in load(api).interfaces
        if each.use not in READS and each.use is not Use.LOGIN
    ]


def argument(row):
    return NOON if row.type == "local_time" else next(iter(row.options), "1")


@pytest.mark.parametrize(("api", "name"), orders())
async def test_what_does_something_is_never_made_twice(tmp_path, api, name):
    interface = load(api).interface(name)
    async with world(tmp_path, takes=1, api=api) as (server, it):
        args = {row.arg: argument(row) for row in interface.request if row.arg}
        with pytest.raises(ConnectionLostError):
            await it.call(name, args, setpoint=next(iter(interface.setpoints), ""))
        assert len(server.seen) == 2  # the login and this one, which may have been executed


async def test_nor_is_a_login(tmp_path):
    async with world(tmp_path, takes=2) as (server, it):
        server.scripts["GetPlantDetail"] = [{"code": "100002", "msg": "expired"}]  # so it logs in over what is open
        with pytest.raises(UnreachableError, match="GetToken"):
            await it.call(*READ)
        assert len(server.seen) == 3


def test_what_only_reads_has_no_setpoint_and_each_use_is_one_or_the_other():
    assert all(not each.setpoints for api in ("open_api", "developer", "realtime") for each in load(api).interfaces
               if each.use in READS)  # fmt: skip
    assert set(Use) - READS == {Use.LOGIN, Use.CONTROL, Use.DISPATCH, Use.PARAMETERS_TASK}


async def test_no_connection_is_kept_as_long_as_servers_keep_theirs(tmp_path, monkeypatch):
    assert wire.MAX_IDLE_SECONDS <= 4  # uvicorn, Node and Apache end theirs after 5 s
    monkeypatch.setattr(wire, "MAX_IDLE_SECONDS", 0.0)
    async with world(tmp_path, takes=9) as (server, it):
        await it.call(*READ)
        await it.call(*READ)
        assert server.connections == 3
