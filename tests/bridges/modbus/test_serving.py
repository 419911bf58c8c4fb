"""How reads are served at speed: the short path answers as the general one does, and forgets what is over."""

import asyncio
import socket
import struct

import pytest

from gateway.bridges.modbus.connection import MAX_REMEMBERED_REQUESTS
from tests.bridges.modbus.client import frame, read, write_one
from tests.bridges.modbus.conftest import serving
from tests.kit.bench import INVERTER, until


async def both_ways(client, pdu, unit=1):
    """Ask alone, twice, so that the second goes the short way; then as the second of two, which never does."""
    answers = []
    for _ in range(2):
        client.send(frame(pdu, unit=unit, transaction=7))
        answers.append(await client.answer())
    client.send(frame(b"\x08\0\0\0\0", transaction=1) + frame(pdu, unit=unit, transaction=7))
    assert (await client.answer())[0] == 1
    answers.append(await client.answer())
    assert answers[0] == answers[1] == answers[2]
    return answers[0]


@pytest.mark.parametrize(
    ("pdu", "unit", "answer"),
    [
        (read(1, 1), 1, b"\x03\x02\0\2"),
        (read(1, 1, 4), 1, b"\x04\x02\0\2"),
        (read(1020, 2), 1, b"\x03\x04\0\0\x04\xd2"),
        (read(1020, 0), 1, b"\x83\x03"),
        (read(1020, 126), 1, b"\x83\x03"),
        (read(1020, 126, 4), 1, b"\x84\x03"),
        (read(999, 2), 1, b"\x83\x02"),
        (read(1249, 2), 1, b"\x83\x02"),
        (read(65535, 125), 1, b"\x83\x02"),
        (read(1020, 2), 77, b"\x83\x0a"),
    ],
)
async def test_the_short_way_and_the_long_way_answer_alike(served, client, pdu, unit, answer):
    await served.publish(ac_power=1234)
    assert await both_ways(client, pdu, unit) == (7, unit, answer)


async def test_a_remembered_read_shows_new_values_and_closes_with_the_data(served, client):
    await served.publish(ac_power=1)
    for value in (1, 2, 3):
        await served.publish(ac_power=value)
        assert await client.number("i", 1020) == value
    await served.publish(status="offline")
    assert await both_ways(client, read(1020, 2)) == (7, 1, b"\x83\x0b")
    await served.publish(status="normal", ac_power=4)
    assert await client.number("i", 1020) == 4


async def test_a_remembered_read_goes_with_its_device(served, client):
    await served.publish(ac_power=1)
    assert await client.number("i", 1020) == 1
    served.bench.router.withdraw("scripted", INVERTER.serial)
    await until(lambda: not served.bridge.units)
    assert await both_ways(client, read(1020, 2)) == (7, 1, b"\x83\x0a")


async def test_both_units_of_the_gateway_answer_with_their_own_id(client):
    for _ in range(3):
        for unit in (0, 255):
            client.send(frame(read(0, 1), unit=unit))
            assert (await client.answer())[1] == unit


async def test_a_client_that_asks_everything_fills_no_memory(served, client):
    for count in range(1, 126):
        for address in range(1000, 1004):
            client.send(frame(read(address, count)))
            await client.answer()
    ((_, unit),) = [pair for pair in served.bridge.listeners[0].service.units.items() if pair[0] == 1]
    assert len(unit.plans) <= MAX_REMEMBERED_REQUESTS


async def test_the_age_is_up_to_date_on_the_short_way(tmp_path):
    async with serving(tmp_path) as served, served.client() as client:
        await served.publish(ac_power=1)
        for serial in served.bridge._devices:
            state = served.bridge._devices[serial].state
            assert await client.number("I", 102) <= 1
            older = type(state)(
                device=state.device,
                quality=state.quality,
                time=state.time.replace(year=state.time.year - 1),
                source=state.source,
                values=state.values,
            )
            served.bridge._devices[serial].state = older
            assert await client.number("I", 102) > 86400 * 300


async def test_sockets_are_probed_and_send_at_once(served, client):
    (connection,) = served.bridge.listeners[0].connections
    sock = connection.transport.get_extra_info("socket")
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 10
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 6


async def test_a_client_that_polls_is_not_idle_and_one_that_stops_is(tmp_path):
    async with serving(tmp_path, idle_timeout=0.4) as served, served.client() as client:
        listener = served.bridge.listeners[0]
        while listener.looks < 24:  # three idle time-outs
            assert await client.words(0) == [1]
            await asyncio.sleep(0.01)
        assert await client.closed() == b""


async def test_thousands_of_updates_leave_reads_their_turn(tmp_path):
    """While 200 devices are encoded, reads come between them."""
    async with serving(tmp_path, max_connections=4) as served:
        others = [f"9010KETU{n:03}W0002" for n in range(200)]
        for serial in others:
            served.bench.announce(INVERTER, serial=serial)
        await until(lambda: len(served.bridge.units) == 201)
        async with served.client() as client:
            assert await client.words(0) == [1]
            device = served.bridge._devices[others[-1]]
            for serial in others:
                served.bench.publish(serial, ac_power=1)
            before, between = device.updates, 0
            shown = served.bridge.listeners[0].service.units
            last = next(unit for unit in shown.values() if unit.serial == others[-1])
            while last.images[0].closed:
                assert await client.words(0) == [1]
                between += 1
            assert device.updates == before + 1
            assert between > 3


async def test_requests_of_other_lengths_do_not_go_the_short_way(client):
    await client.words(0)
    asked = frame(read(0, 1))
    client.send(asked[:5] + b"\x07" + asked[6:] + b"\0")  # one byte too many, and the header says so
    assert (await client.answer())[2] == b"\x83\x03"
    client.send(asked[:3])
    await asyncio.sleep(0.01)
    client.send(asked[3:] + asked)
    for _ in range(2):
        assert (await client.answer())[2] == b"\x03\x02\0\1"


async def test_a_frame_that_looks_like_a_remembered_one_inside_a_longer_one_is_not_taken_for_it(client):
    """Twelve bytes that continue a frame are no request, whatever they look like."""
    await client.words(0)
    inner = frame(read(0, 1), transaction=99)
    outer = frame(b"\x64" + inner, transaction=5)
    client.send(outer[: -len(inner)])
    await asyncio.sleep(0.05)
    client.send(inner)
    assert await client.answer() == (5, 1, b"\xe4\x01")
    client.send(frame(write_one(0, 1), transaction=6))
    assert await client.answer() == (6, 1, b"\x86\x02")


async def test_a_read_behind_a_write_that_waits_waits_too(served, client, monkeypatch):
    await client.words(0)
    gate, submit = asyncio.Event(), served.bench.dispatcher.submit

    async def later(*commands):
        await gate.wait()
        return await submit(*commands)

    monkeypatch.setattr(served.bench.dispatcher, "submit", later)
    client.send(frame(write_one(5801, 10), transaction=1))
    (connection,) = served.bridge.listeners[0].connections
    await until(lambda: connection._queue)
    client.send(frame(read(0, 1), transaction=2))
    await until(lambda: len(connection._queue) == 2)
    gate.set()
    assert (await client.answer())[0] == 1
    assert (await client.answer())[0] == 2


async def test_a_client_sees_its_connection_closed_when_another_takes_its_place(tmp_path):
    async with serving(tmp_path, max_connections=1) as served, served.client() as client:
        assert await client.words(0) == [1]
        async with served.client() as other:
            assert struct.unpack(">H", await other.raw(0, 1)) == (1,)
            assert await client.closed() == b""
