"""What clients may write: the controls of models 123, 124 and 704, a row each."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from gateway.bridges.modbus.maps.sunspec.control import (
    Control,
    Registers,
    need,
    rating,
    refused,
    seconds,
)
from gateway.bridges.modbus.maps.sunspec.expressions import number
from gateway.bridges.modbus.maps.sunspec.facts import Facts
from gateway.bridges.modbus.maps.sunspec.points import own
from gateway.bridges.modbus.settling import SetpointRequest
from gateway.core.model import Value
from gateway.core.points import AUTO, MIN_POWER_FACTOR, NONE, SETPOINTS

OVER_EXCITED, UNDER_EXCITED = 0, 1
"""Model 704, Ext."""
CHARGE, DISCHARGE = 1, 2
"""Model 124, bits of StorCtl_Mod: InWRte limits charging, OutWRte discharging."""
FROM_PV, FROM_GRID = 0, 1
"""Model 124, ChaGriSet."""
FULL: Final = 100.0
"""%: no limit."""
OF_WMAX: Final = 1
"""Model 123, VArPct_Mod."""
SET_OF_WMAX: Final = 0
"""Model 704, VarSetMod."""


def _zero(*names: str) -> dict[str, Value]:
    return dict.fromkeys((own(name) for name in names), 0)


# Reactive power, by one of several measures.


def _var_123(registers: Registers, facts: Facts, _suffix: str) -> float:
    if registers.get(own("123.VArPct_Mod")) in {OF_WMAX, None}:
        return need(registers, own("123.VArWMaxPct"))
    return need(registers, own("123.VArMaxPct")) * rating(facts.var_most, "VArMax") / 100


def _show_var_123(setpoints: Registers, facts: Facts) -> Registers:
    value = number(setpoints, "reactive_power")
    return {
        own("123.VArWMaxPct"): value,
        own("123.VArMaxPct"): value / facts.var_most * 100 if value is not None and facts.var_most else None,
        own("123.VArPct_Mod"): OF_WMAX,
    }


def _var_704(registers: Registers, facts: Facts, suffix: str) -> float:
    match registers.get(own("704.VarSetMod")):
        case 0 | None:
            return need(registers, own(f"704.VarSetPct{suffix}"))
        case 1:
            return need(registers, own(f"704.VarSetPct{suffix}")) * rating(facts.var_most, "VarMax") / 100
        case 4:
            return need(registers, own(f"704.VarSet{suffix}")) / rating(facts.var_rated, "rated power") * 100
        case other:
            raise refused(f"VarSetMod may be 0 (of WMax), 1 (of VarMax) or 4 (vars), not {other}")


def _show_var_704(setpoints: Registers, facts: Facts) -> Registers:
    value = number(setpoints, "reactive_power")
    return {
        own("704.VarSetMod"): SET_OF_WMAX,
        own("704.VarSetPct"): value,
        own("704.VarSet"): value * facts.var_rated / 100 if value is not None and facts.var_rated else None,
    }


# Power factor, in model 704 as magnitude and excitation.


def _factor_704(registers: Registers, _facts: Facts, suffix: str) -> float:
    factor = need(registers, own(f"704.PFWInj{suffix}.PF"))
    return -factor if registers.get(own(f"704.PFWInj{suffix}.Ext")) == UNDER_EXCITED else factor


def _factor_123(registers: Registers, facts: Facts, _suffix: str) -> float:
    return facts.excited(need(registers, own("123.OutPFSet")))


def _show_factor_123(setpoints: Registers, facts: Facts) -> Registers:
    factor = number(setpoints, "power_factor")
    return {own("123.OutPFSet"): None if factor is None else facts.excited(factor)}


def _show_factor_704(setpoints: Registers, _facts: Facts) -> Registers:
    factor = number(setpoints, "power_factor")
    return {
        own("704.PFWInj.PF"): None if factor is None else abs(factor),
        own("704.PFWInj.Ext"): UNDER_EXCITED if factor is not None and factor < 0 else OVER_EXCITED,
    }


# Storage. A rate limits one direction while its bit is set, and below 0 it forces the other one: so Fronius has it, and
# so do the clients of this model. The cloud knows orders (charge, discharge, idle) and `auto`, and no limits.

_IN, _OUT, _MODE, _GRID = (own(f"124.{name}") for name in ("InWRte", "OutWRte", "StorCtl_Mod", "ChaGriSet"))


def _rates(registers: Registers) -> list[str]:
    """Return the rates that act."""
    mode = int(number(registers, _MODE) or 0)
    return [rate for bit, rate in ((CHARGE, _IN), (DISCHARGE, _OUT)) if mode & bit]


def _storage(registers: Registers, facts: Facts, *, hold: bool) -> list[SetpointRequest]:
    """Return the order that is what these limits leave; `hold`: a battery that may not go one way stands."""
    active = _rates(registers)
    low = -_rate(registers, _IN, facts) if _IN in active else -FULL
    high = _rate(registers, _OUT, facts) if _OUT in active else FULL
    after = seconds(registers, own("124.InOutWRte_RvrtTms"))
    if low > high:
        raise refused(f"InWRte and OutWRte contradict each other: at least {low:g} % and at most {high:g} %")
    if low <= -FULL and high >= FULL:
        return [SetpointRequest("battery_mode", AUTO)]
    if high < 0:
        if registers.get(_GRID) == FROM_PV:
            raise refused("a battery that is made to charge takes what PV lacks from the grid; ChaGriSet must be 1")
        return _order("charge", -high, facts, after)
    if low > 0:
        return _order("discharge", low, facts, after)
    if low == high or (hold and 0 in {low, high}):
        return [SetpointRequest("battery_mode", "idle", after)]
    raise refused("the cloud takes orders, and no limits: a rate must be 100 %, or below 0, or both of them 0")


def _rate(registers: Registers, name: str, facts: Facts) -> float:
    """Return a rate. One that forces less than a watt, or a step of the device, forces nothing."""
    rate = need(registers, name)
    return 0.0 if rate < 0 and -rate / 100 * (facts.battery_most or math.inf) < facts.battery_step else rate


def _order(mode: str, percent: float, facts: Facts, after: float | None) -> list[SetpointRequest]:
    power = float(round(percent * rating(facts.battery_most, "WChaMax") / 100))  # as it can be shared out
    # One order, by one call. The mode first, for the call holds as long as the timer of the first.
    return [SetpointRequest("battery_mode", mode, after), SetpointRequest("battery_power_target", power)]


def _show_storage(setpoints: Registers, facts: Facts) -> Registers:
    mode, power = setpoints.get("battery_mode"), number(setpoints, "battery_power_target")
    rate = -power / facts.battery_most * 100 if power is not None and facts.battery_most else None
    shown: dict[str, Value] = {_MODE: 0, _IN: FULL, _OUT: FULL, _GRID: FROM_GRID}
    match mode:
        case "charge":
            shown |= {_MODE: DISCHARGE, _OUT: rate}
        case "discharge":
            shown |= {_MODE: CHARGE, _IN: rate}
        case "idle":
            shown |= {_MODE: CHARGE | DISCHARGE, _IN: 0.0, _OUT: 0.0}
    return shown


def _storage_control(*, hold: bool) -> Control:
    return Control(
        needs=("battery_mode", "battery_power_target"),
        inputs=(_IN, _OUT, _GRID),
        ask=partial(_storage, hold=hold),
        show=_show_storage,
        enable=_MODE,
        neutral=(SetpointRequest("battery_mode", AUTO),),
        settings=_zero("124.InOutWRte_WinTms", "124.InOutWRte_RvrtTms", "124.InOutWRte_RmpTms"),
        parts=_rates,
        at_rest={_IN: FULL, _OUT: FULL},
    )


def _reserve(register: str) -> Control:
    """Return the control of a reserve. 0 % keeps nothing back, and is how SunSpec says that there is none."""

    def ask(registers: Registers, _: Facts) -> list[SetpointRequest]:
        return [SetpointRequest("battery_reserve_soc", need(registers, register) or NONE)]

    def show(setpoints: Registers, _: Facts) -> Registers:
        value = setpoints.get("battery_reserve_soc")
        return {register: 0.0 if value == NONE else value}

    return Control(needs=("battery_reserve_soc",), inputs=(register,), ask=ask, show=show)


REVERSION: Final = "Rvrt"
"""Ends the names of model 704's values that are to be in force after a time-out."""
_Value = Callable[[Registers, Facts, str], float]
"""The setpoint's value out of the inputs, whose names end in what is given: nothing, or REVERSION."""
_Show = Callable[[Registers, Facts], Registers]


def _switched(
    setpoint: str,
    inputs: tuple[str, ...],
    enable: str,
    timer: str,
    settings: Registers,
    value: _Value | None,
    show: _Show | None,
    enable_back: str = "",
) -> Control:
    """Return the control of one setpoint that has a value, an enable and a timer.

    Without `value` and `show`, its one input is the setpoint. `enable_back` (model 704): 1 where the reversion value is
    to be in force after the time-out, and not the neutral one.
    """
    of = value or (lambda registers, _, suffix: need(registers, inputs[0] + suffix))
    point = SETPOINTS[setpoint]

    def ask(registers: Registers, facts: Facts) -> list[SetpointRequest]:
        after = seconds(registers, timer)
        reverts = after is not None and bool(registers.get(enable_back))
        return [
            SetpointRequest(
                setpoint, of(registers, facts, ""), after, of(registers, facts, REVERSION) if reverts else None
            )
        ]

    def shown(setpoints: Registers, facts: Facts) -> Registers:
        its = show(setpoints, facts) if show is not None else {inputs[0]: setpoints.get(setpoint)}
        in_force = number(setpoints, setpoint)
        return {**its, enable: int(in_force is not None and not point.same(in_force, point.neutral))}

    neutral = (SetpointRequest(setpoint, point.neutral),)
    settings = {timer: 0, **({enable_back: 0} if enable_back else {}), **settings}
    return Control(
        needs=(setpoint,), inputs=inputs, ask=ask, show=shown, enable=enable, neutral=neutral, settings=settings
    )


def _immediate(
    setpoint: str,
    name: str,
    enable: str,
    inputs: tuple[str, ...],
    value: _Value | None = None,
    show: _Show | None = None,
) -> Control:
    """Return a control of model 123; `name` begins the names of its times."""
    timer, settings = own(f"123.{name}_RvrtTms"), _zero(f"123.{name}_WinTms", f"123.{name}_RmpTms")
    its = tuple(own(f"123.{one}") for one in inputs)
    return _switched(setpoint, its, own(f"123.{enable}"), timer, settings, value, show)


def _der(
    setpoint: str,
    name: str,
    inputs: tuple[str, ...],
    reversion: Mapping[str, float],
    value: _Value | None = None,
    show: _Show | None = None,
) -> Control:
    """Return a control of model 704; `name` begins the names of its enables and its time, `reversion`: name → value."""
    enable, back, timer = (own(f"704.{name}{what}") for what in ("Ena", "EnaRvrt", "RvrtTms"))
    settings = {own(f"704.{one}"): number for one, number in reversion.items()}
    return _switched(setpoint, tuple(own(f"704.{one}") for one in inputs), enable, timer, settings, value, show, back)


CONTROLS: Final[tuple[Control, ...]] = (
    Control(
        needs=("running",),
        inputs=(own("123.Conn"),),
        ask=lambda registers, _: [
            SetpointRequest(
                "running", bool(need(registers, own("123.Conn"))), seconds(registers, own("123.Conn_RvrtTms"))
            )
        ],
        show=lambda setpoints, _: {own("123.Conn"): setpoints.get("running")},
        settings=_zero("123.Conn_WinTms", "123.Conn_RvrtTms"),
    ),
    Control(
        needs=("running",),
        inputs=(own("703.ES"),),
        ask=lambda registers, _: [SetpointRequest("running", bool(need(registers, own("703.ES"))))],
        show=lambda setpoints, _: {own("703.ES"): setpoints.get("running")},
    ),
    _immediate("active_power_limit", "WMaxLimPct", "WMaxLim_Ena", ("WMaxLimPct",)),
    _immediate("power_factor", "OutPFSet", "OutPFSet_Ena", ("OutPFSet",), _factor_123, _show_factor_123),
    _immediate(
        "reactive_power", "VArPct", "VArPct_Ena", ("VArWMaxPct", "VArMaxPct", "VArPct_Mod"), _var_123, _show_var_123
    ),
    _storage_control(hold=False),
    _reserve(own("124.MinRsvPct")),
    _reserve(own("802.SoCRsvMin")),
    _der("active_power_limit", "WMaxLimPct", ("WMaxLimPct",), {"WMaxLimPctRvrt": 100.0}),
    _der(
        "power_factor",
        "PFWInj",
        ("PFWInj.PF", "PFWInj.Ext"),
        {"PFWInjRvrt.PF": 1.0, "PFWInjRvrt.Ext": OVER_EXCITED},
        _factor_704,
        _show_factor_704,
    ),
    _der(
        "reactive_power",
        "VarSet",
        ("VarSetMod", "VarSet", "VarSetPct"),
        {"VarSetRvrt": 0, "VarSetPctRvrt": 0},
        _var_704,
        _show_var_704,
    ),
)


def controls(*, hold: bool) -> tuple[Control, ...]:
    """Return them; with `hold`, model 124 takes a limit of 0 in one direction for both."""
    other = _storage_control(hold=True)
    return tuple(other if hold and control.enable == _MODE else control for control in CONTROLS)


_SWITCH: Final = (0.0, 1.0)
_PERCENT: Final = (0.0, 100.0)
_EITHER_WAY: Final = (-100.0, 100.0)

LIMITS: Final[Mapping[str, tuple[float, float]]] = {
    **{control.enable: _SWITCH for control in CONTROLS if control.enable},
    **{register: _SWITCH for control in CONTROLS for register in control.settings if register.endswith("EnaRvrt")},
    own("123.Conn"): _SWITCH,
    own("703.ES"): _SWITCH,
    own("123.WMaxLimPct"): _PERCENT,
    own("123.OutPFSet"): (-1.0, 1.0),
    own("123.VArWMaxPct"): _EITHER_WAY,
    own("123.VArMaxPct"): _EITHER_WAY,
    own("123.VArPct_Mod"): (1, 2),
    _MODE: (0, CHARGE | DISCHARGE),
    _IN: _EITHER_WAY,
    _OUT: _EITHER_WAY,
    _GRID: _SWITCH,
    own("124.MinRsvPct"): _PERCENT,
    own("802.SoCRsvMin"): _PERCENT,
    own("704.WMaxLimPct"): _PERCENT,
    own("704.WMaxLimPctRvrt"): _PERCENT,
    own("704.PFWInj.PF"): (MIN_POWER_FACTOR, 1.0),
    own("704.PFWInj.Ext"): _SWITCH,
    own("704.PFWInjRvrt.PF"): (MIN_POWER_FACTOR, 1.0),
    own("704.PFWInjRvrt.Ext"): _SWITCH,
    own("704.VarSetMod"): (0, 4),
    own("704.VarSetPct"): _EITHER_WAY,
    own("704.VarSetPctRvrt"): _EITHER_WAY,
}  # fmt: skip
"""What a register takes, enabled or not. Those not here take what they can hold."""


def check(registers: Registers) -> None:
    """Raise WriteRefusedError where one of these is out of its range."""
    for name, (low, high) in LIMITS.items():
        value = number(registers, name)
        if value is not None and not low <= value <= high:
            raise refused(f"{name} takes {low:g} to {high:g}, not {value:g}")
    factor = number(registers, own("123.OutPFSet"))
    if factor is not None and abs(factor) < MIN_POWER_FACTOR:
        raise refused(f"123.OutPFSet takes {SETPOINTS['power_factor'].range_text()}, not {factor:g}")
