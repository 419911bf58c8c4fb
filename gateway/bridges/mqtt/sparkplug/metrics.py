"""Which metrics a device and the node have: names, types, properties. Property names are Ignition's for its tags."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Final

import msgspec

from gateway import __version__
from gateway.bridges.mqtt.sparkplug.payload import BD_SEQ, NODE_REBIRTH, Metric, Properties
from gateway.bridges.mqtt.sparkplug.schema import DataType
from gateway.core.model import BridgeStatus, CommandEvent, Device, DeviceState, Quality, Range, Value
from gateway.core.points import POINTS, Point, Type

GOOD: Final = 192
BAD: Final = 0
"""Sparkplug 3.0 §6.4.9.1."""
QUALITY: Final = "Quality"

_TYPES: Final = {
    Type.FLOAT: DataType.DOUBLE,
    Type.INTEGER: DataType.INT64,
    Type.BOOLEAN: DataType.BOOLEAN,
    Type.ENUM: DataType.STRING,
    Type.TEXT: DataType.STRING,
}
_PLAIN_TYPES: Final[dict[type, DataType]] = {
    bool: DataType.BOOLEAN,
    int: DataType.DOUBLE,
    float: DataType.DOUBLE,
    str: DataType.STRING,
}
"""For points that are in no table: those of a source from elsewhere."""


class Fate(msgspec.Struct, frozen=True):
    """Where the newest command for a setpoint stands."""

    id: str
    state: str
    reason: str
    detail: str
    time: datetime


def fate_of(event: CommandEvent) -> Fate:
    """Return what a step of a command says."""
    return Fate(event.command.id, event.state.value, event.reason or "", event.detail, event.time)


FATE_FIELDS: Final = ("id", "state", "reason", "detail")


def fate_name(setpoint: str, field: str) -> str:
    """Return the name of a metric that shows a command's fate."""
    # Not below the setpoint: a host makes a folder of it, and there is a tag of that name already.
    return f"command/{setpoint}/{field}"


def datatype_of(point: str, value: Value) -> DataType | None:
    """Return a point's data type; None while it is unknown."""
    row = POINTS.get(point)
    return _PLAIN_TYPES.get(type(value)) if row is None else _TYPES[row.type]


def of_device(
    state: DeviceState,
    seen: Mapping[str, DataType],
    permitted: Mapping[str, Range],
    fates: Mapping[str, Fate],
    now: datetime,
) -> Iterator[Metric]:
    """Return all metrics of a device: what it is, its values, its setpoints, and what became of commands.

    `seen` are points that it had before, with their types: they may come back.
    """
    device = state.device
    for name, value in _properties(device).items():
        yield Metric(f"Properties/{name}", DataType.DOUBLE if name == "Rated Power" else DataType.STRING, value, now)
    time = state.time or now
    for name in dict.fromkeys([*state.values, *permitted, *seen]):
        value = state.values.get(name)
        datatype = datatype_of(name, value) or seen.get(name)
        if datatype is not None:
            yield Metric(name, datatype, value, time, (*_of_point(name, permitted.get(name)), quality(value)))
    for setpoint in permitted:
        yield from of_fate(setpoint, fates.get(setpoint) or Fate("", "", "", "", now))


def of_fate(setpoint: str, fate: Fate, known: Fate | None = None) -> Iterator[Metric]:
    """Return the metrics of a command's fate, only those that differ from `known`."""
    for field in FATE_FIELDS:
        value = getattr(fate, field)
        if known is None or getattr(known, field) != value:
            yield Metric(fate_name(setpoint, field), DataType.STRING, value, fate.time)


def quality(value: Value) -> tuple[str, Value]:
    """Return the property that says whether there is a value."""
    return QUALITY, BAD if value is None else GOOD


def _properties(device: Device) -> dict[str, Value]:
    return {
        "Serial": device.serial,
        "Name": device.name,
        "Model": device.model,
        "Kind": device.kind.value,
        "Plant": device.plant,
        "Rated Power": device.rated_power,
    }


@lru_cache(maxsize=4096)
def _of_point(name: str, writable: Range | None) -> Properties:
    read_only = ("readOnly", writable is None)
    row = POINTS.get(name)
    return (read_only,) if row is None else (read_only, *_of_row(row, writable))


def _of_row(row: Point, writable: Range | None) -> Iterator[tuple[str, Value]]:
    low, high = (writable.low, writable.high) if writable else (row.low, row.high)
    found = {
        "engUnit": row.unit or None,
        "engLow": None if low is None else float(low),
        "engHigh": None if high is None else float(high),
        "documentation": row.description,
        "options": ", ".join(row.options) or None,
    }
    return ((name, value) for name, value in found.items() if value is not None)


def of_node(
    gateway_id: str,
    bd_seq: int,
    bridges: Sequence[BridgeStatus],
    devices: Counter[Quality],
    now: datetime,
    *,
    halted: bool = False,
) -> Iterator[Metric]:
    """Return all metrics of the node."""
    yield Metric(BD_SEQ, DataType.INT64, bd_seq, now)
    yield Metric(NODE_REBIRTH, DataType.BOOLEAN, value=False, time=now)
    for name, value in (("Software", "sems-gateway"), ("Software Version", __version__), ("Gateway", gateway_id)):
        yield Metric(f"Properties/{name}", DataType.STRING, value, now)
    yield from of_health(bridges, devices, now, halted=halted)


def of_health(
    bridges: Sequence[BridgeStatus], devices: Counter[Quality], now: datetime, *, halted: bool = False
) -> Iterator[Metric]:
    """Return how the gateway does."""
    yield Metric("halted", DataType.BOOLEAN, halted, now)
    for bridge in bridges:
        yield Metric(f"bridges/{bridge.name}/up", DataType.BOOLEAN, bridge.up, now)
        yield Metric(f"bridges/{bridge.name}/detail", DataType.STRING, bridge.detail, now)
    yield Metric("devices/total", DataType.INT64, devices.total(), now)
    for each in Quality:
        yield Metric(f"devices/{each.value}", DataType.INT64, devices[each], now)
