"""`fleets:` of the configuration."""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Final, Literal, Self

from pydantic import Field, model_validator

from gateway.api.bridge import BridgeSettings
from gateway.config.document import nearest
from gateway.config.settings import Settings
from gateway.core.model import FLEET, Device, DeviceKind

KINDS: Final = (DeviceKind.INVERTER, DeviceKind.STORAGE)
"""What can be a member."""
PREFIX: Final = f"{FLEET}:"
"""What the serial number of a fleet begins with."""


class Members(Settings):
    """`members:`. A device is one where it is named by all of these that are given."""

    devices: list[str] | None = Field(default=None, description='serial numbers or patterns, e.g. "9010*"')
    plants: list[str] | None = Field(default=None, description="ids, names or patterns of plants")
    kinds: list[Literal["inverter", "storage"]] | None = Field(
        default=None, description="inverter, storage; both where nothing is said"
    )

    @model_validator(mode="after")
    def _are_some(self) -> Self:
        if self.devices is None and self.plants is None and self.kinds is None:
            raise ValueError('say which devices: devices: ["*"] for all, or plants, or kinds')
        for name in self.devices or ():
            if name.startswith(PREFIX):
                raise ValueError(f"{name!r} is a fleet, and no fleet can be a member; name its devices, or its plants")
        return self

    def names(self, device: Device, plant_name: str) -> bool:
        """Return whether the device is a member. `plant_name` is that of its plant."""
        if device.kind not in (self.kinds or KINDS):
            return False
        if self.devices is not None and not _any(self.devices, device.serial):
            return False
        return self.plants is None or any(name and _any(self.plants, name) for name in (device.plant, plant_name))


class Fallback(Settings):
    """`fallback:`. What is done where whoever sets the target has fallen silent."""

    after: float = Field(gt=0, le=86_400, description="seconds without a target")
    value: float | Literal["none"] = Field(default="none", description="W that is fed in then; none: all are let go")


class FleetSettings(BridgeSettings):
    """One fleet."""

    members: Members = Field(description="which devices are shared out over")
    share: Literal["headroom", "rating", "soc", "equal"] = Field(
        default="headroom",
        description="by what the power is shared: room left, rated power, energy, or to each the same",
    )
    weights: dict[str, float] = Field(default={}, description="serial number → factor on its share")
    reserve_soc: float = Field(default=10, ge=0, le=100, description="% below which no battery is discharged")
    max_soc: float = Field(default=100, ge=0, le=100, description="% above which no battery is charged")
    ramp: float | None = Field(default=None, gt=0, description="% of the fleet's rated power a minute; null: at once")
    deadband: float = Field(default=0.5, gt=0, le=50, description="% of the target within which nothing is corrected")
    writes_per_day: int = Field(default=100, ge=1, description="writes that a member gets a day (UTC), at most")
    fallback: Fallback | None = Field(default=None, description="what is done where no target comes any more")

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if self.share == "soc" and self.members.kinds == ["inverter"]:
            raise ValueError("share: soc needs members with batteries; take kinds: [storage], or share: rating")
        if self.reserve_soc >= self.max_soc:
            raise ValueError(f"reserve_soc {self.reserve_soc:g} is not below max_soc {self.max_soc:g}")
        for serial, weight in self.weights.items():
            if weight <= 0:
                raise ValueError(f"the weight of {serial} is not above 0; take it out of members instead")
        return self

    def unknown(self, known: set[str]) -> Iterator[str]:
        """Yield what is wrong with serial numbers that are written out, where these are known."""
        written = [*(self.members.devices or ()), *self.weights]
        for serial in written:
            if known and not any(fnmatchcase(each, serial) for each in known):
                yield f"no device {serial!r} has been seen; {nearest(serial, sorted(known))}"


def _any(patterns: list[str], name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
