"""Answers that are meant to cost memory, time or a core, over real HTTP: each ends within its bounds."""

import asyncio
import gzip
import time
import tracemalloc
import zlib
from contextlib import asynccontextmanager

import pytest

from gateway.sems import exchange, wire
from gateway.sems.errors import BadEncodingError, ConnectionLostError, TimedOutError, TooLongError
from gateway.sems.wire import MAX_ANSWER, MAX_HEAD
from tests.kit.loops import run_on
from tests.sems.kit import Clock, http, serving, session

TOKEN = {"code": 0, "data": {"token": "T"}}
WELL = {"code": 0, "data": {"plant_id": "P"}}
HEAD = b"HTTP/1.1 200 OK\r\n"


@asynccontextmanager
async def hostile(tmp_path, answer):
    """A session whose server writes to `GetPlantDetail` whatever the coroutine function does."""
    async with serving() as (server, url), session(url, tmp_path, Clock()) as it:
        server.scripts = {"GetToken": [TOKEN], "GetPlantDetail": [http(WELL)]}  # and hangs up: what follows is new
        await it.call("GetPlantDetail", {"plant": "P"})
        plain = server._answer

        async def _answer(reader, writer):
            if server.scripts["GetPlantDetail"] == "hostile":
                await reader.readuntil(b"\r\n\r\n")
                await answer(writer)
                raise ConnectionResetError
            await plain(reader, writer)

        server._answer = _answer
        server.scripts["GetPlantDetail"] = "hostile"
        yield server, it


async def ask(it):
    return await it.call("GetPlantDetail", {"plant": "P"})


def test_what_is_asked_for_is_gzip_alone(tmp_path):
    async def test():
        async with serving() as (server, url), session(url, tmp_path, Clock()) as it:
            packed = gzip.compress(b'{"code": 0, "data": {"plant_id": "P"}}')
            server.scripts = {"GetToken": [TOKEN], "GetPlantDetail": [http(packed, 200, "Content-Encoding: gzip\r\n")]}
            assert await ask(it) == {"plant_id": "P"}
            assert {call.headers["accept-encoding"] for call in server.calls} == {"gzip"}

    asyncio.run(test())


def _bomb(size):
    """gzip of `size` zero bytes."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = bytes(1 << 20)
    return b"".join(packer.compress(block) for _ in range(size >> 20)) + packer.flush()


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_bomb_of_any_depth_costs_a_few_answers_of_memory(tmp_path, layers):
    inner = _bomb(256 << 20)
    for _ in range(layers - 1):
        inner = gzip.compress(inner)
    headers = f"Content-Encoding: {', '.join(['gzip'] * layers)}\r\n"

    async def test():
        async with serving() as (server, url), session(url, tmp_path, Clock()) as it:
            server.scripts = {"GetToken": [TOKEN], "GetPlantDetail": [http(inner, 200, headers)]}
            tracemalloc.start()
            try:
                with pytest.raises(TooLongError if layers == 1 else BadEncodingError):
                    await ask(it)
                assert tracemalloc.get_traced_memory()[1] < 4 * MAX_ANSWER
            finally:
                tracemalloc.stop()

    run_on("uvloop", test())


async def test_endless_continues_end_within_a_head_of_bytes(tmp_path):
    sent = 0

    async def flood(writer):
        nonlocal sent
        while True:  # until the other side has gone
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)
            sent += 25_000
            await writer.drain()

    async with hostile(tmp_path, flood) as (_, it):
        began = time.process_time()
        with pytest.raises(TooLongError, match="64 KiB before its answer"):
            await ask(it)
        assert time.process_time() - began < 2
    assert sent >= MAX_HEAD


@pytest.mark.parametrize("what", ["head", "body", "continues"])
async def test_a_byte_now_and_then_ends_with_the_time_a_call_has(tmp_path, monkeypatch, what):
    monkeypatch.setattr(exchange, "MAX_ANSWER_SECONDS", 0.5)

    async def drip(writer):
        if what == "body":
            writer.write(HEAD + b"Content-Length: 1000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" if what == "continues" else b"X-A: 1\r\n"[:1])
            await asyncio.sleep(0.05)

    async with hostile(tmp_path, drip) as (_, it):
        began = time.monotonic()
        with pytest.raises((TimedOutError, ConnectionLostError)):
            await ask(it)
        assert time.monotonic() - began < 20


async def test_a_chunk_for_each_byte_is_too_much(tmp_path, monkeypatch):
    monkeypatch.setattr(wire, "MAX_PIECES", 500)

    async def crumbs(writer):
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(100):
            writer.write(b"1\r\n \r\n" * 100)
            await writer.drain()

    async with hostile(tmp_path, crumbs) as (_, it):
        with pytest.raises(TooLongError, match="500 pieces"):
            await ask(it)


async def test_a_session_goes_on_after_each_of_them(tmp_path):
    async def nothing(writer):
        writer.write(HEAD + b"Content-Encoding: gzip, gzip\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()

    async with hostile(tmp_path, nothing) as (server, it):
        with pytest.raises(BadEncodingError, match="gzip, gzip"):
            await ask(it)
        server.scripts["GetPlantDetail"] = [WELL]
        assert await ask(it) == {"plant_id": "P"}
