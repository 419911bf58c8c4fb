"""The devices of the node: born while their data are good, dead while they are not."""

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import partial
from typing import Final

import msgspec

from gateway.api.contexts import OriginContext
from gateway.bridges.mqtt.outbox import Outbox
from gateway.bridges.mqtt.sparkplug import metrics, payload
from gateway.bridges.mqtt.sparkplug.metrics import Fate
from gateway.bridges.mqtt.sparkplug.payload import Metric
from gateway.bridges.mqtt.sparkplug.schema import DataType
from gateway.bridges.mqtt.sparkplug.session import Aliases, Line
from gateway.bridges.mqtt.sparkplug.topics import MessageType, device_id
from gateway.core.model import Device, DeviceState, Origin, Quality, Range
from gateway.core.points import SETPOINTS

FATE_BACKLOG: Final = 10_000


class _Born(msgspec.Struct):
    """A device as the host knows it."""

    state: DeviceState
    datatypes: dict[str, DataType]
    """Metric → type it was born with."""


class Devices:
    """Says what hosts have to know of devices. Only the node's flush calls what is async here."""

    def __init__(
        self, context: OriginContext, outbox: Outbox, aliases: Aliases, *, types_in_data: bool = False
    ) -> None:
        self._context = context
        self._types_in_data = types_in_data
        self._outbox = outbox
        self._aliases = aliases
        self._born: dict[str, _Born] = {}
        self._seen: dict[str, dict[str, DataType]] = {}
        """Serial → point → type, of all points that the device ever had."""
        self._qualities: dict[str, Quality] = {}
        self._steps: deque[tuple[str, str, Fate]] = deque(maxlen=FATE_BACKLOG)
        """Serial, setpoint and what a step made of the command; the oldest gives way, for the newest counts."""
        self._fates: dict[str, dict[str, Fate]] = {}
        """Serial → setpoint → what was published to hosts."""

    def put_fate(self, serial: str, setpoint: str, fate: Fate) -> None:
        """Queue what became of a command, whoever asked for it."""
        if setpoint in SETPOINTS:
            self._steps.append((serial, setpoint, fate))
            self._outbox.wake()

    @property
    def counts(self) -> Counter[Quality]:
        """How many devices have which quality."""
        return Counter(self._qualities.values())

    def begin(self) -> list[str]:
        """Begin with nobody born; return all serials there are."""
        states = self._context.states()
        self._born.clear()
        self._qualities = {state.device.serial: state.quality for state in states}
        return list(self._qualities)

    async def bear(self, line: Line, serial: str) -> None:
        """Publish a DBIRTH when there are good data. Raises LostError."""
        state = self._context.state(serial)
        if state is not None and state.quality is Quality.GOOD:
            await self._birth(line, state)

    async def show_steps(self, line: Line, most: int) -> None:
        """Publish what became of commands. Raises LostError."""
        for _ in range(min(most, len(self._steps))):
            serial, setpoint, fate = self._steps.popleft()
            if self._context.state(serial) is None:
                continue
            known = self._fates.setdefault(serial, {}).get(setpoint)
            self._fates[serial][setpoint] = fate
            born = self._born.get(serial)
            if born is None or metrics.fate_name(setpoint, "state") not in born.datatypes:
                continue
            await self._data(line, serial, list(metrics.of_fate(setpoint, fate, known)))

    async def show(self, line: Line, state: DeviceState) -> None:
        """Publish what is new about a device. Raises LostError."""
        serial = state.device.serial
        if self._qualities.get(serial) is not state.quality:
            self._qualities[serial] = state.quality
            self._outbox.health_changed = True
        born = self._born.get(serial)
        if born is not None and born.state is state:
            return
        if state.quality is not Quality.GOOD:
            await self._death(line, serial)
        elif born is None or born.state.device != state.device or self._has_new(born, state):
            await self._birth(line, state)
        else:
            changes = list(self._changes(born, state))
            born.state = state
            await self._data(line, serial, changes)

    async def remove(self, line: Line, serial: str) -> None:
        """Publish the death of a device that is known no more. Raises LostError."""
        if self._qualities.pop(serial, None) is not None:
            self._outbox.health_changed = True
        self._fates.pop(serial, None)
        self._seen.pop(serial, None)
        await self._death(line, serial)
        self._aliases.forget(serial)

    @property
    def filled(self) -> bool:
        """Whether steps of commands wait."""
        return bool(self._steps)

    async def _birth(self, line: Line, state: DeviceState) -> None:
        serial = state.device.serial
        now = self._context.clock.now()
        fates = self._fates.get(serial, {})
        seen = self._seen.setdefault(serial, {})
        all_ = list(metrics.of_device(state, seen, self._permitted(state.device), fates, now))
        datatypes = {metric.name: metric.datatype for metric in all_}
        seen.update((name, datatypes[name]) for name in state.values if name in datatypes)

        def encode(now: datetime, seq: int, *, described: bool = True) -> bytes:
            return payload.birth(now, seq, all_, lambda name: self._aliases.number(serial, name), described=described)

        # A host knows a device by its birth alone: where the broker does not take that, there are no data either.
        if await line.say(MessageType.DBIRTH, device_id(serial), encode, partial(encode, described=False)):
            self._born[serial] = _Born(state, datatypes)
        else:
            await self._death(line, serial)

    async def _death(self, line: Line, serial: str) -> None:
        if self._born.pop(serial, None) is not None:
            await line.say(MessageType.DDEATH, device_id(serial), payload.device_death)

    async def _data(self, line: Line, serial: str, changes: list[Metric]) -> None:
        if changes:
            await line.say(
                MessageType.DDATA,
                device_id(serial),
                lambda now, seq: payload.data(
                    now, seq, changes, lambda name: self._aliases.number(serial, name), typed=self._types_in_data
                ),
            )

    def _has_new(self, born: _Born, state: DeviceState) -> bool:
        return any(
            name not in born.datatypes and metrics.datatype_of(name, value) is not None
            for name, value in state.values.items()
        )

    def _changes(self, born: _Born, state: DeviceState) -> Iterator[Metric]:
        before, after = born.state.values, state.values
        time = self._time(born.state.time, state.time)
        for name in dict.fromkeys([*after, *before]):
            old, new = before.get(name), after.get(name)
            datatype = born.datatypes.get(name)
            if datatype is not None and old != new:
                # Whether there is a value is published when it changes; a host takes silence for good.
                appears = old is None or new is None
                yield Metric(name, datatype, new, time, (metrics.quality(new),) if appears else ())

    def _time(self, before: datetime | None, after: datetime | None) -> datetime:
        # A value that changes while no source has measured anew was set by a command, just now.
        return self._context.clock.now() if after is None or after == before else after

    def _permitted(self, device: Device) -> Mapping[str, Range]:
        return self._context.permitted(device, Origin(self._context.name))
