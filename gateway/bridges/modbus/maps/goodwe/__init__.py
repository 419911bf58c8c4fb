"""The addresses of GoodWe's own hybrid inverters, so that software made for them works with one in the cloud.

The facts (addresses, types, scales, signs) are those of GoodWe's ET family, as three public sources agree on
them: the decoder of the PyPI library `goodwe` 0.4.10 and the answers of real inverters among its tests; the
transcription of GoodWe's "Modbus protocol for energy storage inverters" in ioBroker/modbus-templates; evcc's
template `goodwe-hybrid`. What this map adds, and where it must differ, stands in docs/goodwe.md.
"""

from gateway.bridges.modbus.maps.goodwe.family import GoodweFamily

__all__ = ["GoodweFamily"]
