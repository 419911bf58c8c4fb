"""Who is checked by what."""

from tests.clients import brokers, modbus, mqtt, programs, world
from tests.clients.table import Checks

CHECKS = [
    *((modbus.native, program) for program in programs.MODBUS),
    *((modbus.sunspec, program) for program in programs.SUNSPEC),
    *((modbus.goodwe, program) for program in programs.GOODWE),
    *((mqtt.client, program) for program in programs.MQTT),
    *((mqtt.sparkplug, program) for program in programs.SPARKPLUG),
    *((mqtt.broker, program) for program in programs.BROKERS),
]
"""Brokers come last: where one is restarted, its clients are thrown out."""


def everything(directory, only=programs.ALL):
    """Return the world with those brokers that are among `only`; mosquitto is always there."""
    wanted = [broker for broker in programs.BROKERS if broker in only or not broker.command]
    return world.everything(directory, {broker.name: brokers.make(broker, directory) for broker in wanted})


async def judged(there, check, program):
    """Return the rows of one check; what it could not do is a row too."""
    try:
        return await check(there, program)
    except Exception as error:  # noqa: BLE001 - whatever a program of others does, the table goes on
        checks = Checks(program.name, program.version, program.language)
        checks.say(check.__name__, f"{type(error).__name__}: {error}".strip())
        return checks.rows
