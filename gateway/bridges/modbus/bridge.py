"""The bridge: what the router publishes goes into images, what clients write becomes commands."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from operator import itemgetter
from typing import ClassVar, Final

from gateway.api.bridge import BridgeSettings, Context
from gateway.api.served import ServedMap, ServedRegister
from gateway.bridges.modbus import directory, served
from gateway.bridges.modbus.counts import Counts
from gateway.bridges.modbus.directory import Entry, Ports
from gateway.bridges.modbus.fields import COUNTER, CommandStatus, device_fields, soonest, unix
from gateway.bridges.modbus.gateway_unit import GatewayUnit
from gateway.bridges.modbus.image import Image, Unit
from gateway.bridges.modbus.joint import Joint
from gateway.bridges.modbus.lasting import lasting
from gateway.bridges.modbus.listeners import METRICS, Listeners
from gateway.bridges.modbus.maps.chosen import build
from gateway.bridges.modbus.maps.family import Family
from gateway.bridges.modbus.plants import Plants
from gateway.bridges.modbus.requests import Write
from gateway.bridges.modbus.server import Listener
from gateway.bridges.modbus.settings import MAX_PORTS, ModbusSettings
from gateway.bridges.modbus.settling import Settling
from gateway.bridges.modbus.udp import OWN_ADDRESSES, UdpListener, only_goodwe
from gateway.bridges.modbus.units import LAST_UNIT, Place, UnitBook, adopt, units_path
from gateway.bridges.modbus.writes import Writer
from gateway.config.host import at
from gateway.core.errors import GatewayError
from gateway.core.findings import FindingCode
from gateway.core.mailbox import Updates
from gateway.core.model import GATEWAY, DeviceKind, DeviceState, Quality, Value

GIVE_PAUSE, MAX_GIVE_PAUSE = 1.0, 32.0
"""Seconds between two times that new devices get units and the units' file is written; doubled while more keep coming,
so that a first start with hundreds of devices writes it a few times."""
PORT_RETRY: Final = 60.0
"""Seconds until a port that could not be opened is tried again."""
_MORE_PORTS: Final = f"there are more than {LAST_UNIT} devices: each port has {LAST_UNIT} units, further ones follow"
YIELD_AFTER_DEVICES: Final = 2
"""Devices after which reads are served: about a tenth of a millisecond of encoding."""
NOTED_PER_TURN: Final = 50
"""Devices that are taken note of, before any is encoded, in one turn of the loop."""


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
        self._units = UnitBook(units_path(context.data_dir, context.name), settings.pins, settings.ports or MAX_PORTS)
        self._devices: dict[str, _Device] = {}
        self._listeners: Listeners | None = None
        self._joint = Joint()
        self._udp: list[UdpListener] = []
        self._writer: Writer | None = None
        self._plants = Plants()
        self._started = 0.0
        self._left_out: set[str] = set()
        self._wanting: dict[str, None] = {}
        """Serials of devices that have no unit yet, in the order they came."""
        self._wanted = asyncio.Event()
        """There are new devices, or one that has no unit yet may get one."""
        self._store_works = True
        self._no_port = ""
        """Why there is no further port for more devices; "" where there is none needed, or there is."""
        self._port_again = 0.0
        """When to try again to open one, on the monotonic clock."""

    @property
    def listeners(self) -> Sequence[Listener]:
        """What listens now: the bridge's own range of ports first, then those of `listeners:`."""
        return tuple(self._listeners) if self._listeners else ()

    @property
    def port(self) -> int:
        """The first port the server listens on; 0 while it does not."""
        return self._listeners.port(0) if self._listeners else 0

    @property
    def where(self) -> str:
        """For the line at start."""
        count = len(self.places)
        return (
            f"{at(self._settings.host, self.port)} ({count} {'unit' if count == 1 else 'units'})" if self.port else ""
        )

    def register_maps(self, serial: str) -> Sequence[ServedMap]:
        """See `RegisterServer`."""
        found = self._served(serial)
        if found is None:
            return ()
        port, place, unit = found
        return [served.map_of(image, port, place.unit) for image in unit.images]

    def served_registers(self, serial: str, map_: str) -> Sequence[ServedRegister]:
        """See `RegisterServer`."""
        found = self._served(serial)
        state = self._devices[serial].state if found is not None else None
        if found is None or state is None:
            return ()
        image = next((image for image in found[2].images if image.layout.map.name == map_), None)
        return () if image is None else served.registers_of(image, state.quality)

    def _served(self, serial: str) -> tuple[int, Place, Unit] | None:
        """Return the port, the place and the registers of a device; None where it is not served."""
        listeners, place = self._listeners, self._units.get(serial)
        if listeners is None or place is None:
            return None
        unit = listeners.tables[place.nth].get(place.unit)
        return None if unit is None or unit.serial != serial else (listeners.port(place.nth), place, unit)

    @property
    def udp_ports(self) -> list[int]:
        """The UDP ports it listens on, in the order of the configuration."""
        return [udp.port for udp in self._udp]

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
        # On a thread, for there may be thousands.
        context, settings = self._context, self._settings
        path = units_path(context.data_dir, context.name)
        await asyncio.to_thread(adopt, path, {bridge.name for bridge in context.bridges()}, context.log)
        if lost := await asyncio.to_thread(self._units.restore, context.log):
            # What a SCADA sets would reach another device than it means.
            with suppress(GatewayError):  # told in the log, and halted it is
                await context.halt(GATEWAY, lost)
        kept = self._units.serials
        self._left_out.clear()
        self._wanting.clear()
        self._wanted.clear()
        self._no_port = ""
        for device in self._devices.values():
            device.state = None
        if not self._families:
            # A tenth of a second of computing, which would hold up everything else.
            self._families = await asyncio.to_thread(build, settings.maps, settings.word_order)
        wait = settings.answer_timeout if settings.answer_writes == "done" else None
        self._writer = Writer(
            context.submit,
            context.judge,
            context.clock,
            context.log,
            context.name,
            ttl=settings.ttl,
            settle=settings.settle,
            wait=wait,
            share=self._plants.share,
            join=self._joint.join,
            connected=lambda peer: any(open_.peer == peer for one in self.listeners for open_ in one.connections),
        )
        self._started = context.clock.monotonic()
        itself = GatewayUnit(
            context,
            settings.word_order,
            without_unit=lambda: len(self._left_out),
            connections=lambda: sum(len(listener.connections) for listener in self.listeners),
        )
        await asyncio.to_thread(directory.layout_of, settings.word_order)

        def own(nth: int) -> Unit:
            ports, entries = partial(self._ports, listeners, nth), partial(self._entries, listeners, nth)
            return Unit("", [itself.image, directory.image_of(settings.word_order, context.clock, ports, entries)])

        listeners = Listeners(settings, context, self._writer.write, own)
        await listeners.start(settings.ports or self._units.ports_for(kept))
        self._units.ports = len(listeners.tables)
        try:
            for udp in self._over_udp(listeners, self._writer.write):
                await udp.start()
                self._udp.append(udp)
        except OSError:
            await self.stop()
            await listeners.stop()
            raise
        self._listeners = listeners
        METRICS.watch(context.name, listeners)
        if settings.ports is None and len(listeners.tables) > 1:
            context.log.info(_MORE_PORTS, ports=len(listeners.tables), first=listeners.port(0))
        context.spawn(self._give_units(listeners), "units of new devices")

    def _over_udp(self, listeners: Listeners, write: Write) -> Iterator[UdpListener]:
        """Yield the listeners of `udp:`, not yet started."""
        context = self._context
        for door in self._settings.udp:
            yield UdpListener(
                context.name,
                door,
                self._settings.host,
                find=partial(self._find_inverter, listeners, door.device),
                write=write,
                spawn=context.spawn,
                clock=context.clock,
                log=context.log,
            )

    def _find_inverter(self, listeners: Listeners, serial: str | None, address: int) -> Unit | None:
        """Return what an address means over UDP: the door's inverter, or the unit of that number on the first port."""
        if address not in OWN_ADDRESSES:
            return only_goodwe(listeners.tables[0].get(address))
        if serial is not None:
            place = self._units.get(serial)
            return None if place is None else only_goodwe(listeners.tables[place.nth].get(place.unit))
        last = only_goodwe(listeners.tables[0].get(LAST_UNIT))
        in_order = (unit for table in listeners.tables for _, unit in sorted(table.items(), key=itemgetter(0)))
        return last or next((found for unit in in_order if (found := only_goodwe(unit))), None)

    def _ports(self, listeners: Listeners, nth: int) -> Ports:
        return Ports(listeners.port(nth), listeners.port(0), len(listeners.tables))

    def _entries(self, listeners: Listeners, nth: int) -> Iterator[Entry]:
        """Yield what the directory of a port says of its units."""
        for number, unit in listeners.tables[nth].items():
            state = self._devices[unit.serial].state if 1 <= number <= LAST_UNIT else None
            if state is not None:
                plant = state.device.serial if state.device.kind is DeviceKind.PLANT else state.device.plant
                place = self._units.get(plant) if plant else None
                served = place is not None and place.unit in listeners.tables[place.nth]
                yield (
                    Entry(number, state, listeners.port(place.nth), place.unit)
                    if place is not None and served
                    else Entry(number, state, None, None)
                )

    async def stop(self) -> None:
        """Close the ports and all connections."""
        METRICS.forget(self._context.name)
        while self._udp:
            self._udp.pop().stop()
        listeners, self._listeners = self._listeners, None
        writer, self._writer = self._writer, None
        if listeners is not None:
            await listeners.stop()
        if writer is not None:
            await writer.stop()

    async def deliver(self, updates: Updates) -> None:
        """Encode what has changed."""
        listeners = self._listeners
        if listeners is None:
            return
        changed: dict[str, None] = {}
        for n, serial in enumerate(updates.removed, 1):
            changed |= dict.fromkeys(self._withdraw(listeners, serial))
            if n % NOTED_PER_TURN == 0:
                await asyncio.sleep(0)
        plants: dict[str, None] = {}
        for n, (serial, state) in enumerate(updates.states.items(), 1):
            device = self._devices.setdefault(serial, _Device())
            device.state = state
            device.updates += 1
            if self._units.get(serial) is None:
                self._wanting[serial] = None
            plants |= dict.fromkeys(self._plants.note(state))
            if n % NOTED_PER_TURN == 0:
                await asyncio.sleep(0)
        # All that was noted is encoded below: a plant after its inverters.
        changed |= dict.fromkeys(updates.states) | plants
        events = [of for event in updates.events for of in (event, *self._joint.note(event))]
        done = list(updates.done)
        for command in updates.done:
            steps, wholes = self._joint.done(command)
            events += steps
            done += wholes
        for event in events:
            serial = event.command.serial
            if serial in self._devices:
                self._devices[serial].commands.note(event)
                for controls in self._controls(serial):
                    controls.note(event)
                changed |= dict.fromkeys((serial, self._plants.of(serial)))
        for command in done:
            for controls in self._controls(command.serial):
                controls.done(command)
            changed[command.serial] = None
        if self._may_give():
            self._wanted.set()
        for n, serial in enumerate([serial for serial in changed if serial in self._devices], 1):
            self._encode(listeners, serial)
            if n % YIELD_AFTER_DEVICES == 0:
                await asyncio.sleep(0)
        if self._writer is not None:
            for event in updates.events:  # now that registers show it, whoever waits for it may look
                self._writer.note(event)
            for command in updates.done:
                self._writer.done(command.id)

    def _controls(self, serial: str) -> Iterator[Settling]:
        return (controls for family in self._families if (controls := family.controls(serial)) is not None)

    def _withdraw(self, listeners: Listeners, serial: str) -> list[str]:
        """Take a device out. Returns the serials of plants that show something else without it."""
        if serial in self._devices:
            self._devices[serial].state = None
        self._wanting.pop(serial, None)
        place = self._units.get(serial)
        if place is not None:
            listeners.tables[place.nth].pop(place.unit, None)
        return self._plants.forget(serial)

    def _may_give(self) -> bool:
        """Return whether a device has no unit that may get one now."""
        if not self._wanting:
            return bool(self._left_out)
        again = bool(self._no_port) and self._context.clock.monotonic() >= self._port_again
        return again or not self._store_works or self._wanting.keys() != self._left_out

    async def _give_units(self, listeners: Listeners) -> None:
        """Give units to devices that have none, until cancelled: at once, and then again after a pause."""
        pause = GIVE_PAUSE
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            for n, serial in enumerate(await self._give(listeners), 1):
                self._encode(listeners, serial)
                if n % YIELD_AFTER_DEVICES == 0:
                    await asyncio.sleep(0)
            await asyncio.sleep(pause)
            pause = min(2 * pause, MAX_GIVE_PAUSE) if self._wanted.is_set() else GIVE_PAUSE

    async def _give(self, listeners: Listeners) -> list[str]:
        """Give units to devices that have none. Returns those that have got one."""
        wanting = list(self._wanting)
        if self._settings.ports is None:
            await self._open_ports(listeners, self._units.ports_for(wanting))
        try:
            left_out = await self._units.assign(wanting)
        except OSError as error:
            if self._store_works:
                self._context.log.error("units can't be stored, new devices wait for that", error=str(error))
            self._store_works = False
            left_out = wanting
        else:
            if not self._store_works:
                self._context.log.info("units can be stored again")
            self._store_works = True
        without = set(left_out)
        given = [serial for serial in wanting if serial not in without]
        for serial in given:
            self._wanting.pop(serial, None)
        # Who was withdrawn meanwhile wants no more.
        self._left_out = {serial for serial in left_out if serial in self._wanting}
        self._report_left_out()
        return given

    async def _open_ports(self, listeners: Listeners, needed: int) -> None:
        """Open ports until there are so many; where one can't be opened, later again."""
        if needed <= len(listeners.tables):
            self._no_port = ""
        elif not self._no_port or self._context.clock.monotonic() >= self._port_again:
            try:
                while len(listeners.tables) < min(needed, MAX_PORTS):
                    await listeners.add_port()
                    self._units.ports = len(listeners.tables)
                    self._context.log.info(_MORE_PORTS, ports=self._units.ports, first=listeners.port(0))
                    await asyncio.sleep(0)
            except OSError as error:
                self._no_port = str(error)
                self._port_again = self._context.clock.monotonic() + PORT_RETRY
            else:
                self._no_port = "" if needed <= MAX_PORTS else f"no bridge has more than {MAX_PORTS} ports"

    def _report_left_out(self) -> None:
        """Say how many devices have no unit: logged once, shown with the bridge and in `/readyz` until all have one."""
        count = len(self._left_out)
        if not count:
            self._context.report(up=True)
            self._context.settle(FindingCode.DEVICES_WITHOUT_UNIT, "")
            return
        ports = self._units.ports
        name = f"bridges.{self._context.name}.ports"
        why = f"{'one port has' if ports == 1 else f'{ports} ports have'} {ports * LAST_UNIT} units"
        remedy = f"raise `ports` ({name}), or leave it out: then there are as many as are needed"
        if not self._store_works:
            why, remedy = "the units' file can't be written", "see the log for why"
        elif self._no_port:
            why, remedy = self._no_port, f"keep the ports behind the first one free, or set {name} and `port`"
        self._context.find(
            FindingCode.DEVICES_WITHOUT_UNIT, "", f"{count} devices have no unit and are not served: {why}", remedy
        )
        self._context.report(up=True, detail=f"{count} devices have no unit: {why}; {remedy}")

    def _encode(self, listeners: Listeners, serial: str) -> None:
        device, place = self._devices[serial], self._units.get(serial)
        state = device.state
        if state is None or place is None:
            return
        state = self._plants.view(state)
        table = listeners.tables[place.nth]
        unit = table.get(place.unit)
        layouts = [(family, layout) for family in self._families if (layout := family.layout(state.device))]
        if unit is None or [image.layout for image in unit.images] != [layout for _, layout in layouts]:
            live = partial(self._live, device)
            unit = Unit(serial, [Image(serial, layout, live, family.controls(serial)) for family, layout in layouts])
        good = state.quality is Quality.GOOD
        common = {
            **device_fields(state, device.updates),
            **device.commands.fields(),
            **self._live(device),
            **lasting(state),
        }
        for (family, _), image in zip(layouts, unit.images, strict=True):
            image.show({**common, **family.fields(state)})
            image.closed = not good and self._settings.stale == "exception"
        table[place.unit] = unit

    def _live(self, device: _Device) -> Mapping[str, Value]:
        """Return what changes by itself, as of now."""
        now = self._context.clock.now()
        measured = unix(device.state.time) if device.state else None
        inverters = self._plants.inverters(device.state.device.serial) if device.state else ()
        left = [self._devices[serial].commands.reverting(now) for serial in inverters]
        return {
            "data.age": None if measured is None else max(0, (unix(now) or 0) - measured),
            "gateway.uptime": int(self._context.clock.monotonic() - self._started) % COUNTER,
            **device.commands.reverting(now),
            **soonest(left),
        }
