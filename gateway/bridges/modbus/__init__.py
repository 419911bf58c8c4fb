"""Modbus TCP: every device a unit, every point a register, setpoints writable."""

from typing import TYPE_CHECKING

from gateway.core.lazy import lazy

if TYPE_CHECKING:
    from gateway.bridges.modbus.bridge import ModbusBridge
    from gateway.bridges.modbus.settings import ModbusSettings

__all__ = ["ModbusBridge", "ModbusSettings"]
__getattr__ = lazy(__name__, ModbusBridge="bridge", ModbusSettings="settings")
