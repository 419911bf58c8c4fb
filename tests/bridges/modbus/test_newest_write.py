"""Writes to a plant's unit and to a member's, within milliseconds over two connections: the newest wins."""

import asyncio

import pytest

from tests.bridges.modbus.client import frame, write_one
from tests.bridges.modbus.test_plant_models import LARGE, MIXED, SMALL, site
from tests.kit.bench import until

LIMIT = 5801
"""active_power_limit, 0.1 %."""


def limits(here, serial):
    return [one.value for one in here.bench.asked if (one.serial, one.setpoint) == (serial, "active_power_limit")]


@pytest.mark.parametrize("plant_first", [True, False])
async def test_a_write_that_waits_behind_another_does_not_undo_a_newer_one(tmp_path, plant_first):
    """Each connection's requests are executed one after another; what came first is older, whenever that is."""
    async with site(tmp_path, *MIXED) as here, here.served.client() as one, here.served.client() as other:
        unit, member = here.unit, here.served.bridge.units[SMALL.serial]
        first, second = (unit, member) if plant_first else (member, unit)
        slow = [frame(write_one(LIMIT, 900 - n), unit=here.served.bridge.units[LARGE.serial]) for n in range(8)]
        one.send(b"".join((*slow, frame(write_one(LIMIT, 500), unit=first))))
        (connection, _) = here.served.bridge.listeners[0].connections
        await until(lambda: len(connection._queue) >= 5)
        assert await other.ask(write_one(LIMIT, 300), unit=second)
        for _ in range(9):
            await one.answer()
        await until(lambda: limits(here, SMALL.serial)[-1:] == [30.0])


async def test_what_settles_does_not_undo_a_newer_write_that_is_being_accepted(tmp_path):
    async with site(tmp_path, *MIXED, settle=60) as here, here.served.client() as one, here.served.client() as other:
        unit, member = here.unit, here.served.bridge.units[SMALL.serial]
        images = here.served.bridge.listeners[0].service.units[unit].images
        at = {row.field: row.address for image in images for row in image.layout.map.rows}
        await one.ask(write_one(at["sunspec.123.WMaxLimPct"], 5000), unit=unit)
        await one.ask(write_one(at["sunspec.123.WMaxLim_Ena"], 1), unit=unit)
        writer = here.served.bridge._writer
        submit, gate = writer._submit, asyncio.Event()

        async def held(*commands):
            await gate.wait()  # as a slow disk holds it
            return await submit(*commands)

        writer._submit = held
        other.send(frame(write_one(LIMIT, 300), unit=member))
        await until(lambda: writer._submitted)
        (target,) = writer._pending
        leaving = asyncio.create_task(writer._leave(target))
        gate.set()
        await leaving
        await other.answer()
        assert limits(here, SMALL.serial)[-1] == 30.0
        assert limits(here, LARGE.serial)[-1] == 50.0
