"""The listener: pymodbus' TCP server, whose connections are ours."""

import asyncio
import errno
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

import msgspec
import structlog
from pymodbus.pdu.device import ModbusDeviceIdentification
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from gateway.bridges.modbus.connection import PULSES, Connection
from gateway.bridges.modbus.image import Image

_TROUBLE: Final = {
    errno.EADDRINUSE: (
        "port {port} on {host} is in use by another program; stop it or set bridges.{name}.port to another one"
    ),
    errno.EACCES: (
        "this user may not listen on port {port}; set bridges.{name}.port to 1024 or more, "
        "or give the program the right (CAP_NET_BIND_SERVICE)"
    ),
    errno.EADDRNOTAVAIL: "{host} is no address of this machine; set bridges.{name}.host to one, or to 0.0.0.0 for all",
}


class Write(Protocol):
    """Carries a write request out. Raises WriteRefusedError."""

    async def __call__(self, image: Image, peer: str, address: int, payload: bytes) -> None:
        """`peer` is `ip:port`; `payload` holds the registers from `address` on, big-endian."""
        ...


class Counts(msgspec.Struct):
    """What a listener has done since it was started."""

    messages: int = 0
    """Requests answered, exceptions among them."""
    exceptions: int = 0
    refused_connections: int = 0


class Listener(ModbusTcpServer):
    """Listens on one port. What it serves are `images`; who connects gets a `Connection`."""

    def __init__(
        self,
        name: str,
        address: tuple[str, int],
        *,
        write: Write,
        spawn: Callable[[Coroutine[Any, Any, None], str], None],
        log: structlog.stdlib.BoundLogger,
        identity: ModbusDeviceIdentification,
        max_connections: int,
    ) -> None:
        # pymodbus wants a datastore of its own; nobody asks it anything.
        unused = SimDevice(0, [SimData(0, values=0, datatype=DataType.REGISTERS)])
        super().__init__(unused, address=address, identity=identity)
        self.name = name
        self.images: dict[int, Image] = {}
        """Unit → its registers."""
        self.write = write
        self.spawn = spawn
        self.log = log
        self.max_connections = max_connections
        self.counts = Counts()
        self.pulse = 0
        """Counts up PULSES times in an idle time-out; a connection remembers when it was last heard."""
        self._full = False

    @property
    def port(self) -> int:
        """The port it really listens on."""
        return int(self.transport.sockets[0].getsockname()[1])  # type: ignore[attr-defined]

    async def listen(self) -> bool:
        """Begin to listen. Raises OSError that says what to do, where pymodbus would but log."""
        self.is_closing = False
        self.is_listener = True
        host, port = self.comm_params.source_address or ("", 0)
        try:
            self.transport = await self.call_create()
        except OSError as error:
            text = _TROUBLE.get(error.errno or 0, "can't listen on port {port} of {host} ({error})")
            raise OSError(text.format(host=host, port=port, name=self.name, error=error)) from error
        return True

    def callback_new_connection(self) -> Connection:
        """Return what will serve a client that has just connected."""
        return Connection(self)

    def admit(self) -> bool:
        """Return whether one more connection, already counted, may stay: there is room, and the port is open."""
        if self.transport is None:
            return False
        full = len(self.active_connections) > self.max_connections
        if full:
            self.counts.refused_connections += 1
        if full and not self._full:
            self.log.warning(
                "too many connections, further ones are closed at once",
                limit=self.max_connections,
                setting=f"bridges.{self.name}.max_connections",
            )
            self._full = True
        return not full

    def departed(self) -> None:
        """Note that a connection has ended."""
        if self._full and len(self.active_connections) < self.max_connections:
            self.log.info("connections are accepted again")
            self._full = False

    async def expire(self, idle_timeout: float) -> None:
        """Close connections that have not been heard for `idle_timeout` seconds, for ever."""
        while True:
            await asyncio.sleep(idle_timeout / PULSES)
            self.pulse += 1
            for connection in list(self.active_connections.values()):
                if isinstance(connection, Connection):
                    connection.close_if_idle()
