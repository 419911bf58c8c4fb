"""What bridges can tell of themselves to one that shows it: registers that are served, and calls that are left."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol, runtime_checkable

import msgspec

from gateway.core.model import Value


class Reading(StrEnum):
    """How far what stands in a register may be trusted."""

    GOOD = "good"
    STALE = "stale"
    """A measurement of a device whose data are not good: what it was."""
    ABSENT = "absent"
    """It says "not there"."""
    CLOSED = "closed"
    """A read of it is refused, for the device's data are not good."""


class ServedMap(msgspec.Struct, frozen=True, kw_only=True):
    """A register map of one device, and where clients find it."""

    map: str
    port: int
    unit: int
    word_order: str
    registers: int
    """How many values it has; one may take several registers."""


class ServedRegister(msgspec.Struct, frozen=True, kw_only=True):
    """One value as a client would read it now."""

    address: int
    """0-based, as on the wire."""
    holding: int
    """The same in the 4xxxx notation."""
    count: int
    type: str
    point: str
    unit: str
    access: str
    """R or RW."""
    description: str
    raw: tuple[int, ...] | None
    """The registers' numbers; None where a read is refused."""
    value: Value
    """What they mean, in `unit`; None where they say "not there", or a read is refused."""
    state: Reading


@runtime_checkable
class RegisterServer(Protocol):
    """A bridge that serves devices as registers."""

    def register_maps(self, serial: str) -> Sequence[ServedMap]:
        """Return the maps under which a device is served now; none where it is not."""
        ...

    def served_registers(self, serial: str, map_: str) -> Sequence[ServedRegister]:
        """Return what stands in a map's registers now, by address; none where it is not served."""
        ...


class CallBudget(msgspec.Struct, frozen=True, kw_only=True):
    """What is left of the calls that one account may make."""

    account: str
    """Tells accounts apart: bridges that share one say the same. Not for showing."""
    per_hour: int
    used: int
    """Within the last hour, of every process that shares the account."""
    planned: int
    """Calls an hour that polling means to make."""
    left: int
    """How many may be made now, by the most urgent."""
    held: float
    """Seconds for which the far side lets nobody call; 0: it does."""


@runtime_checkable
class Budgeted(Protocol):
    """A bridge whose calls are limited."""

    def call_budget(self) -> CallBudget:
        """Return how its account stands."""
        ...
