"""A map of a plug-in's: a table of registers, checked just as a CSV file is."""

from collections.abc import Mapping

from gateway.api.modbus import Register, RegisterTable
from gateway.bridges.modbus.codec import Encoding, WordOrder
from gateway.bridges.modbus.maps.custom import BadLineError, Line, in_order, layout_of, line_of
from gateway.bridges.modbus.maps.family import FixedFamily


class TableFamily(FixedFamily):
    """One that a plug-in has as a table."""

    def __init__(self, name: str, table: RegisterTable, order: WordOrder) -> None:
        """Check the table. Raises MapError that names each bad register as `map:number`, counted from 1."""
        super().__init__(layout_of(name, _lines(name, table), order))


def _lines(name: str, table: RegisterTable) -> list[Line]:
    """Return the registers by address. Raises MapError."""
    lines: list[Line] = []
    troubles: list[str] = []
    for number, register in enumerate(table.registers, 1):
        try:
            lines.append(line_of(number, _cells(register)))
        except BadLineError as error:
            troubles.append(f"{name}:{number}: {error}")
    return in_order(name, lines, troubles, empty="the map has no register")


def _cells(register: Register) -> Mapping[str, str]:
    return {
        "address": str(register.address),
        "point": register.point,
        "type": register.type,
        "scale": "" if register.type == Encoding.STRING else f"{register.scale:g}",
        "count": str(register.count or ""),
        "access": "RW" if register.writable else "R",
        "description": register.description,
        "unit": register.unit,
    }
