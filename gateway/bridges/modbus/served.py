"""What stands in a unit's registers now, for a person who looks: the bytes that a client reads, and what they mean."""

import struct

from gateway.api.served import Reading, ServedMap, ServedRegister
from gateway.bridges.modbus.codec import NUMERALS, Encoding, NotAValueError, WordOrder, decoder
from gateway.bridges.modbus.image import Image
from gateway.bridges.modbus.maps.row import Row
from gateway.bridges.modbus.registers import registers
from gateway.core.model import Quality, Value
from gateway.core.points import POINTS, Type


def map_of(image: Image, port: int, unit: int) -> ServedMap:
    """Return what a map is, and where clients find it."""
    layout = image.layout
    return ServedMap(
        map=layout.map.name, port=port, unit=unit, word_order=layout.order.value, registers=len(layout.map.rows)
    )


def registers_of(image: Image, quality: Quality) -> list[ServedRegister]:
    """Return each value of an image as a client would read it now, by address."""
    layout = image.layout
    if any(block.live for block in layout.map.blocks):
        image.refresh()
    rows = sorted(layout.map.rows, key=lambda row: row.address)
    found = []
    for row, line in zip(rows, registers(layout.map), strict=True):
        span = layout.spans[row.address]
        gated = span.gated and span.shut(row.address, row.count)
        measured = gated or (line.point in POINTS and row.address in layout.measured)
        raw = bytes(image.data[2 * row.address + span.shift : 2 * row.end + span.shift])
        closed = gated and image.closed
        value = None if closed else meaning(row, raw, layout.order)
        if closed:
            state = Reading.CLOSED
        elif value is None:
            state = Reading.ABSENT
        else:
            state = Reading.STALE if measured and quality is not Quality.GOOD else Reading.GOOD
        found.append(
            ServedRegister(
                address=row.address,
                holding=line.holding,
                count=row.count,
                type=line.type,
                point=line.point,
                unit=line.units,
                access=line.access,
                description=line.description,
                raw=None if closed else struct.unpack(f">{row.count}H", raw),
                value=value,
                state=state,
            )
        )
    return found


def meaning(row: Row, raw: bytes, order: WordOrder) -> Value:
    """Return what the bytes of a row say, in its unit; None for "not there"."""
    if row.encoding is Encoding.STRING:
        return raw.rstrip(b"\0").decode(errors="replace") or None
    decode = decoder(row.encoding, row.exponent, order, nullable=row.nullable, absent=not row.any_number)
    try:
        value = decode(raw)
    except NotAValueError:
        return None
    if row.codes and row.codes is not NUMERALS:
        return next((word for word, number in row.codes.items() if number == value), value)
    if row.point is not None and row.point.type is Type.BOOLEAN:
        return bool(value)
    return value
