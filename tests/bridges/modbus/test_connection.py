"""Frames, order, limits, closing: what the wire itself asks for. On asyncio's loop and on uvloop."""

import asyncio
import socket
import struct

import pytest
import structlog

from gateway.bridges.modbus import ModbusBridge, ModbusSettings
from gateway.bridges.modbus.connection import MAX_QUEUED_REQUESTS
from gateway.bridges.modbus.counts import Refused
from gateway.http.acceptor import Limits
from tests.bridges.modbus.client import RawClient, frame, read, write_one
from tests.bridges.modbus.conftest import serving
from tests.kit.bench import INVERTER, Bench, until


@pytest.fixture
def slow(served, monkeypatch):
    """Writes wait for this event."""
    gate = asyncio.Event()
    submit = served.bench.dispatcher.submit
    served.begun = 0

    async def later(*commands):
        served.begun += 1
        await gate.wait()
        return await submit(*commands)

    monkeypatch.setattr(served.bench.dispatcher, "submit", later)
    return gate


def limit(served, connections):
    acceptor = served.bridge.listeners[0]._acceptor
    acceptor._limits = Limits(connections)
    acceptor._room.enter(acceptor, connections, 1)


@pytest.fixture
def logged():
    with structlog.testing.capture_logs() as entries:
        yield entries


# The three defects of pymodbus' stock server (3.16.1)


async def test_every_request_of_a_segment_is_answered(client):
    client.send(b"".join(frame(read(n, 1), transaction=n) for n in range(100)))
    for n in range(100):
        transaction, unit, pdu = await client.answer()
        assert (transaction, unit, pdu[:2]) == (n, 1, b"\x03\x02")


async def test_a_read_behind_a_slow_write_waits_and_both_keep_their_ids(served, client, slow):
    client.send(frame(write_one(5801, 10), transaction=100))
    await until(lambda: served.begun)
    client.send(frame(read(0, 1), transaction=200))
    client.send(frame(read(0, 1, 4), transaction=300, unit=9))
    client.send(frame(write_one(0, 1), transaction=400))
    async with served.client() as other:
        assert await other.words(0) == [1]
    slow.set()
    assert await client.answer() == (100, 1, write_one(5801, 10))
    assert await client.answer() == (200, 1, b"\x03\x02\x00\x01")
    assert await client.answer() == (300, 9, b"\x84\x0a")
    assert await client.answer() == (400, 1, b"\x86\x02")


@pytest.mark.parametrize("bad", [b"\x03", b"\x03\0\0", b"\x03\0\0\0\1\0", b"\x10\0", b"\x08", b"\x2b", b"\x2b\x0e"])
async def test_a_bad_request_is_answered_and_the_next_one_too(client, bad):
    assert await client.refused(bad) in {0x01, 0x03}
    assert await client.words(0) == [1]


# Frames


@pytest.mark.parametrize("size", [1, 2, 5, 7, 11, 13])
async def test_requests_may_come_in_pieces(client, size):
    data = b"".join(frame(read(0, 2), transaction=n) for n in range(5))
    for at in range(0, len(data), size):
        client.send(data[at : at + size])
        await client.writer.drain()
        await asyncio.sleep(0)
    for n in range(5):
        assert (await client.answer())[0] == n


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (struct.pack(">HHHB", 1, 1, 6, 1), "protocol id 1"),
        (struct.pack(">HHHB", 1, 0, 0, 1), "length 0"),
        (struct.pack(">HHHB", 1, 0, 1, 1), "length 1"),
        (struct.pack(">HHHB", 1, 0, 255, 1), "length 255"),
        (b"GET / HTTP/1.1\r\n\r\n", "protocol id 21536"),
        (struct.pack(">HHH", 1, 0, 0xFFFF), "length 65535"),
    ],
)
async def test_what_is_no_modbus_closes_the_connection_with_one_log_line(client, logged, header, found):
    client.send(frame(read(0, 1), transaction=5) + header)
    assert (await client.answer())[0] == 5
    assert await client.closed() == b""
    (line,) = [entry for entry in logged if "no Modbus" in entry["event"]]
    assert (line["found"], line["client"]) == (found, client.name)


async def test_what_came_before_bad_bytes_is_answered_first(client, slow):
    client.send(frame(write_one(5801, 10), transaction=1) + frame(read(0, 1), transaction=2) + b"nonsense")
    await asyncio.sleep(0)
    slow.set()
    assert (await client.answer())[0] == 1
    assert (await client.answer())[0] == 2
    assert await client.closed() == b""


async def test_the_longest_frame_is_answered(client):
    client.send(frame(bytes([0x5A]) + bytes(252), transaction=9))
    assert await client.answer() == (9, 1, b"\xda\x01")


@pytest.mark.parametrize("function", [0, 1, 2, 5, 7, 11, 15, 17, 20, 22, 23, 24, 100, 0x80, 0x83, 0xFF])
async def test_other_functions_are_01(client, function):
    client.send(frame(bytes([function, 0, 0, 0, 1])))
    assert await client.answer() == (1, 1, bytes([function | 0x80, 1]))


# Diagnostics


async def test_fc8_echoes_and_counts(client):
    assert await client.ask(b"\x08\0\0\xa5\x37") == b"\x08\0\0\xa5\x37"
    assert await client.refused(read(0, 0)) == 3
    assert await client.ask(b"\x08\0\x0b\0\0") == b"\x08\0\x0b\0\2"
    assert await client.ask(b"\x08\0\x0d\0\0") == b"\x08\0\x0d\0\1"
    assert await client.ask(b"\x08\0\x0e\0\0") == b"\x08\0\x0e\0\4"
    assert await client.refused(b"\x08\0\x0b\0\1") == 3
    assert await client.refused(b"\x08\0\x04\0\0") == 1
    assert await client.refused(b"\x08\0\0\0\0", unit=9) == 0x0A


async def test_fc43_names_the_gateway(client):
    answer = await client.ask(b"\x2b\x0e\x01\x00")
    assert b"sems-gateway" in answer
    assert await client.ask(b"\x2b\x0e\x04\x06") == b"\x2b\x0e\x04\x83\0\0\1\x06\x0ctest-gateway"
    basic = await client.ask(b"\x2b\x0e\x01\x05")
    assert basic == answer, "an object that is none of these: all of them"
    assert (await client.ask(b"\x2b\x0e\x02\x00"))[6] == 6
    assert await client.ask(b"\x2b\x0e\x03\x06") == b"\x2b\x0e\x03\x83\0\0\1\x06\x0ctest-gateway"
    assert await client.refused(b"\x2b\x0e\x04\x42") == 2
    assert await client.refused(b"\x2b\x0e\x05\x00") == 3
    assert await client.refused(b"\x2b\x0d\x00\x00") == 1


# Load and limits


async def test_behind_a_slow_write_16_requests_wait_and_the_rest_stays_in_the_socket(served, client, slow):
    client.send(frame(write_one(5801, 10), transaction=0))
    await until(lambda: served.begun)
    client.send(b"".join(frame(read(0, 100), transaction=n) for n in range(1, 2000)))
    (connection,) = served.bridge.listeners[0].connections
    await until(lambda: connection._held)
    assert len(connection._queue) == MAX_QUEUED_REQUESTS
    slow.set()
    for n in range(2000):
        assert (await client.answer())[0] == n


async def test_many_writes_and_reads_at_once_are_answered_in_order(client):
    pdus = [write_one(5801, n) if n % 3 else read(0, 2) for n in range(200)]
    client.send(b"".join(frame(pdu, transaction=n) for n, pdu in enumerate(pdus)))
    for n, pdu in enumerate(pdus):
        transaction, _, answer = await client.answer()
        assert (transaction, answer[0]) == (n, pdu[0])


async def test_a_client_that_does_not_read_is_answered_no_more_until_it_does(served):
    with socket.create_connection(("127.0.0.1", served.port)) as lazy:
        lazy.setblocking(False)
        loop = asyncio.get_running_loop()
        wanted = 40_000
        requests = b"".join(frame(read(0, 125), transaction=n) for n in range(wanted))
        sending = asyncio.create_task(loop.sock_sendall(lazy, requests))
        await until(lambda: served.bridge.listeners[0].connections)
        (connection,) = served.bridge.listeners[0].connections
        await until(lambda: connection._clogged)
        async with served.client() as other:
            assert await other.words(0) == [1]
        assert connection.transport.get_write_buffer_size() < 200_000
        received = bytearray()
        while len(received) < wanted * 259:
            received += await asyncio.wait_for(loop.sock_recv(lazy, 1 << 20), 120)
        await sending
        for n in range(wanted):
            assert received[n * 259 : n * 259 + 2] == n.to_bytes(2, "big")


async def test_a_hundred_clients_at_once(served):
    limit(served, 100)
    clients = [await RawClient.connect(served.port) for _ in range(100)]

    async def work(n):
        for round_ in range(10):
            assert await clients[n].words(0, 125)
            if round_ == n % 10:
                await clients[n].ask(write_one(5801, n))

    await asyncio.gather(*(work(n) for n in range(100)))
    await asyncio.gather(*(client.close() for client in clients))
    await until(lambda: not served.bridge.listeners[0].seats)


async def test_beyond_the_limit_the_connection_that_is_idle_longest_makes_room(tmp_path, logged):
    async with serving(tmp_path, max_connections=2) as served:
        first, second = [await RawClient.connect(served.port) for _ in range(2)]
        for client in (second, first):
            await asyncio.sleep(0.01)  # uvloop's clock has milliseconds
            assert await client.words(0) == [1]
        third = await RawClient.connect(served.port)
        assert await third.words(0) == [1]
        assert await second.closed() == b""
        assert await first.words(0) == [1]
        assert served.bridge.counts.displaced[Refused.LIMIT] == 1
        await asyncio.sleep(0.01)
        assert await first.words(0) == [1]
        fourth = await RawClient.connect(served.port)
        assert await fourth.words(0) == [1]
        assert await third.closed() == b""
        for client in (first, second, third, fourth):
            await client.close()
    (line,) = [entry for entry in logged if "connections" in entry["event"]]
    assert (line["client"], line["limit"], line["setting"]) == (second.name, 2, "bridges.modbus.max_connections")


async def test_who_waits_for_an_answer_makes_room_for_nobody(served, slow):
    limit(served, 1)
    async with served.client() as client:
        client.send(frame(write_one(5801, 10), transaction=1))
        await until(lambda: served.begun)
        async with served.client() as other:
            assert await other.closed() == b""
        slow.set()
        assert (await client.answer())[0] == 1
    assert served.bridge.counts.refused[Refused.LIMIT] == 1


async def test_128_silent_connections_of_one_host_leave_room_for_others_and_for_itself(tmp_path):
    """TRIALS D4."""
    async with serving(tmp_path, max_connections=128) as served:
        async with served.client() as old:
            assert await old.words(0) == [1]
            silent = [
                await asyncio.open_connection("127.0.0.1", served.port, local_addr=("127.0.0.2", 0)) for _ in range(128)
            ]
            assert await old.words(0) == [1]
            async with served.client() as new:
                assert await new.words(0) == [1]
            _, writer = await asyncio.open_connection("127.0.0.1", served.port, local_addr=("127.0.0.2", 0))
            same = RawClient(_, writer)
            assert await same.words(0) == [1]
            assert len(served.bridge.listeners[0].seats) <= 16 + 2
            await same.close()
        assert served.bridge.counts.displaced[Refused.HOST] == 128 + 1 - 16
        for _, writer in silent:
            writer.close()


async def test_a_silent_client_is_disconnected(tmp_path):
    async with serving(tmp_path, idle_timeout=0.2) as served, served.client() as client:
        assert await client.closed() == b""


async def test_a_client_that_talks_or_waits_is_not_idle(tmp_path, monkeypatch):
    async with serving(tmp_path, idle_timeout=1.5) as served, served.client() as client:
        gate = asyncio.Event()
        submit = served.bench.dispatcher.submit

        async def later(*commands):
            await gate.wait()
            return await submit(*commands)

        monkeypatch.setattr(served.bench.dispatcher, "submit", later)
        client.send(frame(write_one(5801, 10)))
        listener = served.bridge.listeners[0]
        await until(lambda: listener.looks > 12)
        gate.set()
        assert await client.answer() == (1, 1, write_one(5801, 10))
        while listener.looks < 25:
            assert await client.words(0) == [1]


async def test_without_an_idle_time_out_clients_may_be_silent(tmp_path):
    async with serving(tmp_path, idle_timeout=None) as served, served.client() as client:
        assert await client.words(0) == [1]
        assert served.bridge.listeners[0].looks == 0


async def test_a_client_that_closes_its_side_still_gets_its_answers(served, client, slow):
    client.send(frame(write_one(5801, 10), transaction=1) + frame(read(0, 1), transaction=2))
    client.writer.write_eof()
    await until(lambda: served.begun)
    (connection,) = served.bridge.listeners[0].connections
    await until(lambda: connection._half_closed)
    slow.set()
    assert (await client.answer())[0] == 1
    assert (await client.answer())[0] == 2
    assert await client.closed() == b""


async def test_a_client_that_goes_while_its_write_waits_does_no_harm(served, slow):
    async with served.client() as client:
        client.send(frame(write_one(5801, 10)))
        await until(lambda: served.begun)
        reset = struct.pack("ii", 1, 0)
        client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        client.writer.transport.abort()
    listener = served.bridge.listeners[0]
    await until(lambda: not listener.seats)
    slow.set()
    await until(lambda: served.bench.controller.sent)
    async with served.client() as client:
        assert await client.words(0) == [1]


async def test_repeated_refusals_are_logged_once(client, logged):
    for _ in range(3):
        assert await client.refused(write_one(5801, 2000)) == 3
    assert await client.refused(write_one(0, 1)) == 2
    lines = [entry for entry in logged if entry["event"] == "write refused"]
    assert [(line["address"], line["answer"]) for line in lines] == [(5801, "exception 03"), (0, "exception 02")]


# Start and stop


async def test_stopping_closes_connections_and_frees_the_port(tmp_path):
    async with serving(tmp_path) as served, served.client() as client:
        assert await client.words(0) == [1]
        port = served.port
        await served.runner.stop()
        assert await client.closed() == b""
        with pytest.raises(OSError):
            await RawClient.connect(port)
        assert served.bridge.port == 0


async def test_stopping_does_not_wait_for_a_client_that_does_not_read(tmp_path):
    async with serving(tmp_path) as served:
        with socket.create_connection(("127.0.0.1", served.port)) as lazy:
            lazy.setblocking(False)
            requests = b"".join(frame(read(0, 125)) for _ in range(40_000))
            loop = asyncio.get_running_loop()
            sending = asyncio.create_task(loop.sock_sendall(lazy, requests))
            await until(lambda: served.bridge.listeners[0].connections)
            (connection,) = served.bridge.listeners[0].connections
            await until(lambda: connection._clogged)
            async with asyncio.timeout(120):
                await served.runner.stop()
            await asyncio.gather(sending, return_exceptions=True)
            with pytest.raises(ConnectionResetError):
                await drained(lazy)


async def drained(sock):
    while await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 1 << 20), 120):
        pass


async def test_a_restarted_bridge_serves_what_is_known(tmp_path):
    async with serving(tmp_path) as served:
        await served.publish(ac_power=77)
        first = served.port
        served.runner.spawn(fail(), "trouble")
        await until(lambda: served.port not in {0, first} and served.bridge.units)
        async with served.client() as client:
            assert await client.number("i", 1020) == 77


async def fail():
    raise RuntimeError("a part of the bridge died")


async def test_a_taken_port_is_told_and_tried_again(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with Bench(tmp_path) as bench:
            bench.announce()
            runner = bench.run(ModbusBridge, ModbusSettings(port=port), "scada")
            (status,) = await until(bench.router.bridges)
            assert not status.up
            assert status.detail == (
                f"port {port} on 127.0.0.1 is in use by another program; "
                "stop it or set bridges.scada.port to another one"
            )
            taken.close()
            await until(lambda: runner.bridge.units)
            assert bench.router.bridges()[0].up
            client = await RawClient.connect(port)
            assert await client.text(4, 16) == INVERTER.serial
            await client.close()


@pytest.mark.parametrize(
    ("host", "complaint"),
    [("192.0.2.1", "192.0.2.1 is no address of this machine"), ("no.such.host.invalid", "can't listen on port")],
)
async def test_a_host_that_is_none_is_told(tmp_path, host, complaint):
    async with Bench(tmp_path) as bench:
        bench.run(ModbusBridge, ModbusSettings(host=host, port=0), "scada")
        (status,) = await until(bench.router.bridges)
        assert complaint in status.detail
