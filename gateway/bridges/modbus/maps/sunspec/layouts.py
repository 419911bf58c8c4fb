"""Which models a device has, and the register map that they make one after another.

SunSpec Device Information Model Specification V1.1, §6.2: "SunS", models from 40002 on, each with its ID and its
length, then the end model.
"""

from collections.abc import Mapping
from typing import Final

from gateway.bridges.modbus.codec import Encoding
from gateway.bridges.modbus.maps.row import Block, RegisterMap, Row
from gateway.bridges.modbus.maps.sunspec import basic, battery, der, inverter, meter, weather
from gateway.bridges.modbus.maps.sunspec.facts import is_single_phase
from gateway.bridges.modbus.maps.sunspec.points import ENCODINGS, Model, Pt, Type, own
from gateway.bridges.modbus.maps.sunspec.scales import Scale
from gateway.core.model import Device, DeviceKind
from gateway.core.points import POINTS

NAME: Final = "sunspec"
BASE: Final = 40_000
MARK: Final = 0x5375_6E53
"""SunS."""
END: Final = 0xFFFF

_INVERTER: Final = (
    basic.NAMEPLATE,
    basic.SETTINGS,
    basic.STATUS,
    basic.CONTROLS,
    inverter.MPPT,
    der.MEASUREMENTS,
    der.CAPACITY,
    der.ENTER_SERVICE,
    der.CONTROLS,
)
_BATTERY: Final = (der.STORAGE_CAPACITY, battery.BANK)
_AFTER_AC: Final[Mapping[DeviceKind, tuple[Model, ...]]] = {
    DeviceKind.INVERTER: _INVERTER,
    DeviceKind.STORAGE: (*_INVERTER, basic.STORAGE, *_BATTERY),
    DeviceKind.BATTERY: _BATTERY,
    DeviceKind.WEATHER_STATION: (weather.BASE, weather.IRRADIANCE, weather.MODULE_TEMPERATURE),
}
"""What follows model 1 and the AC measurements. SunSpec has no models for the kinds that are not here."""

_CONVERSIONS: Final[Mapping[tuple[str, str], int]] = {("kWh", "Wh"): 3, ("kWh", "WH"): 3, ("", "Pct"): 2}
"""The gateway's unit and SunSpec's → the power of ten to multiply by."""


def models(device: Device, *, as_float: bool) -> tuple[Model, ...]:
    """Return the models a device has. Depends on its kind, phases and nothing that may change."""
    return (basic.COMMON, *_ac(device, as_float), *_AFTER_AC.get(device.kind, ()))


def _ac(device: Device, as_float: bool) -> tuple[Model, ...]:
    single = is_single_phase(device)
    match device.kind:
        case DeviceKind.INVERTER | DeviceKind.STORAGE if as_float:
            return (inverter.SINGLE_PHASE_FLOAT if single else inverter.THREE_PHASE_FLOAT,)
        case DeviceKind.INVERTER | DeviceKind.STORAGE:
            return (inverter.SINGLE_PHASE if single else inverter.THREE_PHASE,)
        case DeviceKind.METER:
            return (meter.SINGLE_PHASE if single else meter.THREE_PHASE,)
        case DeviceKind.PLANT:
            return (meter.THREE_PHASE,)
        case _:
            return ()


def register_map(
    device_models: tuple[Model, ...], scales: Mapping[Scale, int], writable: frozenset[str]
) -> RegisterMap:
    """Return the map that these models make. `writable` are the fields that may be written."""
    rows = [_constant(BASE, Encoding.UINT32, "mark", MARK)]
    gates = []
    at = BASE + 2
    for model in device_models:
        end = at + 2 + model.length
        rows += (
            _constant(at, Encoding.UINT16, f"{model.id}.ID", model.id),
            _constant(at + 1, Encoding.UINT16, f"{model.id}.L", model.length),
            *_rows(model, at + 2, scales, writable),
        )
        if model.gate is not None:
            gates.append((at + model.gate, end))
        at = end
    rows += (_constant(at, Encoding.UINT16, "end.ID", END), _constant(at + 1, Encoding.UINT16, "end.L", 0))
    # One block, for clients read across the borders of models.
    block = Block(start=BASE, count=at + 2 - BASE, title="SunSpec", gated=bool(gates), gates=tuple(gates))
    return RegisterMap(NAME, (block,), tuple(rows))


def _rows(model: Model, at: int, scales: Mapping[Scale, int], writable: frozenset[str]) -> list[Row]:
    factors = {point.name: scales[point.scale] for point in model.points if point.scale is not None}
    rows = []
    seen: set[str] = set()
    for point in model.points:
        # A repeated group's points have the same names each time; nothing tells them apart but their place.
        field = point.shows or own(f"{model.id}.{point.name}" + (f"@{at}" if point.name in seen else ""))
        seen.add(point.name)
        constant = factors[point.name] if point.scale is not None else point.constant
        rows.append(
            Row(
                address=at,
                encoding=ENCODINGS[point.type],
                field=field,
                exponent=factors.get(point.sf, point.exponent) - _conversion(point),
                length=point.size,
                constant=constant,
                writable=field in writable,
                text=f"model {model.id}, {point.name}",
                unit=point.unit,
            )
        )
        at += point.registers
    return rows


def _conversion(point: Pt) -> int:
    known = POINTS.get(point.shows)
    return _CONVERSIONS.get((known.unit, point.unit), 0) if known and point.type is not Type.STRING else 0


def _constant(at: int, encoding: Encoding, name: str, value: int) -> Row:
    return Row(address=at, encoding=encoding, field=own(name), constant=value, text=name)
