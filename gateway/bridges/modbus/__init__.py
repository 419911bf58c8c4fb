"""Modbus TCP: every device a unit, every point a register, setpoints writable."""

from gateway.bridges.modbus.bridge import ModbusBridge
from gateway.bridges.modbus.settings import ModbusSettings

__all__ = ["ModbusBridge", "ModbusSettings"]
