"""What other programs import: the registers that are served, in their own formats.

The rules of each, with their sources, are in tests/bridges/modbus/test_printed_rules.py.
"""

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

import msgspec

from gateway.bridges.modbus.codec import NUMBERS, Encoding
from gateway.bridges.modbus.registers import Line

MAX_REGISTERS, MAX_GAP = 125, 20
"""Of one read, and between what one read brings."""
POLL: Final = 30
"""Seconds between two reads: values change once a minute or so."""


class ExportError(ValueError):
    """These lines can't be exported so. The message says what to choose."""


class _Type(msgspec.Struct, frozen=True):
    """What the others call an encoding."""

    kepware: str
    ignition: str
    """Empty where its mapping has none."""
    telegraf: str
    home_assistant: str
    node_red: str
    """The method of a Node.js Buffer."""
    low: float = 0
    high: float = 1


_U16 = _Type("Word", "HoldingRegisterUInt16", "UINT16", "uint16", "readUInt16BE", 0, 0xFFFF)
_U32 = _Type("DWord", "HoldingRegisterUInt32", "UINT32", "uint32", "readUInt32BE", 0, 2**32 - 1)
_U64 = _Type("QWord", "HoldingRegisterUInt64", "UINT64", "uint64", "readBigUInt64BE", 0, 2**64 - 1)
_TYPES: Final[Mapping[str, _Type]] = {
    Encoding.UINT16: _U16,
    Encoding.INT16: _Type("Short", "HoldingRegister", "INT16", "int16", "readInt16BE", -(2**15), 2**15 - 1),
    Encoding.UINT32: _U32,
    Encoding.INT32: _Type("Long", "HoldingRegisterInt32", "INT32", "int32", "readInt32BE", -(2**31), 2**31 - 1),
    Encoding.UINT64: _U64,
    Encoding.ACC32: _U32,
    Encoding.ACC64: _U64,
    Encoding.FLOAT32: _Type("Float", "HoldingRegisterFloat", "FLOAT32", "float32", "readFloatBE"),
    Encoding.STRING: _Type("String", "", "STRING", "string", "toString"),
}
_CLASSES: Final[Mapping[str, str]] = {
    "W": "power", "var": "reactive_power", "VA": "apparent_power", "V": "voltage", "A": "current", "Hz": "frequency",
    "°C": "temperature", "kWh": "energy", "W/m²": "irradiance", "m/s": "wind_speed",
}  # fmt: skip
"""Unit → Home Assistant's device class."""
_RISING: Final = re.compile(r"energy_(today|month|year|total)$|_(import|export|charge|discharge|energy)_(today|total)$")


class _Tag(msgspec.Struct, frozen=True):
    """A line, with a name that no other line of its unit has."""

    line: Line
    name: str

    @property
    def point(self) -> str:
        """Its point, of letters, digits and underscores."""
        return _name(self.line.point)

    @property
    def type(self) -> _Type:
        return _TYPES[self.line.type]

    @property
    def scale(self) -> float:
        return float(self.line.scale or 1)

    @property
    def is_text(self) -> bool:
        return self.line.type == Encoding.STRING


Units = list[tuple[Line, list[_Tag]]]


def _units(lines: Iterable[Line]) -> Units:
    """Return the tags of each unit, beside one of its lines. A map's value is taken once, at its first address."""
    found: Units = []
    for _, group in groupby(sorted(lines, key=_place), key=_place):
        taken: set[tuple[str, str]] = set()
        names: set[str] = set()
        tags = []
        for line in group:
            if (line.map, line.point) in taken:
                continue
            taken.add((line.map, line.point))
            name = _name(line.point)
            name = f"{name}_{line.address}" if name in names else name
            names.add(name)
            tags.append(_Tag(line, name))
        found.append((tags[0].line, tags))
    return found


def _name(point: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]", "_", point)


def _place(line: Line) -> tuple[str, int, int]:
    return line.bridge, line.port or 0, line.unit or 0


def _kepware(lines: Sequence[Line], host: str) -> str:  # noqa: ARG001 - the device has it
    units = _units(lines)
    if len(units) != 1:
        raise ExportError(
            f"KEPServerEX imports the tags of one device, and here are {len(units)}; choose one with --unit or --device"
        )
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(KEPWARE)
    for tag in units[0][1]:
        line, type_ = tag.line, tag.type
        number = f"{400_001 + line.address:06d}"
        raw = (f"{type_.low:.0f}", f"{type_.high:.0f}")
        scaled = (f"{type_.low * tag.scale:.10g}", f"{type_.high * tag.scale:.10g}")
        linear = tag.scale != 1
        access = "R/W" if line.access == "RW" else "RO"
        address = f"{number}.{2 * line.count}H" if tag.is_text else number
        scaling = ("Linear", *raw, *scaled, "Double", 0, 0) if linear else ("",) * 8
        head = (tag.name, address, type_.kepware, 1, access, 1000 * POLL)
        table.writerow((*head, *scaling, line.units, line.description, 0 if linear else ""))
    return out.getvalue()


KEPWARE: Final = (
    "Tag Name", "Address", "Data Type", "Respect Data Type", "Client Access", "Scan Rate", "Scaling", "Raw Low",
    "Raw High", "Scaled Low", "Scaled High", "Scaled Data Type", "Clamp Low", "Clamp High", "Eng Units", "Description",
    "Negate Value",
)  # fmt: skip
MAX_PREFIX: Final = 12
"""Characters of Ignition's."""


def _ignition(lines: Sequence[Line], host: str) -> str:  # noqa: ARG001 - the device connection has it
    units = _units(lines)
    if len({line.port for line, _ in units}) > 1:
        raise ExportError("an Ignition device connection has one port; choose a bridge, a --unit or a --device")
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    # The base of the numbers behind the prefixes, instead of a header.
    table.writerow([10])
    for line, tags in units:
        for tag in tags:
            if tag.type.ignition:
                # The number behind the prefix is the 1-based address: a name of its own, that says where the value is.
                address = tag.line.address + 1
                prefix = f"{tag.point[: MAX_PREFIX - 1]}_"
                table.writerow((prefix, address, address, "false", line.unit, tag.type.ignition, address))
    return out.getvalue()


def _telegraf(lines: Sequence[Line], host: str) -> str:
    text = ["# Made by `sems-gateway registers --format telegraf`; see docs/modbus.md.\n"]
    units = _units(lines)
    for (bridge, port), group in groupby(units, key=lambda pair: (pair[0].bridge, pair[0].port)):
        text.append(
            f"\n[[inputs.modbus]]\n  name = {_quoted(f'{bridge}-{port}')}\n  controller = {_quoted(f'tcp://{host}:{port}')}\n"
            f'  timeout = "10s"\n  interval = "{POLL}s"\n  configuration_type = "request"\n'
        )
        for line, tags in group:
            for order, of_order in groupby(tags, key=lambda tag: tag.line.word_order):
                text.append(
                    f'\n  [[inputs.modbus.request]]\n    slave_id = {line.unit}\n    byte_order = "{order.upper()}"\n'
                    '    register = "holding"\n    optimization = "max_insert"\n'
                    f"    optimization_max_register_fill = {MAX_GAP}\n    fields = [\n"
                )
                text += (f"      {{ {_telegraf_field(tag)} }},\n" for tag in of_order)
                text.append(
                    f"    ]\n    [inputs.modbus.request.tags]\n      serial = {_quoted(line.serial)}\n"
                    f"      device = {_quoted(line.name)}\n      kind = {_quoted(line.kind)}\n"
                )
    return "".join(text)


def _telegraf_field(tag: _Tag) -> str:
    field = f'address = {tag.line.address}, name = "{tag.name}", type = "{tag.type.telegraf}"'
    if tag.is_text:
        return f"{field}, length = {tag.line.count}"
    whole = tag.scale == 1 and tag.line.type != Encoding.FLOAT32
    return field if whole else f'{field}, scale = {tag.scale!r}, output = "FLOAT64"'


def _home_assistant(lines: Sequence[Line], host: str) -> str:
    text = [
        "# Made by `sems-gateway registers --format home-assistant`, for configuration.yaml; see docs/modbus.md.\n",
        "modbus:\n",
    ]
    names: set[str] = set()
    for (bridge, port), group in groupby(_units(lines), key=lambda pair: (pair[0].bridge, pair[0].port)):
        text.append(
            f"  - name: {_quoted(f'{bridge}_{port}')}\n    type: tcp\n    host: {_quoted(host)}\n    port: {port}\n"
            "    sensors:\n"
        )
        for line, tags in group:
            for tag in tags:
                text += (
                    f"      {'- ' if n == 0 else '  '}{key}: {_quoted(value) if isinstance(value, str) else value}\n"
                    for n, (key, value) in enumerate(_sensor(line, tag, _sensor_name(line, tag, names)).items())
                )
    return "".join(text)


def _sensor_name(unit: Line, tag: _Tag, taken: set[str]) -> str:
    """Return a name that no other sensor has: Home Assistant leaves out the second one."""
    name = f"{unit.name or unit.serial} {tag.line.point}"
    if name in taken:
        name = f"{name} {unit.bridge}_{unit.port}_{unit.unit}_{tag.line.address}"
    taken.add(name)
    return name


def _sensor(unit: Line, tag: _Tag, name: str) -> dict[str, str | int | float]:
    line = tag.line
    sensor: dict[str, str | int | float] = {
        "name": name,
        "unique_id": f"sems_{unit.bridge}_{unit.port}_{unit.unit}_{line.address}",
        "device_address": unit.unit or 0,
        "address": line.address,
        "input_type": "holding",
        "data_type": tag.type.home_assistant,
        "scan_interval": POLL,
    }
    if tag.is_text:
        return sensor | {"count": line.count}
    if line.word_order == "cdab" and line.count > 1:
        sensor["swap"] = "word"
    decimals = max(0, -_exponent(tag.scale))
    if tag.scale != 1:
        sensor |= {"scale": tag.scale, "precision": decimals}
    if line.type == Encoding.FLOAT32:
        sensor["precision"] = 2 + decimals
    elif line.type not in (Encoding.ACC32, Encoding.ACC64):
        signed = tag.type.low < 0
        sensor["nan_value"] = int.from_bytes(NUMBERS[Encoding(line.type)].absent, "big", signed=signed)
    if line.units:
        sensor["unit_of_measurement"] = line.units
    device_class = _CLASSES.get(line.units)
    if device_class:
        sensor["device_class"] = device_class
        rising = device_class == "energy" and _RISING.search(line.point)
        if rising or device_class != "energy":
            sensor["state_class"] = "total_increasing" if rising else "measurement"
    return sensor


def _exponent(scale: float) -> int:
    return int(f"{scale:e}".partition("e")[2])


def _node_red(lines: Sequence[Line], host: str) -> str:
    nodes: list[dict[str, Any]] = [{"id": "sems-tab", "type": "tab", "label": "SEMS gateway"}]
    row = 0
    for (bridge, port), group in groupby(_units(lines), key=lambda pair: (pair[0].bridge, pair[0].port)):
        client = f"sems-{bridge}-{port}"
        nodes.append({**_CLIENT, "id": client, "name": f"{bridge} {port}", "tcpHost": host, "tcpPort": str(port)})
        for line, tags in group:
            for chunk in _chunks(tags):
                row += 1
                first = chunk[0].line.address
                id_ = f"{client}-{line.unit}-{first}"
                label = f"{line.name or line.serial} {first}"
                nodes += _read_nodes(id_, client, label, line, chunk, 60 * row)
    return msgspec.json.format(msgspec.json.encode(nodes), indent=1).decode() + "\n"


_CLIENT: Final[Mapping[str, Any]] = {
    "type": "modbus-client", "clienttype": "tcp", "bufferCommands": True, "stateLogEnabled": False,
    "queueLogEnabled": False, "failureLogEnabled": True, "tcpType": "DEFAULT", "unit_id": 1, "commandDelay": 1,
    "clientTimeout": 5000, "reconnectOnTimeout": True, "reconnectTimeout": 2000, "parallelUnitIdsAllowed": True,
}  # fmt: skip
_DECODE: Final = """// Words to values, by the registers of this map. "Not there" is left out.
const rows = %s;
const words = msg.payload;
const values = {};
for (const [name, at, count, read, scale, absent, swap] of rows) {
    const buffer = Buffer.alloc(2 * count);
    for (let n = 0; n < count; n++) buffer.writeUInt16BE(words[at + (swap ? count - 1 - n : n)], 2 * n);
    if (read === "toString") { values[name] = buffer.toString("utf8").replace(/\\0+$/, ""); continue; }
    if (buffer.toString("hex") === absent) continue;
    const number = Number(buffer[read](0));
    if (Number.isNaN(number)) continue;
    values[name] = scale < 1 ? number / Math.round(1 / scale) : number * scale;
}
msg.payload = values;
msg.topic = %s;
return msg;
"""


def _read_nodes(id_: str, client: str, label: str, unit: Line, chunk: list[_Tag], y: int) -> Iterator[dict[str, Any]]:
    first = chunk[0].line.address
    rows = [
        [
            tag.name,
            tag.line.address - first,
            tag.line.count,
            tag.type.node_red,
            tag.scale,
            "" if tag.is_text else NUMBERS[Encoding(tag.line.type)].absent.hex(),
            tag.line.word_order == "cdab" and not tag.is_text,
        ]
        for tag in chunk
    ]
    code = _DECODE % (msgspec.json.encode(rows).decode(), msgspec.json.encode(unit.serial or unit.kind).decode())
    yield {
        "id": f"{id_}-read", "type": "modbus-read", "z": "sems-tab", "name": label, "topic": "",
        "showStatusActivities": False, "logIOActivities": False, "showErrors": True, "showWarnings": True,
        "unitid": str(unit.unit), "dataType": "HoldingRegister", "adr": str(first),
        "quantity": str(chunk[-1].line.address + chunk[-1].line.count - first), "rate": str(POLL), "rateUnit": "s",
        "delayOnStart": False, "startDelayTime": "", "server": client, "useIOFile": False, "ioFile": "",
        "useIOForPayload": False, "emptyMsgOnFail": False, "x": 160, "y": y, "wires": [[f"{id_}-decode"], []],
    }  # fmt: skip
    yield {
        "id": f"{id_}-decode", "type": "function", "z": "sems-tab", "name": label, "func": code, "outputs": 1,
        "timeout": 0, "noerr": 0, "initialize": "", "finalize": "", "libs": [], "x": 420, "y": y,
        "wires": [[f"{id_}-show"]],
    }  # fmt: skip
    yield {
        "id": f"{id_}-show", "type": "debug", "z": "sems-tab", "name": label, "active": True, "tosidebar": True,
        "console": False, "tostatus": False, "complete": "payload", "targetType": "msg", "x": 660, "y": y, "wires": [],
    }  # fmt: skip


def _chunks(tags: list[_Tag]) -> Iterator[list[_Tag]]:
    """Yield tags that one read brings together, by address."""
    chunk: list[_Tag] = []
    for tag in sorted(tags, key=lambda tag: tag.line.address):
        start, end = tag.line.address, tag.line.address + tag.line.count
        if chunk:
            last = chunk[-1].line
            if end - chunk[0].line.address > MAX_REGISTERS or start - last.address - last.count > MAX_GAP:
                yield chunk
                chunk = []
        chunk.append(tag)
    if chunk:
        yield chunk


def _quoted(text: str) -> str:
    """Return text as TOML and YAML take it in double quotes: both do as JSON does."""
    return msgspec.json.encode(text).decode()


EXPORTS: Final[Mapping[str, Callable[[Sequence[Line], str], str]]] = {
    "kepware": _kepware,
    "ignition": _ignition,
    "telegraf": _telegraf,
    "node-red": _node_red,
    "home-assistant": _home_assistant,
}
"""Format → what makes a file of lines with a unit, for a gateway at this host. Raises ExportError."""
