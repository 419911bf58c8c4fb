"""`control:` of the configuration: who may set what, of which device, how far, how fast and how often."""

import fnmatch
import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from gateway.config.document import nearest
from gateway.core import origins
from gateway.core.model import Device, DeviceKind, Range
from gateway.core.points import SETPOINTS, Point, Type
from gateway.core.verdict import Unmet

NUMBERS: Final = (Type.FLOAT, Type.INTEGER)
_OF_NUMBERS: Final = ("min", "max", "step", "ramp")


def _setpoint(name: str) -> str:
    if not fnmatch.filter(SETPOINTS, name):
        begun = [known for known in SETPOINTS if name and known.startswith(name)]
        hint = f"did you mean {begun[0]!r}?" if begun else nearest(name, SETPOINTS)
        raise ValueError(f"there is no setpoint {name!r}; {hint}")
    return name


def _kind(raw: str) -> str:
    kinds = [kind.value for kind in DeviceKind]
    if not fnmatch.filter(kinds, raw):
        raise ValueError(f"there is no kind of device {raw!r}; {nearest(raw, kinds)}")
    return raw


class Rule(BaseModel):
    """One line of `control.allow`: it lets these origins write these setpoints of these devices.

    A device must be among `devices`, `plants` and `kinds`, as far as they are given.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    devices: list[str] | None = Field(default=None, description='serial numbers or patterns; ["*"] for all')
    plants: list[str] | None = Field(
        default=None, description="ids, names or patterns of plants: these and all devices of theirs"
    )
    kinds: list[Annotated[str, AfterValidator(_kind)]] | None = Field(
        default=None, description="kinds of devices, or patterns, e.g. inverter, storage, ev_charger"
    )
    setpoints: list[Annotated[str, AfterValidator(_setpoint)]] = Field(
        description='setpoint ids or patterns, e.g. battery_*; ["*"] for all'
    )
    origins: list[str] = Field(
        default=["*"], description="bridges, or <bridge>/<role>, or patterns; cli is the terminal"
    )
    min: float | None = Field(default=None, description="lowest value, in the setpoint's unit")
    max: float | None = Field(default=None, description="highest value, in the setpoint's unit")
    step: float | None = Field(default=None, gt=0, description="only multiples of this, in the setpoint's unit")
    ramp: float | None = Field(
        default=None, gt=0, description="how far the value may move within any minute, in the setpoint's unit"
    )

    @model_validator(mode="after")
    def _says_which_devices(self) -> Self:
        if self.devices is None and self.plants is None and self.kinds is None:
            raise ValueError('say which devices: devices: ["*"] for all, or plants, or kinds')
        return self

    @model_validator(mode="after")
    def _limits_fit(self) -> Self:
        given = [name for name in _OF_NUMBERS if getattr(self, name) is not None]
        if not given:
            return self
        if len(self.setpoints) != 1 or self.setpoints[0] not in SETPOINTS:
            raise ValueError(f"with {_list(given)}, a rule takes one setpoint; write one rule for each")
        if {"step", "ramp"} & set(given) and SETPOINTS[self.setpoints[0]].type not in NUMBERS:
            raise ValueError(f"{self.setpoints[0]} is no number; take out {_list(given)}")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        if self.step is not None:
            for name, bound in (("min", self.min), ("max", self.max)):
                if bound is not None and not on_step(bound, self.step):
                    raise ValueError(f"{name} {bound:g} is no multiple of step {self.step:g}, so nobody could write it")
            if self.ramp is not None and self.ramp < self.step:
                raise ValueError(f"ramp {self.ramp:g} is less than step {self.step:g}, so no step could be taken")
        return self

    def names(self, device: Device, plant_name: str) -> bool:
        """Return whether this rule speaks of that device; `plant_name` is that of its plant."""
        if self.devices is not None and not _any(self.devices, device.serial):
            return False
        if self.plants is not None:
            plant = device.plant or (device.serial if device.kind is DeviceKind.PLANT else "")
            if not any(name and _any(self.plants, name) for name in (plant, plant_name)):
                return False
        return self.kinds is None or _any(self.kinds, device.kind.value)

    def speaks_of(self, who: str) -> bool:
        """Return whether this rule speaks of `<bridge>[/<role>]`."""
        return any(origins.matches(pattern, who) for pattern in self.origins)

    def why_not(self, device: Device, plant_name: str, setpoint: str, who: str) -> str:
        """Return in words what this rule does not speak of: device, setpoint or origin; "" where it covers that."""
        missing = [
            word
            for word, covered in (
                ("device", self.names(device, plant_name)),
                ("setpoint", _any(self.setpoints, setpoint)),
                ("origin", self.speaks_of(who)),
            )
            if not covered
        ]
        return f"not for this {_list(missing)}" if missing else ""

    def covers(self, device: Device, plant_name: str, setpoint: str, who: str) -> bool:
        """Return whether this rule decides on that write."""
        return _any(self.setpoints, setpoint) and self.speaks_of(who) and self.names(device, plant_name)

    def limits(self, taken: Range, point: Point) -> Range:
        """Return the tighter of what the device takes, the point has and this rule lets pass; bounds are on steps."""
        lows = [low for low in (taken.low, self.min, point.low) if low is not None]
        highs = [high for high in (taken.high, self.max, point.high) if high is not None]
        return on_steps(max(lows, default=None), min(highs, default=None), _common_step(taken.step, self.step))


def _rates_name_origins(rates: dict[str, int]) -> dict[str, int]:
    for pattern in rates:
        if not pattern or ":" in pattern:
            raise ValueError(f"{pattern!r} is no origin; write a bridge, or <bridge>/<role>, or a pattern")
    return rates


class ControlSettings(BaseModel):
    """`control:` of the configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    enabled: bool = Field(default=False, description="false: the gateway only reads")
    allow: list[Rule] = Field(default=[], description="what is not listed is refused")
    order: list[str] = Field(default=[], description="bridges that carry out, first choice first")
    ttl: float = Field(default=60, gt=0, le=86400, description="seconds until an unsent command expires")
    max_per_minute: int = Field(default=30, ge=1, description="accepted commands per device")
    writes_per_day: int = Field(
        default=200,
        ge=1,
        description="writes that a device takes a day (UTC), for its memory wears out; reverts are not held back, and "
        "an unchanged value is no write",
    )
    rates: Annotated[dict[str, Annotated[int, Field(ge=1)]], AfterValidator(_rates_name_origins)] = Field(
        default={}, description="origin → accepted commands per minute of all that it names, over all devices"
    )
    resume: list[str] = Field(
        default=["cli"], description="origins that may resume control after a halt; to halt, all may that may write"
    )
    refresh_within: float = Field(
        default=120,
        ge=0,
        le=86400,
        description="seconds after which a setpoint known to be in force is sent again when it is written again; "
        "0: always sent",
    )
    verify_within: float = Field(
        default=120,
        ge=0,
        le=3600,
        description="seconds for which a read-back is waited for after a command that is said to be done; 0: none",
    )

    battery_window: float = Field(
        default=3600,
        ge=60,
        le=86400,
        description="seconds for which an order for a battery holds by itself, unless it has a dead-man's timer; "
        "it is renewed before they are over",
    )

    def unmet(self, devices: Mapping[str, Device]) -> list[Unmet]:
        """Return what rules name and nobody has.

        `devices` are all that are known, plants among them. Patterns that nothing fits are told as well.
        """
        plants = {device.plant for device in devices.values()} | {
            name
            for device in devices.values()
            if device.kind is DeviceKind.PLANT
            for name in (device.serial, device.name)
        }
        found: list[Unmet] = []
        for number, rule in enumerate(self.allow):
            for key, names, known in (("devices", rule.devices, devices), ("plants", rule.plants, plants)):
                found += [
                    Unmet(number, key, name)
                    for name in names or ()
                    if name != "*" and not any(fnmatchcase(one, name) for one in known)
                ]
        return found


def on_steps(low: float | None, high: float | None, step: float | None) -> Range:
    """Return a range whose bounds are multiples of its step."""
    if step is None:
        return Range(low, high)
    return Range(
        None if low is None else _multiple(low, step, math.ceil),
        None if high is None else _multiple(high, step, math.floor),
        step,
    )


def tighter(one: Range, other: Range) -> Range:
    """Return what lies in both, on the first one's steps."""
    lows = [low for low in (one.low, other.low) if low is not None]
    highs = [high for high in (one.high, other.high) if high is not None]
    return on_steps(max(lows, default=None), min(highs, default=None), one.step)


def on_step(value: float, step: float) -> bool:
    """Return whether a value is a multiple of a step, as far as binary fractions can say."""
    return math.isclose(value, round(value / step) * step, rel_tol=1e-9, abs_tol=1e-9)


def _common_step(one: float | None, other: float | None) -> float | None:
    """Return the smallest step whose multiples are multiples of both."""
    if one is None or other is None:
        return other if one is None else one
    a, b = Fraction(str(one)), Fraction(str(other))
    return float(Fraction(math.lcm(a.numerator, b.numerator), math.gcd(a.denominator, b.denominator)))


def _multiple(bound: float, step: float, towards: Any) -> float:
    return bound if on_step(bound, step) else float(towards(bound / step) * step)


def _any(patterns: list[str], text: str) -> bool:
    return any(fnmatchcase(text, pattern) for pattern in patterns)


def _list(words: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
