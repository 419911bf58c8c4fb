"""The sunspec map as the bridge uses it."""

from collections.abc import Mapping
from typing import Final

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from gateway.bridges.modbus.codec import WordOrder
from gateway.bridges.modbus.image import Image, Layout
from gateway.bridges.modbus.maps.sunspec.control import Control
from gateway.bridges.modbus.maps.sunspec.controls import CONTROLS
from gateway.bridges.modbus.maps.sunspec.expressions import EXPRESSIONS, Expression
from gateway.bridges.modbus.maps.sunspec.facts import Facts, facts, fixed_fields
from gateway.bridges.modbus.maps.sunspec.latches import Latches
from gateway.bridges.modbus.maps.sunspec.layouts import NAME, models, register_map
from gateway.bridges.modbus.maps.sunspec.points import Model, own
from gateway.bridges.modbus.maps.sunspec.scales import scale_factors
from gateway.bridges.modbus.writes import Wish, wishes
from gateway.core.model import Command, CommandEvent, Device, DeviceState, Quality, Value
from gateway.core.points import SETPOINTS

EPOCH: Final = 946_684_800
"""Unix time at which model 122's Tms begins: the year 2000."""


class _Shape(msgspec.Struct, frozen=True):
    """All that devices have in common which share a layout."""

    layout: Layout
    expressions: Mapping[str, Expression]


class _Known(msgspec.Struct):
    """What is kept of one device."""

    device: Device
    facts: Facts
    fixed: Mapping[str, Value]
    shape: _Shape
    controls: tuple[Control, ...]
    latches: Latches
    setpoints: Mapping[str, Value] = {}
    """In force, as far as known."""


class SunSpecFamily:
    """Layouts by kind, phases, rated power and setpoints; values, expressions and latched controls."""

    class Options(BaseModel):
        """What may stand beside `map: sunspec`."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        as_float: bool = Field(
            default=False, description="inverters' measurements as floats (models 111, 113), not integers (101, 103)"
        )

    name: Final = NAME

    def __init__(self, order: WordOrder, *, as_float: bool = False) -> None:  # noqa: ARG002 - SunSpec's is fixed
        self._as_float = as_float
        self._shapes: dict[tuple[object, ...], _Shape] = {}
        self._known: dict[str, _Known] = {}

    def layout(self, device: Device) -> Layout:
        """See `Family.layout`."""
        return self._of(device).shape.layout

    def fields(self, state: DeviceState) -> Mapping[str, Value]:
        """See `Family.fields`."""
        known = self._of(state.device)
        known.setpoints = {point: value for point, value in state.values.items() if point in SETPOINTS}
        good = state.quality is Quality.GOOD
        # What is not measured now is in gated registers, or must read as "not implemented".
        values = state.values if good else known.setpoints
        known.latches.settle(known.controls, known.setpoints, known.facts)
        return {
            **known.fixed,
            **{field: expression(values) for field, expression in known.shape.expressions.items()},
            own("time"): int(state.time.timestamp()) - EPOCH if good and state.time else None,
            **known.latches.shown(known.controls, known.setpoints, known.facts),
        }

    def wishes(self, image: Image, address: int, payload: bytes) -> list[Wish]:
        """See `Family.wishes`."""
        written = _written(image, address, payload)
        known = self._known[image.serial]
        return known.latches.wishes(known.controls, known.setpoints, known.facts, written)

    def accepted(self, image: Image, address: int, payload: bytes, ids: Mapping[str, str]) -> None:
        """See `Latching.accepted`."""
        written = _written(image, address, payload)
        known = self._known[image.serial]
        known.latches.keep(known.controls, known.setpoints, known.facts, written, ids)
        image.amend(written)

    def note(self, event: CommandEvent) -> None:
        """See `Latching.note`."""
        known = self._known.get(event.command.serial)
        if known is not None:
            known.latches.note(event)

    def done(self, command: Command) -> None:
        """See `Latching.done`."""
        known = self._known.get(command.serial)
        if known is not None:
            known.latches.release(command)

    def _of(self, device: Device) -> _Known:
        known = self._known.get(device.serial)
        if known is None or known.device != device:
            latches = Latches() if known is None else known.latches
            known = self._known[device.serial] = self._describe(device, latches)
        return known

    def _describe(self, device: Device, latches: Latches) -> _Known:
        its_models = models(device, as_float=self._as_float)
        ids = tuple(own(str(model.id)) for model in its_models)
        controls = tuple(
            control
            for control in CONTROLS
            if control.needs
            and all(setpoint in device.setpoints for setpoint in control.needs)
            and all(register.startswith(tuple(f"{id_}." for id_ in ids)) for register in control.registers)
        )
        return _Known(
            device=device,
            facts=(ratings := facts(device)),
            fixed=fixed_fields(device, ratings),
            shape=self._shape(device, its_models, controls),
            controls=controls,
            latches=latches,
        )

    def _shape(self, device: Device, its_models: tuple[Model, ...], controls: tuple[Control, ...]) -> _Shape:
        scales = scale_factors(device)
        writable = frozenset(register for control in controls for register in control.registers)
        key = (tuple(model.id for model in its_models), tuple(scales.values()), writable)
        shape = self._shapes.get(key)
        if shape is None:
            layout = Layout(register_map(its_models, scales, writable), WordOrder.ABCD)
            expressions = {field: how for field, how in EXPRESSIONS.items() if field in layout.slots}
            shape = self._shapes[key] = _Shape(layout, expressions)
        return shape


def _written(image: Image, address: int, payload: bytes) -> dict[str, Value]:
    """Return the registers of a write, field → value. Raises WriteRefusedError."""
    return {wish.setpoint: wish.value for wish in wishes(image.layout, address, payload)}
