"""Register maps of plug-ins: a table of rows over points.

An entry point of the group `sems_gateway.modbus_maps` names a `RegisterTable`; its name is then one that
`bridges.<name>.maps` takes. Rows are checked as those of a CSV file are, see docs/modbus.md.
"""

from collections.abc import Sequence

import msgspec


class Register(msgspec.Struct, frozen=True, kw_only=True):
    """One value, in one or more holding and input registers."""

    address: int
    """0-based, as on the wire."""
    point: str
    """A point's id, or a field of the gateway's own as `sems-gateway registers` prints it; empty: reserved."""
    type: str = "uint16"
    """uint16, int16, uint32, int32, uint64, acc32, acc64, float32 or string."""
    scale: float = 1
    """The register counts in steps of it, in the point's unit: a power of ten, e.g. 0.1."""
    count: int = 0
    """Registers; only text and what is reserved need it."""
    writable: bool = False
    """A write of it is a command; only for setpoints."""
    description: str = ""
    """Where the point does not say it."""
    unit: str = ""
    """Where the point does not say it."""


class RegisterTable(msgspec.Struct, frozen=True, kw_only=True):
    """A register map, the same for every device."""

    api_version: str
    """Of the API it was written for, e.g. "1.0"."""
    registers: Sequence[Register]
