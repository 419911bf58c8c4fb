"""The command line's door: a Unix socket in `data_dir`."""

import asyncio
from contextlib import suppress

import pytest

from gateway.bridges.local import LocalBridge, LocalClient, LocalSettings, NotRunningError
from gateway.bridges.local.protocol import SOCKET_NAME, Devices, Inventory, Refused, Send, Step, socket_path
from gateway.core.model import CommandState
from tests.kit.bench import INVERTER, Bench, until


def running(bench):
    return bench.run(LocalBridge, LocalSettings(), "cli")


async def up(bench):
    await until(lambda: any(s.up for s in bench.router.bridges()))


async def replies(data_dir, request):
    return [reply async for reply in LocalClient(data_dir).ask(request)]


def send(**changes):
    fields = {"serial": INVERTER.serial, "setpoint": "active_power_limit", "value": "50", "user": "me"}
    return Send(**(fields | changes))


async def test_a_command_is_followed_to_its_end(tmp_path):
    async with Bench(tmp_path) as bench:
        bench.announce()
        running(bench)
        await up(bench)
        steps = await replies(tmp_path, send(revert_after=600.0, ttl=5.0))
        assert [step.event.state for step in steps] == [
            CommandState.ACCEPTED,
            CommandState.SENT,
            CommandState.SUCCEEDED,
        ]
        (command,) = bench.controller.sent
        assert (command.origin, command.value, command.revert_after) == ("cli:me", 50.0, 600.0)


async def test_a_refused_one_ends_at_once(tmp_path):
    async with Bench(tmp_path) as bench:
        running(bench)
        await up(bench)
        (step,) = await replies(tmp_path, send())
        assert isinstance(step, Step)
        assert step.event.state is CommandState.REJECTED


async def test_devices_and_bridges(tmp_path):
    async with Bench(tmp_path) as bench:
        bench.announce()
        bench.publish(ac_power=5.0, battery_mode="idle", running=True, fault_text=None)
        running(bench)
        await up(bench)
        (inventory,) = await replies(tmp_path, Devices())
        assert isinstance(inventory, Inventory)
        assert inventory.states[0].device == INVERTER
        assert inventory.states[0].values == bench.router.state(INVERTER.serial).values
        assert [b.name for b in inventory.bridges] == ["cli"]


@pytest.mark.parametrize("line", [b"nonsense\n", b'{"type": "explode"}\n', b"\xff\xfe\n", b"", b'{"type":"send"}\n'])
async def test_nonsense_is_refused_and_harms_nobody(tmp_path, line):
    async with Bench(tmp_path) as bench:
        running(bench)
        await up(bench)
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / SOCKET_NAME))
        writer.write(line)
        writer.write_eof()
        assert b"refused" in await reader.read()
        writer.close()
        (inventory,) = await replies(tmp_path, Devices())
        assert isinstance(inventory, Inventory)


async def test_a_line_that_never_ends_is_cut_off(tmp_path):
    async with Bench(tmp_path) as bench:
        running(bench)
        await up(bench)
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / SOCKET_NAME))
        writer.write(b"x" * (3 << 20))
        with suppress(ConnectionError):
            await writer.drain()
            assert await reader.read() == b""
        writer.close()
        assert await replies(tmp_path, Devices())


async def test_the_socket_is_its_owners_alone_and_goes_with_the_gateway(tmp_path):
    async with Bench(tmp_path) as bench:
        running(bench)
        await up(bench)
        assert (tmp_path / SOCKET_NAME).stat().st_mode & 0o077 == 0
    assert not (tmp_path / SOCKET_NAME).exists()
    with pytest.raises(NotRunningError, match="sems-gateway run"):
        await replies(tmp_path, Devices())


async def test_what_a_crash_left_behind_is_replaced(tmp_path):
    (tmp_path / SOCKET_NAME).touch()
    async with Bench(tmp_path) as bench:
        running(bench)
        await up(bench)
        assert await replies(tmp_path, Devices())


async def test_a_data_dir_deep_down_works_too(tmp_path):
    deep = tmp_path.joinpath(*["a-long-name-of-a-directory"] * 6)
    deep.mkdir(parents=True)
    with socket_path(deep) as path:
        assert len(path) < 100
    async with Bench(deep) as bench:
        running(bench)
        await up(bench)
        assert await replies(deep, Devices())


async def test_a_client_that_hangs_up_does_not_stop_the_command(tmp_path):
    async with Bench(tmp_path) as bench:
        bench.announce()
        bench.controller.gate.clear()
        runner = running(bench)
        await up(bench)
        asking = LocalClient(tmp_path).ask(send())
        assert isinstance(await anext(asking), Step)
        await asking.aclose()
        bench.controller.gate.set()
        await until(lambda: not runner.bridge._followers)
        assert len(bench.controller.sent) == 1


def test_a_refusal_has_words():
    assert Refused("why").detail == "why"


async def test_above_the_limit_the_oldest_that_has_not_asked_makes_room_and_then_the_oldest(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.bridges.local.bridge.MAX_CONNECTIONS", 3)
    async with Bench(tmp_path) as bench:
        bench.announce()
        bench.controller.gate.clear()
        runner = running(bench)
        await up(bench)
        followers = []

        async def follow():
            followers.append(LocalClient(tmp_path).ask(send()))
            assert isinstance(await anext(followers[-1]), Step)

        async def inventory():
            assert [type(reply) for reply in await replies(tmp_path, Devices())] == [Inventory]

        await follow()
        silent = [await asyncio.open_unix_connection(str(tmp_path / SOCKET_NAME)) for _ in range(2)]
        await inventory()
        assert await silent[0][0].read() == b""
        await follow()
        await follow()
        assert await silent[1][0].read() == b""
        await inventory()
        assert not [step async for step in followers[0] if step.event.state.final]
        assert len(runner.bridge._acceptor.seats) <= 3
        bench.controller.gate.set()
        # What it followed went on without it.
        for follower in followers[1:]:
            assert [step.event.state async for step in follower][-1].final
        await until(lambda: not runner.bridge._followers)
        for _, writer in silent:
            writer.close()
