"""Which models a device has, and the register map that they make one after another.

SunSpec Device Information Model Specification V1.1, §6.2: "SunS", models from 40002 on, each with its ID and its
length, then the end model.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from gateway.bridges.modbus.codec import Encoding
from gateway.bridges.modbus.lasting import is_lasting
from gateway.bridges.modbus.maps.row import Block, RegisterMap, Row
from gateway.bridges.modbus.maps.sunspec import basic, battery, der, inverter, meter, weather
from gateway.bridges.modbus.maps.sunspec.ac import FACTORS
from gateway.bridges.modbus.maps.sunspec.expressions import LASTING
from gateway.bridges.modbus.maps.sunspec.facts import Wiring, stores, wiring
from gateway.bridges.modbus.maps.sunspec.points import ENCODINGS, Model, Pt, Type, own
from gateway.bridges.modbus.maps.sunspec.scales import Scale
from gateway.core.model import Device, DeviceKind
from gateway.core.points import POINTS

NAME: Final = "sunspec"
BASE: Final = 40_000
MARK: Final = 0x5375_6E53
"""SunS."""
END: Final = 0xFFFF

_CONTROLLED: Final = (basic.NAMEPLATE, basic.SETTINGS, basic.STATUS, basic.CONTROLS)
_DER: Final = (der.MEASUREMENTS, der.CAPACITY, der.ENTER_SERVICE, der.CONTROLS)
_BATTERY: Final = (der.STORAGE_CAPACITY, battery.BANK)
_AFTER_AC: Final[Mapping[DeviceKind, tuple[Model, ...]]] = {
    DeviceKind.INVERTER: (*_CONTROLLED, inverter.MPPT, *_DER),
    DeviceKind.STORAGE: (*_CONTROLLED, inverter.HYBRID_MPPT, *_DER, basic.STORAGE, *_BATTERY),
    DeviceKind.BATTERY: _BATTERY,
    DeviceKind.WEATHER_STATION: (weather.BASE, weather.IRRADIANCE, weather.MODULE_TEMPERATURE),
}
"""What follows model 1 and the AC measurements. SunSpec has no models for the kinds that are not here."""
_FOR_OTHERS: Final = (*_CONTROLLED, *_DER)
"""What a fleet has beside, and a data logger or a plant when it takes setpoints for inverters. These two have no model
of inverters' measurements (101 to 103): who adds those up would count the same power twice."""
_INVERTERS: Final[Mapping[Wiring, tuple[Model, Model]]] = {
    Wiring.SINGLE: (inverter.SINGLE_PHASE, inverter.SINGLE_PHASE_FLOAT),
    Wiring.SPLIT: (inverter.SPLIT_PHASE, inverter.SPLIT_PHASE_FLOAT),
    Wiring.WYE: (inverter.THREE_PHASE, inverter.THREE_PHASE_FLOAT),
    Wiring.DELTA: (inverter.THREE_PHASE, inverter.THREE_PHASE_FLOAT),
}
_METERS: Final[Mapping[Wiring, tuple[Model, Model]]] = {
    Wiring.SINGLE: (meter.SINGLE_PHASE, meter.SINGLE_PHASE_FLOAT),
    Wiring.SPLIT: (meter.SPLIT_PHASE, meter.SPLIT_PHASE_FLOAT),
    Wiring.WYE: (meter.WYE, meter.WYE_FLOAT),
    Wiring.DELTA: (meter.DELTA, meter.DELTA_FLOAT),
}
"""How it is connected → its AC measurements, in integers and in floats."""

_CONVERSIONS: Final[Mapping[tuple[str, str], int]] = {("kWh", "Wh"): 3, ("kWh", "WH"): 3, ("", "Pct"): 2}
"""The gateway's unit and SunSpec's → the power of ten to multiply by."""


def models(device: Device, *, as_float: bool, wired: Wiring | None = None) -> tuple[Model, ...]:
    """Return the models a device has.

    Depends on its kind and phases, and of a logger or a plant on whether it takes setpoints, and has batteries.
    """
    after = _AFTER_AC.get(device.kind, ())
    is_fleet = device.kind is DeviceKind.FLEET
    if is_fleet or (device.setpoints and device.kind in {DeviceKind.DATA_LOGGER, DeviceKind.PLANT}):
        of_batteries = device.kind is not DeviceKind.DATA_LOGGER and stores(device)
        after = (*_FOR_OTHERS, *((basic.STORAGE, *_BATTERY) if of_batteries else ()))
    return (basic.COMMON, *_ac(device, as_float, wired), *after)


def _ac(device: Device, as_float: bool, wired: Wiring | None) -> tuple[Model, ...]:
    match device.kind:
        case DeviceKind.INVERTER | DeviceKind.STORAGE | DeviceKind.FLEET:
            choice = _INVERTERS
        case DeviceKind.METER | DeviceKind.PLANT:
            choice = _METERS
        case DeviceKind.DATA_LOGGER if device.setpoints:
            choice = _METERS
        case _:
            return ()
    return (choice[wired or wiring(device)][as_float],)


def register_map(
    device_models: tuple[Model, ...], scales: Mapping[Scale, int], writable: frozenset[str]
) -> RegisterMap:
    """Return the map that these models make. `writable` are the fields that may be written."""
    rows = [_constant(BASE, Encoding.UINT32, "mark", MARK)]
    gates: list[tuple[int, int]] = []
    at = BASE + 2
    for model in device_models:
        end = at + 2 + model.length
        rows += (
            _constant(at, Encoding.UINT16, f"{model.id}.ID", model.id),
            _constant(at + 1, Encoding.UINT16, f"{model.id}.L", model.length),
            *_rows(model, at + 2, scales, writable),
        )
        gates += _gates(model, at)
        at = end
    rows += (_constant(at, Encoding.UINT16, "end.ID", END), _constant(at + 1, Encoding.UINT16, "end.L", 0))
    # One block, for clients read across the borders of models.
    live = any(row.field.endswith(der.REVERTS_IN) for row in rows)
    count = at + 2 - BASE
    block = Block(start=BASE, count=count, title="SunSpec", gated=bool(gates), gates=tuple(gates), live=live)
    return RegisterMap(NAME, (block,), tuple(rows))


def _gates(model: Model, at: int) -> Iterator[tuple[int, int]]:
    """Yield what of a model at this address is not to be read while data are not good, each run of registers."""
    if model.gate is None:
        return
    start, here = at + model.gate, at + 2
    for point in model.points:
        if _stays(point) and here >= start:
            if here > start:
                yield start, here
            start = here + point.registers
        here += point.registers
    if here > start:
        yield start, here


def _stays(point: Pt) -> bool:
    """Return whether a point is as true while nothing is measured: a total, a state, what never changes."""
    fixed = point.scale is not None or point.constant is not None
    return fixed or point.shows in LASTING or point.shows == "data.status" or is_lasting(point.shows)


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
    unit = "" if point.shows in FACTORS else known.unit if known else None
    return _CONVERSIONS.get((unit, point.unit), 0) if unit is not None and point.type is not Type.STRING else 0


def _constant(at: int, encoding: Encoding, name: str, value: int) -> Row:
    return Row(address=at, encoding=encoding, field=own(name), constant=value, text=name)
