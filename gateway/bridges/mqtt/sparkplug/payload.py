"""Sparkplug payloads to bytes, and commands from bytes."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

import msgspec
from google.protobuf.message import DecodeError

from gateway.bridges.mqtt.sparkplug.schema import SIGNED_32, SIGNED_64, DataType, Payload, PropertySet
from gateway.core.model import Value

PAYLOAD_LIMIT: Final = 65_536
"""Bytes of a command."""
METRICS_LIMIT: Final = 100
"""Metrics of a command; a device has far fewer setpoints."""
NODE_REBIRTH: Final = "Node Control/Rebirth"
BD_SEQ: Final = "bdSeq"


Properties = tuple[tuple[str, Value], ...]
"""Names with what they are: text, number, or true or false."""


class Metric(msgspec.Struct, frozen=True):
    """One metric with its value at one time."""

    name: str
    datatype: DataType
    value: Value
    """None: null."""
    time: datetime
    properties: Properties = ()


class Written(msgspec.Struct, frozen=True):
    """A metric of a command, as it came: by name or by alias."""

    name: str | None
    alias: int | None
    value: Value


class CommandError(Exception):
    """A command that can't be read. The message says what is wrong with it."""


def milliseconds(moment: datetime) -> int:
    """Return a time as Sparkplug has it: milliseconds since 1970, UTC."""
    return int(moment.timestamp() * 1000)


def birth(
    now: datetime, seq: int, metrics: Iterable[Metric], alias: Callable[[str], int | None], *, described: bool = True
) -> bytes:
    """Return an NBIRTH or DBIRTH: each metric with name, alias, type and, where `described`, properties."""
    payload = _begin(now, seq)
    for metric in _in_order(metrics):
        message = _add(payload, metric, described=described)
        message.name = metric.name
        message.datatype = metric.datatype
        if (number := alias(metric.name)) is not None:
            message.alias = number
    return _bytes(payload)


def data(
    now: datetime, seq: int, metrics: Iterable[Metric], alias: Callable[[str], int | None], *, typed: bool = False
) -> bytes:
    """Return an NDATA or DDATA: each metric with its alias, no name, and its type only where `typed`."""
    payload = _begin(now, seq)
    for metric in _in_order(metrics):
        message = _add(payload, metric)
        if typed:
            message.datatype = metric.datatype
        if (number := alias(metric.name)) is not None:
            message.alias = number
    return _bytes(payload)


def device_death(now: datetime, seq: int) -> bytes:
    """Return a DDEATH."""
    return _bytes(_begin(now, seq))


def node_death(bd_seq: int) -> bytes:
    """Return an NDEATH: the bdSeq and nothing else, for it is written before anybody knows when [topics-ndeath-…]."""
    payload = Payload()
    payload.metrics.add(name=BD_SEQ, datatype=DataType.INT64, long_value=bd_seq)
    return _bytes(payload)


def read_command(raw: bytes) -> list[Written]:
    """Read an NCMD or DCMD. Raises CommandError."""
    if len(raw) > PAYLOAD_LIMIT:
        raise CommandError(f"the command has {len(raw)} bytes; at most {PAYLOAD_LIMIT} are read")
    try:
        metrics = Payload.FromString(raw).metrics
        if len(metrics) > METRICS_LIMIT:
            raise CommandError(f"the command has {len(metrics)} metrics; at most {METRICS_LIMIT} are read")
        return [_written(metric) for metric in metrics]
    except (DecodeError, ValueError) as error:
        raise CommandError(f"the command is no Sparkplug B payload: {error}") from None


def _begin(now: datetime, seq: int) -> Any:
    return Payload(timestamp=milliseconds(now), seq=seq)


def _bytes(payload: Any) -> bytes:
    encoded: bytes = payload.SerializeToString()
    return encoded


def _in_order(metrics: Iterable[Metric]) -> list[Metric]:
    # As [operational-behavior-data-publish-dbirth-order] demands.
    return sorted(metrics, key=lambda metric: metric.time)


def _add(payload: Any, metric: Metric, *, described: bool = True) -> Any:
    message = payload.metrics.add(timestamp=milliseconds(metric.time))
    _set(message, metric.datatype, metric.value)
    if metric.properties and described:
        message.properties.CopyFrom(_property_set(metric.properties))
    return message


@lru_cache(maxsize=4096)
def _property_set(properties: Properties) -> Any:
    # The same for every device of a kind; to build it anew takes most of the time of a birth.
    message = PropertySet()
    for key, value in properties:
        datatype = _PROPERTY_TYPES[type(value)]
        message.keys.append(key)
        _set(message.values.add(type=datatype), datatype, value)
    return message


def _text(value: Any) -> str:
    # What UTF-8 can't carry, protobuf refuses.
    return str(value).encode("utf-8", "replace").decode()


_PROPERTY_TYPES: Final[dict[type, DataType]] = {
    bool: DataType.BOOLEAN,
    int: DataType.INT32,
    float: DataType.DOUBLE,
    str: DataType.STRING,
}

_FIELDS: Final[dict[DataType, tuple[str, Callable[[Any], Any]]]] = {
    # Data type → field and how its value is written there (Sparkplug 3.0 §6.4.17).
    DataType.INT32: ("int_value", lambda value: int(value) & 0xFFFF_FFFF),
    DataType.INT64: ("long_value", lambda value: int(value) & 0xFFFF_FFFF_FFFF_FFFF),
    DataType.DOUBLE: ("double_value", float),
    DataType.BOOLEAN: ("boolean_value", bool),
    DataType.STRING: ("string_value", _text),
}


def _set(message: Any, datatype: DataType, value: Value) -> None:
    """Set the value; what the type can't hold is null, as what is not there."""
    field, convert = _FIELDS[datatype]
    with suppress(ValueError, OverflowError):
        if value is not None:
            setattr(message, field, convert(value))
            return
    message.is_null = True


def _written(metric: Any) -> Written:
    field = None if metric.is_null else metric.WhichOneof("value")
    value: Any = getattr(metric, field) if field else None
    if field == "int_value" and metric.datatype in SIGNED_32 and value >= 2**31:
        value -= 2**32
    if field == "long_value" and metric.datatype in SIGNED_64 and value >= 2**63:
        value -= 2**64
    if isinstance(value, bytes):
        raise CommandError("a metric of the command holds bytes, which no setpoint takes")
    return Written(metric.name or None, metric.alias if metric.HasField("alias") else None, value)
