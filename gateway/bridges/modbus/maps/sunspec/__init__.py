"""The `sunspec` map: SunSpec's models from register 40000 on. See docs/sunspec.md."""

from gateway.bridges.modbus.maps.sunspec.family import SunSpecFamily

__all__ = ["SunSpecFamily"]
