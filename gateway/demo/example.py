"""The device and the registers that the demo's hints and its self-test use."""

from collections.abc import Mapping
from typing import Final

import msgspec

from gateway.bridges.modbus import ModbusSettings, registers
from gateway.bridges.modbus.units import Place
from gateway.core.model import DeviceKind
from gateway.run.app import Gateway

INVERTERS: Final = (DeviceKind.INVERTER, DeviceKind.STORAGE)


class Example(msgspec.Struct, frozen=True):
    """Where one inverter is found, and the EV charger."""

    serial: str
    unit: int
    limit: int
    """Register of its active power limit as float32, 0-based."""
    power: int
    """Register of its AC power as float32, 0-based."""
    charger: str = ""
    """Serial number of an EV charger that takes commands; empty where there is none."""


def example(gateway: Gateway) -> Example:
    """Return the first inverter by serial number, and the first EV charger."""
    devices = [state.device for state in gateway.router.states()]
    serial = min(device.serial for device in devices if device.kind in INVERTERS)
    chargers = [device.serial for device in devices if "charging" in device.setpoints]
    unit = _places(gateway)[serial].unit
    limit, power = _float_register("active_power_limit"), _float_register("ac_power")
    return Example(serial, unit, limit, power, min(chargers, default=""))


def has_units(gateway: Gateway) -> bool:
    """Return whether every device can be reached over Modbus."""
    return {state.device.serial for state in gateway.router.states()} <= _places(gateway).keys()


def _places(gateway: Gateway) -> Mapping[str, Place]:
    config = gateway.config
    name, settings = next((b.name, b.settings) for b in config.bridges if isinstance(b.settings, ModbusSettings))
    return registers.assigned(config.data_dir, name, settings)


def _float_register(point: str) -> int:
    return next(r.address for r in registers.registers() if r.point == point and r.type == "float32")
