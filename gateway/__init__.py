"""SEMS gateway: GoodWe's SEMS cloud in MQTT topics and Modbus TCP registers, and setpoints back."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("sems-gateway")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"
