"""The sunspec map as the bridge uses it."""

from collections.abc import Mapping
from typing import Final, Literal

import msgspec
from pydantic import Field

from gateway.bridges.modbus.codec import WordOrder
from gateway.bridges.modbus.image import Layout
from gateway.bridges.modbus.lasting import lasting
from gateway.bridges.modbus.maps.family import Family
from gateway.bridges.modbus.maps.sunspec.ac import AT_THE_METER, SIGNS
from gateway.bridges.modbus.maps.sunspec.control import Control
from gateway.bridges.modbus.maps.sunspec.controls import controls
from gateway.bridges.modbus.maps.sunspec.expressions import CHARGE_CAPACITY, EXPRESSIONS, RATED, Expression
from gateway.bridges.modbus.maps.sunspec.facts import Facts, Wiring, facts, fixed_fields
from gateway.bridges.modbus.maps.sunspec.latches import Latches
from gateway.bridges.modbus.maps.sunspec.layouts import NAME, models, register_map
from gateway.bridges.modbus.maps.sunspec.nominal import Fleet, Nominal
from gateway.bridges.modbus.maps.sunspec.points import Model, own
from gateway.bridges.modbus.maps.sunspec.scales import Scale, scale_factors
from gateway.bridges.modbus.plants import PlantState
from gateway.config.settings import Settings
from gateway.core.model import Device, DeviceKind, DeviceState, Quality, Value
from gateway.core.points import SETPOINTS

EPOCH: Final = 946_684_800
"""Unix time at which model 122's Tms begins: the year 2000."""


class _Shape(msgspec.Struct, frozen=True):
    """All that devices have in common which share a layout."""

    layout: Layout
    expressions: Mapping[str, Expression]


_SHAPES: Final[dict[tuple[object, ...], _Shape]] = {}
"""All that were needed so far: they are few, and each takes milliseconds."""


class _Known(msgspec.Struct):
    """What is kept of one device."""

    device: Device
    rated: float | None
    """By others, W: see `Fleet.rated`."""
    facts: Facts
    fixed: Mapping[str, Value]
    shape: _Shape
    latches: Latches
    nominal: Nominal


class SunSpecFamily(Family):
    """Layouts by kind, phases, rated power and setpoints; values, expressions and latched controls."""

    class Options(Settings):
        """What may stand beside `map: sunspec`."""

        as_float: bool = Field(
            default=False,
            description="measurements of inverters and meters as floats (models 111 to 113, 211 to 214), "
            "not integers (101 to 103, 201 to 204)",
        )
        power_factor: Literal["eei", "iec"] = Field(
            default="eei",
            description="sign of power factors in models 101 to 123 and 201 to 214: `eei`, as SunSpec has it (< 0 "
            "over-excited while feeding in), or `iec` (measured: that of the active power; set: > 0 over-excited)",
        )
        wiring: dict[str, Wiring] = Field(
            default_factory=dict,
            description="serial: single, split, wye or delta, for devices whose model does not say it",
        )

        hold: Literal["refuse", "idle"] = Field(
            default="refuse",
            description="model 124, a limit of 0 % in one direction, which the cloud has not: refuse it, or have the "
            "battery stand still",
        )

    def __init__(
        self,
        order: WordOrder,  # noqa: ARG002 - SunSpec's is fixed
        *,
        as_float: bool = False,
        power_factor: Literal["eei", "iec"] = "eei",
        wiring: Mapping[str, Wiring] | None = None,
        hold: Literal["refuse", "idle"] = "refuse",
    ) -> None:
        self.name = NAME
        self._as_float = as_float
        self._sign = power_factor
        self._wiring = wiring or {}
        self._fleet = Fleet()
        self._of_devices = controls(hold=hold == "idle")
        self._of_plants = tuple(control.of_plant() for control in self._of_devices)
        self._known: dict[str, _Known] = {}

    def layout(self, device: Device) -> Layout:
        """See `Family.layout`."""
        return self._of(device).shape.layout

    def fields(self, state: DeviceState) -> Mapping[str, Value]:
        """See `Family.fields`."""
        known = self._of(state.device)
        good = state.quality is Quality.GOOD
        if good:
            self._fleet.learn(state)
            known.nominal.learn(state.values)
        capacity = known.nominal.charge_capacity
        # What is not measured now is in gated registers, or must read as "not implemented".
        its = {**lasting(state), RATED: known.facts.rated, CHARGE_CAPACITY: capacity}
        # What a plant does not say itself is there of its inverters: but that is no power of its grid connection.
        added = _missing(state) if good and isinstance(state, PlantState) else {}
        made = {**its, **added}
        known.latches.learn({point: value for point, value in state.values.items() if point in SETPOINTS})
        return {
            **known.fixed,
            **known.nominal.fields(known.facts),
            **added,
            **{
                field: expression(its if field in AT_THE_METER else made)
                for field, expression in known.shape.expressions.items()
            },
            own("time"): int(state.time.timestamp()) - EPOCH if good and state.time else None,
            **known.latches.shown(),
        }

    def controls(self, serial: str) -> Latches | None:
        """See `Family.controls`."""
        known = self._known.get(serial)
        return known.latches if known is not None else None

    def _of(self, device: Device) -> _Known:
        known = self._known.get(device.serial)
        rated = self._fleet.rated(device)
        if known is None or known.device != device or known.rated != rated:
            kept = (Latches(), Nominal()) if known is None else (known.latches, known.nominal)
            known = self._known[device.serial] = self._describe(device, rated, *kept)
        return known

    def _describe(self, device: Device, rated: float | None, latches: Latches, nominal: Nominal) -> _Known:
        wired = self._wiring.get(device.serial)
        its_models = models(device, as_float=self._as_float, wired=wired)
        ids = tuple(own(str(model.id)) for model in its_models)
        taken = tuple(
            control
            for control in (self._of_plants if device.kind is DeviceKind.PLANT else self._of_devices)
            if control.needs
            and all(setpoint in device.setpoints for setpoint in control.needs)
            and all(register.startswith(tuple(f"{id_}." for id_ in ids)) for register in control.registers)
        )
        ratings = facts(device, rated, wired=wired, eei=self._sign == "eei")
        latches.describe(taken, ratings)
        return _Known(
            device=device,
            rated=rated,
            facts=ratings,
            fixed=fixed_fields(device, ratings),
            shape=self._shape(scale_factors(device, rated, ratings.most), its_models, taken),
            latches=latches,
            nominal=nominal,
        )

    def _shape(
        self, scales: Mapping[Scale, int], its_models: tuple[Model, ...], controls: tuple[Control, ...]
    ) -> _Shape:
        writable = frozenset(register for control in controls for register in control.registers)
        # The models are there once, and an ID alone does not tell 160 of a hybrid from that of an inverter.
        key = (self._sign, tuple(map(id, its_models)), tuple(scales.values()), writable)
        shape = _SHAPES.get(key)
        if shape is None:
            layout = Layout(register_map(its_models, scales, writable), WordOrder.ABCD)
            every = {**EXPRESSIONS, **SIGNS[self._sign]}
            expressions = {field: how for field, how in every.items() if field in layout.slots}
            shape = _SHAPES[key] = _Shape(layout, expressions)
        return shape


def _missing(state: PlantState) -> dict[str, Value]:
    """Return what a plant's inverters measure together and the plant does not say."""
    return {point: value for point, value in state.added.items() if state.values.get(point) is None}
