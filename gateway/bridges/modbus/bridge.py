"""The bridge: what the router tells goes into images, what clients write becomes commands."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

from gateway.bridges.modbus.fields import COUNTER, CommandStatus, device_fields, unix
from gateway.bridges.modbus.gateway_unit import UNITS as OWN_UNITS
from gateway.bridges.modbus.gateway_unit import GatewayUnit
from gateway.bridges.modbus.image import Image, Unit
from gateway.bridges.modbus.listeners import Listeners
from gateway.bridges.modbus.maps.chosen import build
from gateway.bridges.modbus.maps.family import Family, Latching
from gateway.bridges.modbus.metrics import METRICS
from gateway.bridges.modbus.server import Counts, Listener
from gateway.bridges.modbus.settings import ModbusSettings
from gateway.bridges.modbus.units import LAST_UNIT, Place, UnitBook, units_path
from gateway.bridges.modbus.writes import Writer
from gateway.core.bridge import BridgeSettings, Context, Updates
from gateway.core.model import DeviceState, Quality, Value
from gateway.core.points import SETPOINTS

ENCODED_AT_ONCE: Final = 2
"""Devices between which reads get their turn: about a tenth of a millisecond."""


class _Device:
    """What the bridge keeps of one device while the process lives, over restarts of the bridge."""

    def __init__(self) -> None:
        self.state: DeviceState | None = None
        self.updates = 0
        self.commands = CommandStatus()


class ModbusBridge:
    """Every device a unit of one Modbus TCP server, on one port or several."""

    Settings: ClassVar[type[BridgeSettings]] = ModbusSettings

    def __init__(self, settings: ModbusSettings, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._families: tuple[Family, ...] = ()
        self._latching: tuple[Latching, ...] = ()
        self._units = UnitBook(units_path(context.data_dir, context.name), settings.pins, settings.ports)
        self._devices: dict[str, _Device] = {}
        self._listeners: Listeners | None = None
        self._writer: Writer | None = None
        self._started = 0.0
        self._left_out: set[str] = set()
        self._wanting: dict[str, None] = {}
        """Serials of devices that have no unit yet, in the order they came."""
        self._store_works = True

    @property
    def listeners(self) -> Sequence[Listener]:
        """What listens now: the bridge's own range of ports first, then those of `listeners:`."""
        return tuple(self._listeners) if self._listeners else ()

    @property
    def port(self) -> int:
        """The first port the server listens on; 0 while it does not."""
        return self._listeners.port(0) if self._listeners else 0

    @property
    def units(self) -> Mapping[str, int]:
        """Serial → unit, of the devices served now."""
        return {serial: place.unit for serial, place in self.places.items()}

    @property
    def places(self) -> Mapping[str, Place]:
        """Serial → port of the range and unit, of the devices served now."""
        return self._listeners.served if self._listeners else {}

    @property
    def left_out(self) -> frozenset[str]:
        """Serials of devices for which no unit was left, or could be stored."""
        return frozenset(self._left_out)

    @property
    def counts(self) -> Counts:
        """What the server has done since it started."""
        return self._listeners.counts if self._listeners else Counts()

    async def start(self) -> None:
        """Listen. Raises OSError where a port is taken, or a file can't be used: units, certificates."""
        self._units.load()
        self._left_out.clear()
        self._wanting.clear()
        for device in self._devices.values():
            device.state = None
        context, settings = self._context, self._settings
        if not self._families:
            self._families = build(settings.maps, settings.word_order)
            self._latching = tuple(family for family in self._families if isinstance(family, Latching))
        wait = settings.answer_timeout if settings.answer_writes == "done" else None
        self._writer = Writer(context.submit, context.clock, context.name, settings.ttl, wait)
        listeners = Listeners(settings, context, self._writer.write)
        await listeners.start()
        self._listeners = listeners
        self._started = context.clock.monotonic()
        itself = GatewayUnit(
            context,
            settings.word_order,
            without_unit=lambda: len(self._left_out),
            connections=lambda: sum(len(listener.connections) for listener in listeners),
        )
        for table in listeners.tables:
            table.update(dict.fromkeys(OWN_UNITS, itself.unit))
        METRICS.watch(context.name, listeners)

    async def stop(self) -> None:
        """Close the ports and all connections."""
        METRICS.forget(self._context.name)
        listeners, self._listeners = self._listeners, None
        if listeners is not None:
            await listeners.stop()

    async def deliver(self, updates: Updates) -> None:
        """Encode what has changed."""
        listeners = self._listeners
        if listeners is None:
            return
        for serial in updates.removed:
            self._withdraw(listeners, serial)
        for serial, state in updates.states.items():
            device = self._devices.setdefault(serial, _Device())
            device.state = state
            device.updates += 1
            if self._units.get(serial) is None:
                self._wanting[serial] = None
        changed = dict.fromkeys(updates.states)
        for event in updates.events:
            serial = event.command.serial
            if serial in self._devices:
                self._devices[serial].commands.note(event)
                for family in self._latching:
                    family.note(event)
                changed[serial] = None
        for command in updates.done:
            for family in self._latching:
                family.done(command)
            if command.serial in self._devices:
                changed[command.serial] = None
        changed |= dict.fromkeys(await self._give_units())
        for n, serial in enumerate(changed, 1):
            self._encode(listeners, serial)
            if n % ENCODED_AT_ONCE == 0:
                await asyncio.sleep(0)
        if self._writer is not None:
            for event in updates.events:  # now that registers show it, whoever waits for it may look
                self._writer.note(event)
            for command in updates.done:
                self._writer.done(command.id)

    def _withdraw(self, listeners: Listeners, serial: str) -> None:
        if serial in self._devices:
            self._devices[serial].state = None
        self._wanting.pop(serial, None)
        place = self._units.get(serial)
        if place is not None:
            listeners.tables[place.nth].pop(place.unit, None)

    async def _give_units(self) -> list[str]:
        """Give units to devices that have none. Returns those that have got one."""
        if self._wanting.keys() == self._left_out and self._store_works:
            return []
        try:
            left_out = await self._units.assign(self._wanting)
        except OSError as error:
            if self._store_works:
                self._context.log.error("units can't be stored, new devices wait for that", error=str(error))
            self._store_works = False
            left_out = list(self._wanting)
        else:
            if not self._store_works:
                self._context.log.info("units can be stored again")
            self._store_works = True
        given = [serial for serial in self._wanting if serial not in set(left_out)]
        self._wanting = dict.fromkeys(left_out)
        if set(left_out) != self._left_out:
            self._left_out = set(left_out)
            self._report_left_out()
        return given

    def _report_left_out(self) -> None:
        count = len(self._left_out)
        if not count:
            self._context.report(up=True)
            return
        ports = self._settings.ports
        full = f"{'one port has' if ports == 1 else f'{ports} ports have'} {ports * LAST_UNIT} units; raise `ports`"
        why = full if self._store_works else "the units' file can't be written"
        self._context.log.warning("devices without a unit", count=count, why=why)
        self._context.report(up=True, detail=f"{count} devices have no unit: {why}")

    def _encode(self, listeners: Listeners, serial: str) -> None:
        device, place = self._devices[serial], self._units.get(serial)
        state = device.state
        if state is None or place is None:
            return
        table = listeners.tables[place.nth]
        unit = table.get(place.unit)
        layouts = [(family, layout) for family in self._families if (layout := family.layout(state.device))]
        if unit is None or [image.layout for image in unit.images] != [layout for _, layout in layouts]:
            unit = Unit(serial, [Image(serial, *pair, lambda: self._live(device)) for pair in layouts])
        good = state.quality is Quality.GOOD
        common = {
            **device_fields(state, device.updates),
            **device.commands.fields(),
            **self._live(device),
            **self._values(state, hide=not good and self._settings.stale == "sentinel"),
        }
        for image in unit.images:
            image.show({**common, **image.family.fields(state)})
            image.closed = not good and self._settings.stale == "exception"
        table[place.unit] = unit

    @staticmethod
    def _values(state: DeviceState, *, hide: bool) -> Mapping[str, Value]:
        """Return the points to show. What is not measured now is hidden, what was set is not."""
        if not hide:
            return state.values
        return {point: value for point, value in state.values.items() if point in SETPOINTS}

    def _live(self, device: _Device) -> Mapping[str, Value]:
        """Return what changes by itself, as of now."""
        measured = unix(device.state.time) if device.state else None
        return {
            "data.age": None if measured is None else max(0, (unix(self._context.clock.now()) or 0) - measured),
            "gateway.uptime": int(self._context.clock.monotonic() - self._started) % COUNTER,
        }
