"""Who may set what. Read-only unless control is enabled; then default deny."""

from collections import deque
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Self

import msgspec
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from gateway.core.clock import Clock
from gateway.core.model import Command, Device, Range, Reason, Value
from gateway.core.points import SETPOINTS, BadValueError, OutOfRangeError, Point, range_text


class Rule(BaseModel):
    """One line of `control.allow`: it lets these origins write these setpoints of these devices."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    devices: list[str] = Field(description='serial numbers or patterns; ["*"] for all')
    setpoints: list[str] = Field(description="setpoint ids")
    origins: list[str] = Field(default=["*"], description="bridge names, or cli")
    min: float | None = Field(default=None, description="lowest value, in the setpoint's unit")
    max: float | None = Field(default=None, description="highest value, in the setpoint's unit")

    @field_validator("setpoints")
    @classmethod
    def _known(cls, setpoints: list[str]) -> list[str]:
        for setpoint in setpoints:
            if setpoint not in SETPOINTS:
                raise ValueError(f"{setpoint!r} is no setpoint; there are {', '.join(SETPOINTS)}")
        return setpoints

    @model_validator(mode="after")
    def _limits_fit(self) -> Self:
        if self.min is None and self.max is None:
            return self
        if len(self.setpoints) != 1:
            raise ValueError("min and max need a rule with one setpoint; write one rule for each")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        return self

    def covers(self, serial: str, setpoint: str, origin: str) -> bool:
        """Return whether this rule speaks of that write."""
        return (
            setpoint in self.setpoints
            and any(fnmatchcase(serial, pattern) for pattern in self.devices)
            and any(fnmatchcase(origin.partition(":")[0], pattern) for pattern in self.origins)
        )


class ControlSettings(BaseModel):
    """`control:` of the configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = Field(default=False, description="false: the gateway only reads")
    allow: list[Rule] = Field(default=[], description="what is not listed is refused")
    order: list[str] = Field(default=[], description="bridges that carry out, first choice first")
    ttl: float = Field(default=60, gt=0, le=86400, description="seconds until an unsent command expires")
    max_per_minute: int = Field(default=30, ge=1, description="accepted commands per device")
    refresh_within: float = Field(
        default=120,
        ge=0,
        le=86400,
        description="seconds after which a setpoint known to be in force is sent again when it is written again; "
        "0: always sent",
    )


class Refusal(msgspec.Struct, frozen=True):
    """Why not."""

    reason: Reason
    detail: str


class Policy:
    """Judges commands. Knows the rules and how often each device was commanded of late."""

    def __init__(self, settings: ControlSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._recent: dict[str, deque[float]] = {}

    @property
    def refresh_within(self) -> float:
        """For how many seconds what was confirmed to be in force is taken to be so still."""
        return self._settings.refresh_within

    def judge(self, command: Command, device: Device | None) -> Value | Refusal:
        """Return the command's value as the setpoint takes it, or why it is refused.

        A value comes back as a float, int, str or bool. Judging counts nothing; see `count`.
        """
        if not self._settings.enabled:
            return Refusal(
                Reason.CONTROL_DISABLED, "the gateway is read-only; set control.enabled: true to change that"
            )
        if device is None:
            return Refusal(Reason.UNKNOWN_DEVICE, f"no device {command.serial!r} is known")
        point = SETPOINTS.get(command.setpoint)
        if point is None:
            known = ", ".join(device.setpoints) or "none"
            return Refusal(
                Reason.UNKNOWN_SETPOINT, f"there is no setpoint {command.setpoint!r}; this device takes {known}"
            )
        if command.setpoint not in device.setpoints:
            return Refusal(Reason.UNKNOWN_SETPOINT, f"{device.serial} does not take {command.setpoint}")
        rule = self._rule(command.serial, command.setpoint, command.origin)
        if rule is None:
            return Refusal(
                Reason.NOT_PERMITTED,
                f"no rule of control.allow lets {command.origin.partition(':')[0]} "
                f"set {command.setpoint} of {command.serial}",
            )
        limits = _tighter(device.setpoints[command.setpoint], rule, point)
        try:
            value = parse_within(point, command.value, limits)
            if command.revert_after is not None and command.revert_value is not None:
                parse_within(point, command.revert_value, limits)
        except OutOfRangeError as error:
            return Refusal(Reason.OUT_OF_RANGE, str(error))
        except BadValueError as error:
            return Refusal(Reason.BAD_VALUE, str(error))
        if self._busy(command.serial):
            return Refusal(
                Reason.RATE_LIMITED,
                f"{command.serial} was commanded {self._settings.max_per_minute} times within a minute "
                "(control.max_per_minute)",
            )
        return value

    def count(self, serial: str) -> None:
        """Remember that a command was accepted, for the rate."""
        self._recent.setdefault(serial, deque()).append(self._clock.monotonic())

    def permitted(self, device: Device, origin: str) -> Mapping[str, Range]:
        """Return what this origin may write on this device, each with its range."""
        if not self._settings.enabled:
            return {}
        return {
            setpoint: _tighter(limits, rule, SETPOINTS[setpoint])
            for setpoint, limits in device.setpoints.items()
            if (rule := self._rule(device.serial, setpoint, origin)) is not None
        }

    def _rule(self, serial: str, setpoint: str, origin: str) -> Rule | None:
        return next((rule for rule in self._settings.allow if rule.covers(serial, setpoint, origin)), None)

    def _busy(self, serial: str) -> bool:
        recent = self._recent.get(serial)
        if recent is None:
            return False
        minute_ago = self._clock.monotonic() - 60
        while recent and recent[0] <= minute_ago:
            recent.popleft()
        return len(recent) >= self._settings.max_per_minute


def parse_within(point: Point, raw: object, limits: Range) -> Value:
    """Return `raw` as a value of the point within the limits. Raises BadValueError, OutOfRangeError."""
    value = point.parse(raw)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        below = limits.low is not None and value < limits.low
        above = limits.high is not None and value > limits.high
        if below or above:
            unit = f" {point.unit}" if point.unit else ""
            raise OutOfRangeError(f"{point.id} takes {range_text(limits.low, limits.high)}{unit} here, not {value:g}")
    return value


def _tighter(limits: Range, rule: Rule, point: Point) -> Range:
    lows = [low for low in (limits.low, rule.min, point.low) if low is not None]
    highs = [high for high in (limits.high, rule.max, point.high) if high is not None]
    return Range(max(lows, default=None), min(highs, default=None))
