"""All listeners of a bridge: a range of ports for each line of the configuration, and the units behind each port."""

from collections.abc import Iterator, Mapping
from typing import Final

from gateway.bridges.modbus import tls
from gateway.bridges.modbus.diagnostics import identity
from gateway.bridges.modbus.image import Unit
from gateway.bridges.modbus.server import Counts, Gate, Listener, Refused, Write
from gateway.bridges.modbus.settings import Door, ModbusSettings
from gateway.bridges.modbus.units import LAST_UNIT, Place
from gateway.core.bridge import Context


class Listeners:
    """The n-th port of every range serves the same units."""

    def __init__(self, settings: ModbusSettings, context: Context, write: Write) -> None:
        self._settings = settings
        self._context = context
        self._write = write
        self.tables: Final[tuple[dict[int, Unit], ...]] = tuple({} for _ in range(settings.ports))
        """Unit → its registers, for each port of a range."""
        self._open: list[Listener] = []

    def __iter__(self) -> Iterator[Listener]:
        """Walk over those that are open, the bridge's own first."""
        return iter(self._open)

    @property
    def first(self) -> Listener:
        """The bridge's own, on its first port."""
        return self._open[0]

    @property
    def counts(self) -> Counts:
        """The sum of all."""
        return Counts(
            messages=sum(listener.counts.messages for listener in self._open),
            exceptions=sum(listener.counts.exceptions for listener in self._open),
            refused={reason: sum(listener.counts.refused[reason] for listener in self._open) for reason in Refused},
        )

    @property
    def served(self) -> Mapping[str, Place]:
        """Serial → place, of the devices served now."""
        return {
            unit.serial: Place(nth, number)
            for nth, table in enumerate(self.tables)
            for number, unit in table.items()
            if 1 <= number <= LAST_UNIT
        }

    def port(self, nth: int) -> int:
        """Return the n-th port of the bridge's own range, as it really is."""
        return self._open[nth].port

    async def start(self) -> None:
        """Open everything, or nothing. Raises OSError."""
        settings, context = self._settings, self._context
        try:
            for door in settings.doors:
                gate = self._gate(door)
                for nth in range(settings.ports):
                    listener = Listener(
                        context.name,
                        (door.host, door.port and door.port + nth),
                        units=self.tables[nth],
                        gate=gate,
                        write=self._write,
                        spawn=context.spawn,
                        log=context.log,
                        identity=identity(context.gateway_id),
                        setting=door.setting,
                    )
                    await listener.listen()
                    self._open.append(listener)
        except OSError:
            await self.stop()
            raise
        for listener in self._open:
            if settings.idle_timeout is not None:
                context.spawn(listener.expire(settings.idle_timeout), f"idle connections of {listener.label}")
            context.log.info(
                "listening",
                host=listener.label.rpartition(":")[0],
                port=listener.port,
                **({"tls": True} if listener.gate.tls else {}),
                **({"read_only": True} if listener.gate.read_only else {}),
            )

    async def stop(self) -> None:
        """Close all ports and connections."""
        while self._open:
            await self._open.pop().close_all()

    def _gate(self, door: Door) -> Gate:
        """Return who may do what. Raises TlsError, an OSError."""
        access, context = door.access, self._context
        made = tls.context(access.tls) if access.tls else None
        if access.tls is not None:
            for warning in tls.warnings(access.tls, context.clock.now()):
                context.log.warning("certificate", why=warning)
        return Gate(
            max_connections=self._settings.max_connections,
            read_only=access.read_only,
            allow=access.allow,
            tls=made,
            write_roles=access.tls.write_roles if access.tls else frozenset(),
            role=access.role or "",
        )
