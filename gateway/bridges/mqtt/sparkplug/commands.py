"""From DCMD messages to commands. What becomes of them shows in the device's `command/…` metrics."""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec

from gateway.api.contexts import OriginContext
from gateway.bridges.mqtt.message import Message
from gateway.bridges.mqtt.sparkplug.devices import Devices
from gateway.bridges.mqtt.sparkplug.metrics import Fate
from gateway.bridges.mqtt.sparkplug.payload import CommandError, Written, read_command
from gateway.bridges.mqtt.sparkplug.session import Aliases
from gateway.bridges.mqtt.sparkplug.topics import serial_of
from gateway.core.model import Command, CommandState, Origin, Reason, Value, new_command_id
from gateway.core.points import SETPOINTS

DCMD: Final = "dcmd"
"""How a command came, for people: Sparkplug does not tell who sent it."""
REQUEST_BACKLOG: Final = 1_000
NAME_LIMIT: Final = 64
"""Characters of a name that the far side made up, as far as it is repeated."""
MAX_LOGGED: Final = 100
"""Kinds of wrong commands that are logged."""


class _Asked(msgspec.Struct, frozen=True):
    serial: str
    values: dict[str, Value]
    """Setpoint → wanted value. At least one."""
    arrived: datetime


class Commands:
    """Takes DCMD messages in the order in which they arrive, one at a time; each in full or not at all."""

    def __init__(self, context: OriginContext, ttl: float, aliases: Aliases, devices: Devices) -> None:
        self._context = context
        self._ttl = ttl
        self._aliases = aliases
        self._devices = devices
        self._waiting: asyncio.Queue[_Asked] = asyncio.Queue(REQUEST_BACKLOG)
        self._told: set[tuple[str, str]] = set()
        self._failing = False

    def receive(self, device: str, message: Message) -> None:
        """Take a DCMD; refuse it at once where that can be said at once."""
        serial = serial_of(device)
        if serial is None or self._context.state(serial) is None:
            self.complain("names a device that is not known", device)
            return
        try:
            values = self._values(serial, read_command(message.payload))
        except CommandError as error:
            self.complain(str(error), device)
            return
        if self._waiting.full():
            self._refuse(serial, values, Reason.RATE_LIMITED, f"{REQUEST_BACKLOG} commands wait already")
        else:
            self._waiting.put_nowait(_Asked(serial, values, self._context.clock.now()))

    async def run(self) -> None:
        """Submit what was received, for ever."""
        while True:
            asked = await self._waiting.get()
            try:
                await self._context.submit(*self._commands(asked))
            except Exception as failure:
                # E.g. the journal can't be read. Logged once; each host sees its own.
                if not self._failing:
                    self._failing = True
                    self._context.log.exception("a command could not be taken", serial=asked.serial)
                detail = f"the gateway can't take the command now: {failure}"
                self._refuse(asked.serial, asked.values, Reason.NOT_STORED, detail)
            else:
                self._failing = False

    def complain(self, what: str, device: str) -> None:
        """Log a command that has no place to be answered at, once of a kind."""
        key = what[:NAME_LIMIT], device[:NAME_LIMIT]
        if key not in self._told and len(self._told) < MAX_LOGGED:
            self._told.add(key)
            self._context.log.warning("a Sparkplug command is ignored", device=key[1], why=what)

    def _values(self, serial: str, written: Sequence[Written]) -> dict[str, Value]:
        values: dict[str, Value] = {}
        if not written:
            raise CommandError("it names no metric")
        for metric in written:
            name = metric.name
            if name is None and metric.alias is not None:
                name = self._aliases.name(serial, metric.alias)
            if name is None:
                raise CommandError(f"there is no metric with the alias {metric.alias}; read the newest DBIRTH")
            if name not in SETPOINTS:
                raise CommandError(f"{name[:NAME_LIMIT]!r} can't be written")
            values[name] = metric.value
        return values

    def _commands(self, asked: _Asked) -> list[Command]:
        return [
            Command(
                id=new_command_id(),
                serial=asked.serial,
                setpoint=setpoint,
                value=value,
                origin=Origin.of(self._context.name, detail=DCMD),
                created=asked.arrived,
                expires=asked.arrived + timedelta(seconds=self._ttl),
            )
            for setpoint, value in asked.values.items()
        ]

    def _refuse(self, serial: str, setpoints: Iterable[str], reason: Reason, detail: str) -> None:
        now = self._context.clock.now()
        for setpoint in setpoints:
            self._devices.put_fate(serial, setpoint, Fate("", CommandState.REJECTED.value, reason.value, detail, now))
