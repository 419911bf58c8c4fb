"""The device and the registers that the demo's hints and its self-test use."""

import msgspec

from gateway.app import Gateway
from gateway.bridges.modbus import ModbusSettings, registers
from gateway.core.model import DeviceKind


class Example(msgspec.Struct, frozen=True):
    """Where one inverter is found."""

    serial: str
    unit: int
    limit: int
    """Register of its active power limit as float32, 0-based."""
    power: int
    """Register of its AC power as float32, 0-based."""


def example(gateway: Gateway) -> Example:
    """Return the first inverter by serial number."""
    serial = min(s.device.serial for s in gateway.router.states() if s.device.kind is not DeviceKind.PLANT)
    config = gateway.config
    name, settings = next((b.name, b.settings) for b in config.bridges if isinstance(b.settings, ModbusSettings))
    unit = registers.assigned_units(config.data_dir, name, settings)[serial]
    return Example(serial, unit, _float_register("active_power_limit"), _float_register("ac_power"))


def _float_register(point: str) -> int:
    return next(r.address for r in registers.registers() if r.point == point and r.type == "float32")
