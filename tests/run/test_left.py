"""A device that is taken out of a fleet, or of a limit, stands as it was told: that is said until it is let go."""

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from gateway.api.bridge import BridgeSettings
from gateway.api.registry import installed
from gateway.core.findings import FindingCode
from gateway.core.model import Command, Origin, new_command_id
from gateway.run import left
from gateway.run.app import Gateway
from gateway.run.settings import Config
from tests.bridges.open_api.kit import cloud
from tests.commands.test_orders import SHORT
from tests.kit.bench import INVERTER as BATTERY
from tests.kit.bench import Bench, Silent, until
from tests.kit.clock import FakeClock, virtual

INVERTER = "9010KETU218W0001"
CONFIG = """
bridges:
  sems: {{type: open_api, account: demo, password: demo, url: '{url}', poll_interval: 60}}
control: {{enabled: true, allow: [{{devices: ['*'], setpoints: ['*']}}]}}
{more}
"""
MEMBER = f"fleets: {{north: {{members: {{devices: [{INVERTER}]}}}}}}"
LIMIT = f"limits: {{grid: {{device: {INVERTER}, import_failsafe: 4200}}}}"
FLEET, SERIAL = Origin("fleet/north:target"), BATTERY.serial
OTHERS = "fleets: {north: {members: {devices: [SOMEBODY]}}}"


@pytest.fixture(autouse=True)
def looks_often(monkeypatch):
    monkeypatch.setattr(left, "LOOK", 0.1)


@pytest.fixture
async def file(tmp_path):
    """Writes the configuration, with what it is given."""
    async with cloud() as simulator:

        def write(more):
            (tmp_path / "config.yaml").write_text(CONFIG.format(url=simulator.url, more=more))
            (tmp_path / "config.yaml").chmod(0o600)
            return tmp_path / "config.yaml"

        yield write


@asynccontextmanager
async def running(file):
    gateway = Gateway(Config.load(file, installed()))
    await gateway.start()
    try:
        await until(lambda: (state := gateway.router.state(INVERTER)) and state.time, "the inverter is known")
        yield gateway
    finally:
        await gateway.stop()


def ask(gateway, serial, setpoint, value):
    now = gateway._clock.now()
    return gateway._dispatcher.submit(
        Command(
            id=new_command_id(), serial=serial, setpoint=setpoint, value=value, origin=Origin("cli"), created=now,
            expires=now + timedelta(minutes=10),
        )
    )  # fmt: skip


def said(gateway):
    """Return what is said of devices that were left: serial → text and remedy."""
    return {
        each.subject: f"{each.text} {each.remedy}"
        for status in gateway.router.bridges()
        for each in status.findings
        if each.code is FindingCode.LEFT_AS_TOLD
    }


async def limited(gateway, limit=40.0):
    """Have the fleet hold its only member at a limit."""
    await until(
        lambda: (state := gateway.router.state("fleet:north")) and state.device.rated_power, "the fleet is known"
    )
    await ask(gateway, "fleet:north", "active_power_limit", limit)

    def is_limited():
        setting = gateway._dispatcher.memory.get((INVERTER, "active_power_limit"))
        return setting is not None and setting.value == limit

    await until(is_limited, "the member stands at its limit")


@pytest.mark.parametrize("after", [OTHERS, "", LIMIT], ids=["members", "fleet", "limit"])
async def test_what_is_no_member_any_more_is_said_until_it_is_let_go(file, after):
    async with running(file(MEMBER)) as gateway:
        await limited(gateway)
        assert not await gateway._left.look()
        file(after)
        told = await gateway.reload()
        assert "1 device still stands" in told
        text = said(gateway)[INVERTER]
        assert f"{INVERTER} still stands at active_power_limit 40 % as fleet:north told it" in text
        assert f"sems-gateway send CONFIG {INVERTER} active_power_limit 100" in text
    async with running(file(after)) as gateway:
        await until(lambda: said(gateway), "it is said after a restart too")
        assert said(gateway)[INVERTER] == text
        await ask(gateway, INVERTER, "active_power_limit", 100.0)
        await until(lambda: not said(gateway), "nothing is said any more")


async def test_a_member_again_is_left_no_more(file):
    async with running(file(MEMBER)) as gateway:
        await limited(gateway)
        file(OTHERS)
        await gateway.reload()
        assert said(gateway)
        file(MEMBER)
        await gateway.reload()
        assert not said(gateway)


async def test_a_member_that_moves_to_another_fleet_is_that_ones(file):
    async with running(file(MEMBER)) as gateway:
        await limited(gateway)
        file(f"fleets: {{north: {{members: {{devices: [SOMEBODY]}}}}, south: {{members: {{devices: [{INVERTER}]}}}}}}")
        await gateway.reload()
        await until(lambda: gateway._services.steered.get(INVERTER) == "fleet:south", "it is the new one's")
        assert "as fleet:north told it" in said(gateway)[INVERTER], "the new one has told it nothing yet"
        await until(lambda: (state := gateway.router.state("fleet:south")) and state.device.rated_power)
        await ask(gateway, "fleet:south", "active_power_limit", 50.0)
        await until(lambda: not said(gateway), "the new one steers it")


def order(bench, origin):
    return [
        bench.command(setpoint, value, origin=origin)
        for setpoint, value in (("battery_mode", "charge"), ("battery_power_target", 2_000.0))
    ]


@virtual
async def test_an_order_that_the_gateway_renews_is_still_that_of_who_gave_it(tmp_path):
    clock = FakeClock()
    async with Bench(tmp_path, SHORT, clock) as bench:
        bench.run(Silent, BridgeSettings(), "scripted")
        bench.announce()
        bench.publish(interval=100_000)
        await asyncio.sleep(1)
        await bench.dispatcher.submit(*order(bench, FLEET))
        await asyncio.sleep(50)
        bench.dispatcher.look_at_clock()
        await asyncio.sleep(5)
        assert len(bench.controller.sent) > 1, "it was renewed"
        await is_left(bench)
    async with Bench(tmp_path, SHORT, clock) as bench:
        bench.run(Silent, BridgeSettings(), "scripted")
        bench.announce()
        await asyncio.sleep(1)
        await is_left(bench)


async def is_left(bench):
    """Look once, and have the battery among what is found."""
    assert await left.Left(bench.services, bench.journal).look() == 1
    (status,) = [each for each in bench.router.bridges() if each.name == "scripted"]
    (finding,) = status.findings
    assert "battery_mode charge as fleet:north told it" in finding.text
    assert finding.remedy == f"sems-gateway send CONFIG {SERIAL} battery_mode auto"
