"""The demo in this process: where it listens beside others, and energy that grows as fast as its sun moves."""

import asyncio
import io
import socket
import threading

import pytest
from rich.console import Console

from gateway.demo import run
from gateway.demo.run import DemoError, DemoOptions
from tests.kit.bench import until

ANY = {"mqtt_port": 0, "modbus_port": 0, "sems_port": 0}


def console():
    return Console(file=io.StringIO(), width=200)


# A demo that ends in the midst leaves a connection to uvloop, which says so whenever it is collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_energy_grows_as_fast_as_the_sun_moves():
    async with run._running(DemoOptions(**ANY, speed=600), console()) as (gateway, _):
        serial = run.example(gateway).serial
        begun = gateway.router.state(serial).values["energy_today"]
        # By the real clock ten kilowatts make no tenth of that in this time, and it would be held.
        await until(lambda: gateway.router.state(serial).values["energy_today"] > begun + 5)


async def test_two_that_begin_at_the_same_moment_choose_one_after_the_other():
    second = threading.Event()

    def begin():
        with run._alone():
            second.set()

    with run._alone():
        other = threading.Thread(target=begin)
        other.start()
        assert not second.wait(0.2)
    assert second.wait(60)
    other.join()


async def test_a_port_that_is_taken_after_all_names_the_option_that_the_demo_has(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(run, "_is_free", lambda _: True)
        with pytest.raises(DemoError, match="--sems-port"):
            async with run._running(DemoOptions(**ANY | {"sems_port": taken.getsockname()[1]}), console()):
                await asyncio.sleep(0)
