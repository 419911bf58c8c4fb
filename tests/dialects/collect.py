"""What `learn` asks of simulated clouds, by its own collector, without sockets."""

import asyncio

from gateway.learn.collect import Collector
from gateway.sems.recording import Answer

BETWEEN = 600
"""Seconds between the two rounds."""


async def collect(world, clouds, between=BETWEEN):
    """Return what the collector gets of several clouds over one world; in the second round batteries discharge."""
    barrier = asyncio.Barrier(len(clouds))

    async def wait():
        if await barrier.wait() == 0:
            discharge(world)
            world.hand.advance(between)
        await barrier.wait()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_collected(cloud, wait)) for cloud in clouds]
    return [task.result() for task in tasks]


async def _collected(cloud, wait):
    usual = cloud.dialect.base if cloud.dialect is not None else cloud.catalogue

    async def ask(interface, args):
        body = await cloud.call(interface.name, **args)
        return Answer(interface.name, interface.parameters(args), cloud.clock.now(), 200, body)

    return await Collector(usual, ask, cloud.clock.now().date()).run(wait)


async def repeat(cloud, calls):
    """Return what a cloud answers to the same calls, of those that were made at this time."""
    now = cloud.clock.now()
    return [
        Answer(one.interface, one.args, now, 200, await cloud.send(one.interface, one.args))
        for one in calls
        if one.time == now
    ]


def discharge(world):
    """Tell all batteries to discharge, so that both directions are seen."""
    for serial in world.serials:
        device = world.device(serial)
        if device is not None and device.model.battery is not None:
            order = {"battery_mode": "discharge", "battery_power_target": device.model.battery.max_power * 0.6}
            world.command(serial, order | {"battery_target_soc": 10.0}, world.physics.now())
