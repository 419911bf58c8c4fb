"""Units 0 and 255: the gateway itself (Modbus Messaging on TCP/IP V1.0b, §4.4.2). Read only, but for the halt."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import gateway
from gateway.api.bridge import Context
from gateway.bridges.modbus.codec import Encoding, WordOrder
from gateway.bridges.modbus.codes import REFUSALS, ExceptionCode
from gateway.bridges.modbus.fields import COUNTER, unix
from gateway.bridges.modbus.image import Image, Layout
from gateway.bridges.modbus.maps.row import Block, RegisterMap, Row
from gateway.bridges.modbus.settling import WriteRefusedError
from gateway.bridges.modbus.writes import setpoint_requests
from gateway.commands.policy.halt import HaltError
from gateway.core.model import Origin, Quality, Value

UNITS: Final = (0, 255)
VERSION: Final = 1
"""Counts up when the meaning of an address changes, not when one is added."""
HEARTBEAT: Final = 0xFFFF
"""The heartbeat starts again before this value, which would read as "not there"."""
BRIDGES, BRIDGE_ROWS, BRIDGE_SLOTS = 100, 20, 16
FAULT: Final = "fault"


HALTED: Final = "gateway.halted"
UINT16, UINT32, STRING = Encoding.UINT16, Encoding.UINT32, Encoding.STRING


def _bridges() -> Iterator[Row]:
    for n in range(BRIDGE_SLOTS):
        at, field = BRIDGES + BRIDGE_ROWS * n, f"gateway.bridge.{n}"
        yield Row(at, UINT16, f"{field}.up", f"Bridge {n + 1} by name: 0 down, 1 up")
        yield Row(at + 1, STRING, f"{field}.name", "Its name", length=16)


GATEWAY: Final = RegisterMap(
    "gateway",
    (
        Block(start=0, count=80, title="The gateway itself: units 0 and 255", live=True),
        Block(start=BRIDGES, count=BRIDGE_ROWS * BRIDGE_SLOTS, title="Its bridges: units 0 and 255", live=True),
    ),
    (
        Row(0, UINT16, "gateway.map_version", "Version of this map"),
        Row(1, UINT16, "gateway.heartbeat", "Counts up every second; after 65534 comes 0"),
        Row(2, UINT32, "gateway.uptime", "Seconds since this server started", unit="s"),
        Row(4, UINT32, "gateway.time", "The gateway's clock, Unix time (UTC)", unit="s"),
        Row(6, STRING, "gateway.version", "Version of sems-gateway", length=16),
        Row(22, STRING, "gateway.id", "Its name: `gateway.id`", length=32),
        Row(60, UINT16, "gateway.devices", "Devices it knows, plants among them"),
        Row(61, UINT16, "gateway.devices_good", "Those whose data are good"),
        Row(62, UINT16, "gateway.devices_stale", "Those whose data are stale"),
        Row(63, UINT16, "gateway.devices_offline", "Those that the cloud does not reach"),
        Row(64, UINT16, "gateway.devices_without_unit", "Those that have no unit here"),
        Row(65, UINT16, "gateway.alarms", "Devices whose status is fault"),
        Row(66, UINT16, "gateway.bridges_up", "Bridges that do their work"),
        Row(67, UINT16, "gateway.bridges_down", "Bridges that do not"),
        Row(68, UINT16, "gateway.connections", "Modbus connections open now, over all ports of this bridge"),
        Row(69, UINT16, "gateway.alarms_active", "Alarms that are active, of all devices"),
        Row(
            70,
            UINT16,
            "gateway.halted",
            "1 while control is halted; write 1 to halt, 0 to resume (where control.resume names this origin)",
            writable=True,
        ),
        Row(71, UINT32, "gateway.halted_since", "Since when, Unix time (UTC)", unit="s"),
        *_bridges(),
    ),
)
"""Addresses are 0-based. The first 16 bridges in the order of their names have a place each."""


class GatewayUnit:
    """The image behind units 0 and 255. Brought up to date by reads, at most once a second."""

    def __init__(
        self, context: Context, order: WordOrder, *, without_unit: Callable[[], int], connections: Callable[[], int]
    ) -> None:
        self._context = context
        self._without_unit = without_unit
        self._connections = connections
        self._started = context.clock.monotonic()
        self._shown_at = -1
        image = Image("", Layout(GATEWAY, order), self._news, act=self._act)
        image.show(
            {
                "gateway.map_version": VERSION,
                "gateway.version": gateway.__version__,
                "gateway.id": context.gateway_id,
                **self._news(),
            }
        )
        image.closed = False
        self.image: Final = image

    async def _act(self, address: int, payload: bytes, who: Origin) -> None:
        """Halt control, or resume it."""
        if len(payload) != 2:  # what is written back with others is not meant
            raise WriteRefusedError(ExceptionCode.ILLEGAL_DATA_ADDRESS, "it is written alone")
        (request,) = setpoint_requests(self.image, address, payload)
        if request.value not in (0, 1):
            raise WriteRefusedError(
                ExceptionCode.ILLEGAL_DATA_VALUE, f"1 halts control, 0 resumes it, not {request.value}"
            )
        try:
            if request.value:
                await self._context.halt(who, "by its Modbus register")
            else:
                await self._context.resume(who)
        except HaltError as error:
            raise WriteRefusedError(REFUSALS[error.reason], str(error)) from error

    def _news(self) -> Mapping[str, Value]:
        """Return what has changed; little within the same second, since counting devices takes time."""
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
