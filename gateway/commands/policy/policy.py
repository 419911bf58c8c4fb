"""Who may set what. Read-only unless control is enabled; then default deny.

One table of checks decides on every command, and explains itself: see `_CHECKS`.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from gateway.commands.policy import halt
from gateway.commands.policy.halt import HaltError, Halting
from gateway.commands.policy.rates import Ramps, Rates
from gateway.commands.policy.rules import NUMBERS, ControlSettings, Rule, on_step, tighter
from gateway.core import origins
from gateway.core.clock import Clock
from gateway.core.model import Command, Device, DeviceState, Origin, Range, Reason, Value
from gateway.core.points import NONE, SETPOINTS, BadValueError, OutOfRangeError, Point, range_text
from gateway.core.verdict import Check, Examiners, Refusal, Verdict

__all__ = ["ControlSettings", "Policy", "Refusal", "RequestBatch", "Rule", "parse_within"]


REMEMBERED: Final = 50_000
"""Answers of the rules."""


class _Case:
    """One command that is being judged, and what the checks before have found out."""

    def __init__(self, command: Command, device: Device | None, along: "RequestBatch", *, thorough: bool) -> None:
        self.command = command
        self.who = command.origin.who
        self.along = along
        self.thorough = thorough
        self.rule_index: int | None = None
        self.value: Value = None
        # Set by the checks that everything after them needs.
        self.device: Device = device  # type: ignore[assignment]
        self.point: Point
        self.rule: Rule
        self.limits: Range

    @property
    def number(self) -> float | None:
        """The value, where the setpoint is one of numbers."""
        value = self.value
        return value if self.point.type in NUMBERS and isinstance(value, (int, float)) else None


class _Permit:
    """What the rules say of a device, a setpoint and an origin: looked up once, for a SCADA asks the same for ever."""

    def __init__(self, device: Device, plant: str) -> None:
        self.device = device
        self.plant = plant
        """The plant's name. Another one, or another description of the device, and it is looked up anew."""
        self.index = -1
        """Of the rule; below 0 where none covers it."""
        self.rule: Rule
        self.limits: Range


class RequestBatch:
    """The commands of one request that were judged before another one of it, and have not been counted."""

    def __init__(self) -> None:
        self.devices: Counter[str] = Counter()
        self.origins: Counter[str] = Counter()
        """By `<bridge>[/<role>]`."""
        self.values: dict[tuple[str, str], list[float]] = {}
        """Serial and setpoint → the numbers asked for."""

    def add(self, command: Command) -> None:
        """Take in that this one would be accepted, with its value as the setpoint takes it."""
        self.devices[command.serial] += 1
        self.origins[command.origin.who] += 1
        if isinstance(command.value, (int, float)):
            self.values.setdefault((command.serial, command.setpoint), []).append(command.value)


_ALONE: Final = RequestBatch()


class Policy:
    """Judges commands. Knows the rules, and what was accepted within the last minute."""

    def __init__(
        self,
        settings: ControlSettings,
        clock: Clock,
        known: Callable[[str], DeviceState | None] = lambda _: None,
        halting: Halting | None = None,
    ) -> None:
        self.use(settings)
        self._known = known
        """Serial → the device's last known state, for what is in force and for names of plants."""
        self._rates = Rates(clock)
        self._ramps = Ramps(clock)
        self.halting: Final = halting or Halting(clock)

    def use(self, settings: ControlSettings) -> None:
        """Judge by these from now on. What was accepted within the last minute counts on."""
        self._settings = settings
        self._permits: dict[tuple[str, str, str], _Permit] = {}
        self._has_ramps = any(rule.ramp is not None for rule in settings.allow)

    @property
    def refresh_within(self) -> float:
        """For how many seconds what was confirmed to be in force is taken to be so still."""
        return self._settings.refresh_within

    @property
    def verify_within(self) -> float:
        """For how many seconds a read-back is waited for."""
        return self._settings.verify_within

    @property
    def settings(self) -> ControlSettings:
        """`control:` of the configuration."""
        return self._settings

    def judge(
        self, command: Command, device: Device | None, along: RequestBatch = _ALONE, more: Examiners = ()
    ) -> Value | Refusal:
        """Return the command's value as the setpoint takes it, or why it is refused: as `examine`, without the rest."""
        case = _Case(command, device, along, thorough=False)
        for _, look, _ in _CHECKS:
            if type(found := look(self, case)) is Refusal:  # with isinstance, a third of all this
                return found
        for _, examiner in more:
            if type(found := examiner(command)) is Refusal:
                return found
        return case.value

    def judge_again(self, command: Command, device: Device | None) -> Refusal | None:
        """Return why a command that was permitted must not leave now; None where it may.

        Checks of its arrival count no more, and a device that is known no more may come back.
        """
        case = _Case(command, device, _ALONE, thorough=False)
        for look in _CHECKS_AGAIN:
            if type(found := look(self, case)) is Refusal:
                return None if found.reason is Reason.UNKNOWN_DEVICE else found
        return None

    def examine(
        self,
        command: Command,
        device: Device | None,
        along: RequestBatch = _ALONE,
        more: Examiners = (),
    ) -> Verdict:
        """Judge a command, check by check. This counts nothing; see `count`.

        `along` are the commands of the same request judged before it, `more` further checks, which come last. Ends
        where what comes after a refusal makes no sense without what was refused.
        """
        case = _Case(command, device, along, thorough=True)
        checks: list[Check] = []
        for name, found, needed in self._findings(case, more):
            if isinstance(found, Refusal):
                checks.append(Check(name, found.detail, found.reason))
                if needed:
                    break
            elif found:
                checks.append(Check(name, found))
        rule = case.rule.model_dump_json(exclude_none=True) if case.rule_index is not None else ""
        return Verdict(tuple(checks), case.value, case.rule_index, rule)

    def _findings(self, case: _Case, more: Examiners) -> Iterator[tuple[str, str | Refusal, bool]]:
        for name, look, needed in _CHECKS:
            yield name, look(self, case), needed
        for name, examiner in more:
            yield name, examiner(case.command), False

    def count(self, command: Command) -> None:
        """Remember that a command was accepted, with its value as the setpoint takes it."""
        self._rates.count(command.serial)
        who = command.origin.who
        for pattern in self._settings.rates:
            if origins.matches(pattern, who):
                self._rates.count((pattern,))
        value = command.value
        if self._has_ramps and SETPOINTS[command.setpoint].type in NUMBERS and isinstance(value, (int, float)):
            self._ramps.note((command.serial, command.setpoint), value, self._in_force(command))

    def permitted(self, device: Device, origin: Origin) -> Mapping[str, Range]:
        """Return what this origin may write on this device, each with its range."""
        if not self._settings.enabled:
            return {}
        who = origin.who
        return {
            setpoint: permit.limits
            for setpoint in device.setpoints
            if (permit := self._permit(device, setpoint, who)) is not None
        }

    async def resume(self, by: Origin) -> None:
        """Let commands in again, where `control.resume` names who asks. Raises HaltError."""
        if self.halting.current is not None and not self.may_resume(by):
            raise HaltError(
                f"{by.who} may not resume control; add it to control.resume, or run `sems-gateway resume`",
                Reason.NOT_PERMITTED,
            )
        await self.halting.resume(by)

    def may_resume(self, origin: Origin) -> bool:
        """Return whether `control.resume` names this origin."""
        who = origin.who
        return any(origins.matches(pattern, who) for pattern in self._settings.resume)

    # the checks, in their order

    def _enabled(self, _: _Case) -> str | Refusal:
        if self._settings.enabled:
            return "control.enabled: true"
        return Refusal(Reason.CONTROL_DISABLED, "the gateway is read-only; set control.enabled: true to change that")

    def _halted(self, _: _Case) -> str | Refusal:
        halted = self.halting.current
        if halted is None:
            return "control is not halted"
        return Refusal(Reason.HALTED, f"{halt.in_words(halted)}; `sems-gateway resume` lets commands in again")

    def _device(self, case: _Case) -> str | Refusal:
        device: Device | None = case.device
        if device is None:
            return Refusal(Reason.UNKNOWN_DEVICE, f"no device {case.command.serial!r} is known")
        if not case.thorough:
            return ""
        plant = self._plant_name(device)
        return f"{device.serial} is known: {device.kind.replace('_', ' ')}{f' of {plant}' if plant else ''}"

    def _setpoint(self, case: _Case) -> str | Refusal:
        name, device = case.command.setpoint, case.device
        if name not in SETPOINTS:
            known = ", ".join(device.setpoints) or "none"
            return Refusal(Reason.UNKNOWN_SETPOINT, f"there is no setpoint {name!r}; this device takes {known}")
        if name not in device.setpoints:
            return Refusal(Reason.UNKNOWN_SETPOINT, f"{device.serial} does not take {name}")
        case.point = SETPOINTS[name]
        return f"{device.serial} takes {name}"

    def _permission(self, case: _Case) -> str | Refusal:
        command = case.command
        permit = self._permit(case.device, command.setpoint, case.who)
        if permit is not None:
            case.rule, case.rule_index, case.limits = permit.rule, permit.index, permit.limits
            return f"rule {permit.index + 1} of control.allow lets {case.who} set it"
        why = ""
        if case.thorough and self._settings.allow:
            plant = self._plant_name(case.device)
            why = ": " + "; ".join(
                f"rule {number} is {rule.why_not(case.device, plant, command.setpoint, case.who)}"
                for number, rule in enumerate(self._settings.allow, 1)
            )
        return Refusal(
            Reason.NOT_PERMITTED,
            f"no rule of control.allow lets {case.who} set {command.setpoint} of {command.serial}{why}",
        )

    def _value(self, case: _Case) -> str | Refusal:
        try:
            case.value = case.point.parse(case.command.value)
        except OutOfRangeError as error:
            return Refusal(Reason.OUT_OF_RANGE, str(error))
        except BadValueError as error:
            return Refusal(Reason.BAD_VALUE, str(error))
        return f"it is {_shown(case.value, case.point)}" if case.thorough else ""

    def _range(self, case: _Case) -> str | Refusal:
        return _bounded(case.rule, case.value) or _within(case.point, case.value, case.limits)

    def _step(self, case: _Case) -> str | Refusal:
        return _stepped(case.point, case.number, case.limits)

    def _revert(self, case: _Case) -> str | Refusal:
        raw = case.command.revert_value
        if case.command.revert_after is None or raw is None:
            return ""
        try:
            value = case.point.parse(raw)
        except OutOfRangeError as error:
            return Refusal(Reason.OUT_OF_RANGE, f"revert_value: {error}")
        except BadValueError as error:
            return Refusal(Reason.BAD_VALUE, f"revert_value: {error}")
        number = value if case.number is not None and isinstance(value, (int, float)) else None
        neutral = value == case.point.neutral
        for found in (
            "" if neutral else _bounded(case.rule, value),
            _within(case.point, value, case.limits),
            _stepped(case.point, number, case.limits),
        ):
            if isinstance(found, Refusal):
                return Refusal(found.reason, f"revert_value: {found.detail}")
        return f"after {case.command.revert_after:g} s it is set back to {_shown(value, case.point)}"

    def _ramp(self, case: _Case) -> str | Refusal:
        ramp, number, command = case.rule.ramp, case.number, case.command
        if ramp is None or number is None:
            return ""
        key = command.serial, command.setpoint
        allowed = self._ramps.allowed(key, ramp, self._in_force(command), case.along.values.get(key, ()))
        now = tighter(case.limits, allowed)
        unit = f" {case.point.unit}" if case.point.unit else ""
        text = f"it may move by {ramp:g}{unit} within a minute, so {range_text(now.low, now.high)}{unit} now"
        if (allowed.low is None or number >= allowed.low) and (allowed.high is None or number <= allowed.high):
            return text
        nearest = now.low if allowed.low is not None and number < allowed.low else now.high
        return Refusal(
            Reason.RAMP_LIMITED, f"{command.setpoint}: {text}, not {number:g}; {nearest:g}{unit} is permitted at once"
        )

    def _device_rate(self, case: _Case) -> str | Refusal:
        serial, most = case.command.serial, self._settings.max_per_minute
        wait = self._rates.wait(serial, most, case.along.devices[serial])
        if not wait and not case.thorough:
            return ""
        if not wait:
            return f"{self._rates.used(serial)} of {most} a minute for this device (control.max_per_minute)"
        return Refusal(
            Reason.RATE_LIMITED,
            f"{serial} was commanded {most} times within a minute (control.max_per_minute); {_again(wait)}",
        )

    def _origin_rate(self, case: _Case) -> str | Refusal:
        said = []
        for pattern, most in self._settings.rates.items():
            if not origins.matches(pattern, case.who):
                continue
            along = sum(n for who, n in case.along.origins.items() if origins.matches(pattern, who))
            wait = self._rates.wait((pattern,), most, along)
            if wait:
                return Refusal(
                    Reason.RATE_LIMITED,
                    f"{pattern} has commanded {most} times within a minute (control.rates); {_again(wait)}",
                )
            said.append(f"{self._rates.used((pattern,))} of {most} a minute for {pattern}")
        return f"{', '.join(said)} (control.rates)" if said else ""

    # what they need

    def _permit(self, device: Device, setpoint: str, who: str) -> _Permit | None:
        """Return what the first rule that covers this lets pass; None where none does."""
        plant = self._plant_name(device)
        key = device.serial, setpoint, who
        found = self._permits.get(key)
        if found is None or found.device is not device or found.plant != plant:
            found = _Permit(device, plant)
            for index, rule in enumerate(self._settings.allow):
                if rule.covers(device, plant, setpoint, who):
                    found.index, found.rule = index, rule
                    found.limits = rule.limits(device.setpoints[setpoint], SETPOINTS[setpoint])
                    break
            if len(self._permits) >= REMEMBERED:
                self._permits.clear()
            self._permits[key] = found
        return found if found.index >= 0 else None

    def _plant_name(self, device: Device) -> str:
        if not device.plant:
            return ""
        plant = self._known(device.plant)
        return plant.device.name if plant is not None else ""

    def _in_force(self, command: Command) -> float | None:
        """Return the number in force as far as is known; else the setpoint's neutral one, if it has one."""
        state = self._known(command.serial)
        value = state.values.get(command.setpoint) if state is not None else None
        if value is None:
            value = SETPOINTS[command.setpoint].neutral
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


_CHECKS: Final[Sequence[tuple[str, Callable[[Policy, _Case], str | Refusal], bool]]] = (
    ("enabled", Policy._enabled, False),  # noqa: SLF001 - a table of the class's own
    ("halt", Policy._halted, False),  # noqa: SLF001
    ("device", Policy._device, True),  # noqa: SLF001
    ("setpoint", Policy._setpoint, True),  # noqa: SLF001
    ("rule", Policy._permission, True),  # noqa: SLF001
    ("value", Policy._value, True),  # noqa: SLF001
    ("range", Policy._range, False),  # noqa: SLF001
    ("step", Policy._step, False),  # noqa: SLF001
    ("revert", Policy._revert, False),  # noqa: SLF001
    ("ramp", Policy._ramp, False),  # noqa: SLF001
    ("rate of the device", Policy._device_rate, False),  # noqa: SLF001
    ("rate of the origin", Policy._origin_rate, False),  # noqa: SLF001
)
"""Name, what looks, and whether the checks after it need what it finds. An empty text: there is nothing to look at."""
_ARRIVAL: Final = frozenset({"ramp", "rate of the device", "rate of the origin"})
"""Checks of how soon a command came after others."""
_CHECKS_AGAIN: Final = tuple(look for name, look, _ in _CHECKS if name not in _ARRIVAL)


def parse_within(point: Point, raw: object, limits: Range) -> Value:
    """Return `raw` as a value of the point within the limits. Raises BadValueError, OutOfRangeError."""
    value = point.parse(raw)
    found = _within(point, value, limits)
    if isinstance(found, Refusal):
        raise OutOfRangeError(found.detail)
    return value


def _within(point: Point, value: Value, limits: Range) -> str | Refusal:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return ""
    unit = f" {point.unit}" if point.unit else ""
    taken = range_text(limits.low, limits.high) + unit
    if (limits.low is not None and value < limits.low) or (limits.high is not None and value > limits.high):
        return Refusal(Reason.OUT_OF_RANGE, f"{point.id} takes {taken} here, not {value:g}")
    return f"{taken} may be written"


def _bounded(rule: Rule, value: Value) -> str | Refusal:
    """Refuse `none` where a rule has a bound: it lies beyond every one."""
    if value != NONE or (rule.min is None and rule.max is None):
        return ""
    bounds = range_text(rule.min, rule.max)
    return Refusal(Reason.OUT_OF_RANGE, f"the rule lets {bounds} be written, and {NONE} lies beyond that")


def _stepped(point: Point, number: float | None, limits: Range) -> str | Refusal:
    if limits.step is None or number is None:
        return ""
    unit = f" {point.unit}" if point.unit else ""
    if on_step(number, limits.step):
        return f"a multiple of {limits.step:g}{unit}"
    below = number // limits.step * limits.step
    return Refusal(
        Reason.BAD_STEP,
        f"{point.id} takes multiples of {limits.step:g}{unit} here, e.g. {below:g} or {below + limits.step:g}, "
        f"not {number:g}",
    )


def _again(seconds: float) -> str:
    return "ask for less at a time" if seconds == float("inf") else f"again in {max(1, round(seconds))} s"


def _shown(value: Value, point: Point) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}{f' {point.unit}' if point.unit else ''}" if isinstance(value, (int, float)) else str(value)
