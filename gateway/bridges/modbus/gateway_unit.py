"""Units 0 and 255: the gateway itself (Modbus Messaging on TCP/IP V1.0b, §4.4.2). Read only, but for the halt."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

import gateway
from gateway.bridges.modbus.codec import Encoding, WordOrder
from gateway.bridges.modbus.codes import REFUSALS, ExceptionCode
from gateway.bridges.modbus.fields import COUNTER, unix
from gateway.bridges.modbus.image import Image, Layout, Unit
from gateway.bridges.modbus.maps.row import Block, RegisterMap, Row
from gateway.bridges.modbus.writes import Wish, WriteRefusedError, wishes
from gateway.core.bridge import Context
from gateway.core.model import Device, DeviceState, Quality, Value
from gateway.core.policy.halt import HaltError

UNITS: Final = (0, 255)
VERSION: Final = 1
"""Counts up when the meaning of an address changes, not when one is added."""
HEARTBEAT: Final = 0xFFFF
"""The heartbeat starts again before this value, which would read as "not there"."""
BRIDGES, BRIDGE_ROWS, BRIDGE_SLOTS = 100, 20, 16
FAULT: Final = "fault"


HALTED: Final = "gateway.halted"


def _row(
    address: int, encoding: Encoding, field: str, text: str, length: int = 0, unit: str = "", *, writable: bool = False
) -> Row:
    return Row(
        address=address,
        encoding=encoding,
        field=f"gateway.{field}",
        text=text,
        length=length,
        unit=unit,
        writable=writable,
    )


def _bridges() -> list[Row]:
    return [
        row
        for n in range(BRIDGE_SLOTS)
        for address in (BRIDGES + BRIDGE_ROWS * n,)
        for row in (
            _row(address, Encoding.UINT16, f"bridge.{n}.up", f"Bridge {n + 1} by name: 0 down, 1 up"),
            _row(address + 1, Encoding.STRING, f"bridge.{n}.name", "Its name", 16),
        )
    ]


GATEWAY: Final = RegisterMap(
    "gateway",
    (
        Block(start=0, count=80, title="The gateway itself: units 0 and 255", live=True),
        Block(start=BRIDGES, count=BRIDGE_ROWS * BRIDGE_SLOTS, title="Its bridges: units 0 and 255", live=True),
    ),
    (
        _row(0, Encoding.UINT16, "map_version", "Version of this map"),
        _row(1, Encoding.UINT16, "heartbeat", "Counts up every second; after 65534 comes 0"),
        _row(2, Encoding.UINT32, "uptime", "Seconds since this server started", unit="s"),
        _row(4, Encoding.UINT32, "time", "The gateway's clock, Unix time (UTC)", unit="s"),
        _row(6, Encoding.STRING, "version", "Version of sems-gateway", 16),
        _row(22, Encoding.STRING, "id", "Its name: `gateway.id`", 32),
        _row(60, Encoding.UINT16, "devices", "Devices it knows, plants among them"),
        _row(61, Encoding.UINT16, "devices_good", "Those whose data are good"),
        _row(62, Encoding.UINT16, "devices_stale", "Those whose data are stale"),
        _row(63, Encoding.UINT16, "devices_offline", "Those that the cloud does not hear"),
        _row(64, Encoding.UINT16, "devices_without_unit", "Those that have no unit here"),
        _row(65, Encoding.UINT16, "alarms", "Devices whose status is fault"),
        _row(66, Encoding.UINT16, "bridges_up", "Bridges that do their work"),
        _row(67, Encoding.UINT16, "bridges_down", "Bridges that do not"),
        _row(68, Encoding.UINT16, "connections", "Modbus connections open now, over all ports of this bridge"),
        _row(69, Encoding.UINT16, "alarms_active", "Alarms that are active, of all devices"),
        _row(
            70,
            Encoding.UINT16,
            "halted",
            "1 while control is halted; write 1 to halt, 0 to resume (where control.resume names this origin)",
            writable=True,
        ),
        _row(71, Encoding.UINT32, "halted_since", "Since when, Unix time (UTC)", unit="s"),
        *_bridges(),
    ),
)
"""Addresses are 0-based. The first 16 bridges in the order of their names have a place each."""


class GatewayUnit:
    """The image behind units 0 and 255. Brought up to date by reads, at most once a second."""

    name: Final = GATEWAY.name

    def __init__(
        self, context: Context, order: WordOrder, *, without_unit: Callable[[], int], connections: Callable[[], int]
    ) -> None:
        self._context = context
        self._without_unit = without_unit
        self._connections = connections
        self._started = context.clock.monotonic()
        self._shown_at = -1
        self._layout = Layout(GATEWAY, order)
        image = Image("", self, self._layout, self._news)
        image.show(
            {
                "gateway.map_version": VERSION,
                "gateway.version": gateway.__version__,
                "gateway.id": context.gateway_id,
                **self._news(),
            }
        )
        image.closed = False
        self.unit: Final = Unit("", [image])

    def layout(self, device: Device) -> Layout:  # noqa: ARG002 - it has one
        """See `Family.layout`."""
        return self._layout

    def fields(self, state: DeviceState) -> Mapping[str, Value]:  # noqa: ARG002
        """See `Family.fields`."""
        return {}

    def wishes(self, image: Image, address: int, payload: bytes) -> list[Wish]:
        """See `Family.wishes`."""
        return wishes(image.layout, address, payload)

    async def act(self, image: Image, address: int, payload: bytes, who: str) -> None:
        """Halt control, or resume it. See `writes.Acting`."""
        (wish,) = self.wishes(image, address, payload)
        if wish.value not in (0, 1):
            raise WriteRefusedError(
                ExceptionCode.ILLEGAL_DATA_VALUE, f"1 halts control, 0 resumes it, not {wish.value}"
            )
        try:
            if wish.value:
                await self._context.halt(who, "by its Modbus register")
            else:
                await self._context.resume(who)
        except HaltError as error:
            raise WriteRefusedError(REFUSALS[error.reason], str(error)) from error

    def _news(self) -> Mapping[str, Value]:
        """Return what has changed; little within the same second, for to count devices takes time."""
        second = int(self._context.clock.monotonic() - self._started)
        halted = self._context.halted
        halt: dict[str, Value] = {
            HALTED: int(halted is not None),
            "gateway.halted_since": unix(halted.since) if halted else None,
        }
        if second == self._shown_at:
            return halt
        self._shown_at = second
        states = self._context.states()
        by_quality = Counter(state.quality for state in states)
        bridges = sorted(self._context.bridges(), key=lambda status: status.name)
        up = sum(status.up for status in bridges)
        news: dict[str, Value] = halt | {
            "gateway.heartbeat": second % HEARTBEAT,
            "gateway.uptime": second % COUNTER,
            "gateway.time": unix(self._context.clock.now()),
            "gateway.devices": len(states),
            **{f"gateway.devices_{quality}": by_quality[quality] for quality in Quality},
            "gateway.devices_without_unit": self._without_unit(),
            "gateway.alarms": sum(state.values.get("status") == FAULT for state in states),
            "gateway.alarms_active": len(self._context.active_alarms()),
            "gateway.bridges_up": up,
            "gateway.bridges_down": len(bridges) - up,
            "gateway.connections": self._connections(),
        }
        for n in range(BRIDGE_SLOTS):
            status = bridges[n] if n < len(bridges) else None
            news[f"gateway.bridge.{n}.up"] = None if status is None else int(status.up)
            news[f"gateway.bridge.{n}.name"] = None if status is None else status.name
        return news
