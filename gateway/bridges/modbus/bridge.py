"""The bridge: what the router tells goes into images, what clients write becomes commands."""

import asyncio
from collections.abc import Mapping
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import Field, model_validator

from gateway.bridges.modbus.codec import WordOrder
from gateway.bridges.modbus.diagnostics import identity
from gateway.bridges.modbus.fields import COUNTER, CommandStatus, device_fields, unix
from gateway.bridges.modbus.image import Image, Layout
from gateway.bridges.modbus.maps.native import NATIVE
from gateway.bridges.modbus.server import Counts, Listener
from gateway.bridges.modbus.units import LAST_UNIT, UnitBook, units_path
from gateway.bridges.modbus.writes import Writer
from gateway.core.bridge import BridgeSettings, Context, Updates
from gateway.core.model import DeviceState, Quality, Value
from gateway.core.points import SETPOINTS

ENCODED_AT_ONCE: Final = 8
"""Devices between which reads get their turn: some tenths of a millisecond."""


class ModbusSettings(BridgeSettings):
    """`bridges.<name>` with `type: modbus`."""

    host: str = Field(default="127.0.0.1", description="address to listen on; 0.0.0.0 for all")
    port: int = Field(default=5020, ge=0, le=65535, description="0: any free one, named in the log")
    units: dict[str, Annotated[int, Field(ge=1, le=LAST_UNIT)]] = Field(
        default={}, description="serial number → unit, for devices that must have a certain one"
    )
    stale: Literal["exception", "sentinel"] = Field(
        default="exception",
        description="reads of measurements that are not good: exception 0x0B, or values that say 'not there'",
    )
    word_order: WordOrder = Field(default=WordOrder.ABCD, description="abcd: high word first; cdab: low word first")
    max_connections: int = Field(default=128, ge=1, description="clients at a time")
    idle_timeout: float | None = Field(
        default=300, gt=0, description="seconds after which a silent client is disconnected; null: never"
    )
    ttl: float = Field(default=60, gt=0, le=86400, description="seconds until an unsent write expires")

    @model_validator(mode="after")
    def _pins_differ(self) -> Self:
        owners: dict[int, str] = {}
        for serial, unit in self.units.items():
            other = owners.setdefault(unit, serial)
            if other != serial:
                raise ValueError(f"units: {unit} is given to both {other} and {serial}; each needs its own")
        return self


class _Device:
    """What the bridge keeps of one device while the process lives, over restarts of the bridge."""

    def __init__(self) -> None:
        self.state: DeviceState | None = None
        self.updates = 0
        self.commands = CommandStatus()


class ModbusBridge:
    """Every device a unit of one Modbus TCP server."""

    Settings: ClassVar[type[BridgeSettings]] = ModbusSettings

    def __init__(self, settings: ModbusSettings, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._layout = Layout(NATIVE, settings.word_order)
        self._units = UnitBook(units_path(context.data_dir, context.name), settings.units)
        self._devices: dict[str, _Device] = {}
        self._listener: Listener | None = None
        self._started = 0.0
        self._left_out: set[str] = set()
        self._wanting: dict[str, None] = {}
        """Serials of devices that have no unit yet, in the order they came."""
        self._store_works = True

    @property
    def port(self) -> int:
        """The port the server listens on; 0 while it does not."""
        return self._listener.port if self._listener else 0

    @property
    def units(self) -> Mapping[str, int]:
        """Serial → unit, of the devices served now."""
        return {image.serial: unit for unit, image in self._listener.images.items()} if self._listener else {}

    @property
    def left_out(self) -> frozenset[str]:
        """Serials of devices for which no unit was left, or could be stored."""
        return frozenset(self._left_out)

    @property
    def counts(self) -> Counts:
        """What the server has done since it started."""
        return self._listener.counts if self._listener else Counts()

    async def start(self) -> None:
        """Listen. Raises OSError where the port is taken, or the units' file can't be used."""
        self._units.load()
        self._left_out.clear()
        self._wanting.clear()
        for device in self._devices.values():
            device.state = None
        context, settings = self._context, self._settings
        writer = Writer(context.submit, context.clock, context.name, settings.ttl)
        listener = Listener(
            context.name,
            (settings.host, settings.port),
            write=writer.write,
            spawn=context.spawn,
            log=context.log,
            identity=identity(context.gateway_id),
            max_connections=settings.max_connections,
        )
        await listener.listen()
        self._listener = listener
        self._started = context.clock.monotonic()
        if settings.idle_timeout is not None:
            context.spawn(listener.expire(settings.idle_timeout), "idle connections")
        context.log.info("listening", host=settings.host, port=listener.port)

    async def stop(self) -> None:
        """Close the port and all connections."""
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.shutdown()  # type: ignore[no-untyped-call]

    async def deliver(self, updates: Updates) -> None:
        """Encode what has changed."""
        listener = self._listener
        if listener is None:
            return
        for serial in updates.removed:
            self._withdraw(listener, serial)
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
                changed[serial] = None
        changed |= dict.fromkeys(await self._give_units())
        for n, serial in enumerate(changed, 1):
            self._encode(listener, serial)
            if n % ENCODED_AT_ONCE == 0:
                await asyncio.sleep(0)

    def _withdraw(self, listener: Listener, serial: str) -> None:
        if serial in self._devices:
            self._devices[serial].state = None
        self._wanting.pop(serial, None)
        unit = self._units.get(serial)
        if unit is not None:
            listener.images.pop(unit, None)

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
        why = f"one port has {LAST_UNIT} units" if self._store_works else "the units' file can't be written"
        self._context.log.warning("devices without a unit", count=count, why=why)
        self._context.report(up=True, detail=f"{count} devices have no unit: {why}")

    def _encode(self, listener: Listener, serial: str) -> None:
        device, unit = self._devices[serial], self._units.get(serial)
        state = device.state
        if state is None or unit is None:
            return
        image = listener.images.get(unit)
        if image is None:
            image = Image(serial, self._layout, lambda: self._live(device))
        good = state.quality is Quality.GOOD
        image.show(
            {
                **device_fields(state, device.updates),
                **device.commands.fields(),
                **self._live(device),
                **self._values(state, hide=not good and self._settings.stale == "sentinel"),
            }
        )
        image.closed = not good and self._settings.stale == "exception"
        listener.images[unit] = image

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
