"""What clients may write: the controls of models 123, 124 and 704, a row each."""

from collections.abc import Mapping
from typing import Final

from gateway.bridges.modbus.maps.sunspec.control import (
    Control,
    Registers,
    Switched,
    need,
    rating,
    refused,
    seconds,
)
from gateway.bridges.modbus.maps.sunspec.expressions import number
from gateway.bridges.modbus.maps.sunspec.facts import Facts
from gateway.bridges.modbus.maps.sunspec.points import own
from gateway.bridges.modbus.writes import Wish
from gateway.core.model import Value

OVER_EXCITED, UNDER_EXCITED = 0, 1
"""Model 704, Ext."""
CHARGE, DISCHARGE = 1, 2
"""Model 124, StorCtl_Mod. Both bits at once limit both ways, for which the cloud has nothing."""
OF_WMAX: Final = 1
"""Model 123, VArPct_Mod."""
SET_OF_WMAX: Final = 0
"""Model 704, VarSetMod."""


def _zero(*names: str) -> dict[str, Value]:
    return dict.fromkeys((own(name) for name in names), 0)


# Reactive power, by one of several measures.


def _var_123(registers: Registers, facts: Facts, _suffix: str) -> float:
    if registers.get(own("123.VArPct_Mod")) == OF_WMAX:
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
        case 0:
            return need(registers, own(f"704.VarSetPct{suffix}"))
        case 1:
            return need(registers, own(f"704.VarSetPct{suffix}")) * rating(facts.var_most, "VarMax") / 100
        case 4:
            return need(registers, own(f"704.VarSet{suffix}")) / rating(facts.rated, "rated power") * 100
        case other:
            raise refused(f"VarSetMod may be 0 (of WMax), 1 (of VarMax) or 4 (vars), not {other}")


def _show_var_704(setpoints: Registers, facts: Facts) -> Registers:
    value = number(setpoints, "reactive_power")
    return {
        own("704.VarSetMod"): SET_OF_WMAX,
        own("704.VarSetPct"): value,
        own("704.VarSet"): value * facts.rated / 100 if value is not None and facts.rated else None,
    }


# Power factor, in model 704 as magnitude and excitation.


def _factor_704(registers: Registers, _facts: Facts, suffix: str) -> float:
    factor = need(registers, own(f"704.PFWInj{suffix}.PF"))
    return -factor if registers.get(own(f"704.PFWInj{suffix}.Ext")) == UNDER_EXCITED else factor


def _show_factor_704(setpoints: Registers, _facts: Facts) -> Registers:
    factor = number(setpoints, "power_factor")
    return {
        own("704.PFWInj.PF"): None if factor is None else abs(factor),
        own("704.PFWInj.Ext"): UNDER_EXCITED if factor is not None and factor < 0 else OVER_EXCITED,
    }


# Storage.

_RATES: Final[Mapping[float, tuple[str, str]]] = {
    CHARGE: ("charge", own("124.InWRte")),
    DISCHARGE: ("discharge", own("124.OutWRte")),
}
"""StorCtl_Mod → the battery's mode, and the register with its power."""


def _storage(registers: Registers, facts: Facts) -> list[Wish]:
    mode, rate = _RATES[need(registers, own("124.StorCtl_Mod"))]
    power = need(registers, rate) * rating(facts.battery_most, "WChaMax") / 100
    after = seconds(registers, own("124.InOutWRte_RvrtTms"))
    # The power first: the mode alone would take up the power that was set before.
    return [Wish("battery_power_target", power), Wish("battery_mode", mode, after)]


def _show_storage(setpoints: Registers, facts: Facts) -> Registers:
    mode, power = setpoints.get("battery_mode"), number(setpoints, "battery_power_target")
    rate = power / facts.battery_most * 100 if power is not None and facts.battery_most else None
    shown: dict[str, Value] = _zero("124.StorCtl_Mod", "124.InWRte", "124.OutWRte")
    for number_, (word, register) in _RATES.items():
        if mode == word:
            shown |= {own("124.StorCtl_Mod"): number_, register: rate}
    return shown


CONTROLS: Final[tuple[Control, ...]] = (
    Control(
        needs=("running",),
        inputs=(own("123.Conn"),),
        ask=lambda registers, _: [
            Wish(
                "running",
                bool(need(registers, own("123.Conn"))),
                seconds(registers, own("123.Conn_RvrtTms")),
            )
        ],
        show=lambda setpoints, _: {own("123.Conn"): setpoints.get("running")},
        settings=_zero("123.Conn_WinTms", "123.Conn_RvrtTms"),
    ),
    Switched(
        setpoint="active_power_limit",
        enable=own("123.WMaxLim_Ena"),
        timer=own("123.WMaxLimPct_RvrtTms"),
        value=lambda registers, _facts, _suffix: need(registers, own("123.WMaxLimPct")),
    ).control(
        (own("123.WMaxLimPct"),),
        lambda setpoints, _: {own("123.WMaxLimPct"): setpoints.get("active_power_limit")},
        _zero("123.WMaxLimPct_WinTms", "123.WMaxLimPct_RmpTms"),
    ),
    Switched(
        setpoint="power_factor",
        enable=own("123.OutPFSet_Ena"),
        timer=own("123.OutPFSet_RvrtTms"),
        value=lambda registers, _facts, _suffix: need(registers, own("123.OutPFSet")),
    ).control(
        (own("123.OutPFSet"),),
        lambda setpoints, _: {own("123.OutPFSet"): setpoints.get("power_factor")},
        _zero("123.OutPFSet_WinTms", "123.OutPFSet_RmpTms"),
    ),
    Switched(
        setpoint="reactive_power",
        enable=own("123.VArPct_Ena"),
        timer=own("123.VArPct_RvrtTms"),
        value=_var_123,
    ).control(
        (own("123.VArWMaxPct"), own("123.VArMaxPct"), own("123.VArPct_Mod")),
        _show_var_123,
        _zero("123.VArPct_WinTms", "123.VArPct_RmpTms"),
    ),
    Control(
        needs=("battery_mode", "battery_power_target"),
        inputs=(own("124.InWRte"), own("124.OutWRte")),
        ask=_storage,
        show=_show_storage,
        enable=own("124.StorCtl_Mod"),
        neutral=(Wish("battery_mode", "idle"),),
        settings=_zero("124.InOutWRte_WinTms", "124.InOutWRte_RvrtTms", "124.InOutWRte_RmpTms"),
    ),
    Control(
        needs=("battery_target_soc",),
        inputs=(own("124.MinRsvPct"),),
        ask=lambda registers, _: [Wish("battery_target_soc", need(registers, own("124.MinRsvPct")))],
        show=lambda setpoints, _: {own("124.MinRsvPct"): setpoints.get("battery_target_soc")},
    ),
    Switched(
        setpoint="active_power_limit",
        enable=own("704.WMaxLimPctEna"),
        timer=own("704.WMaxLimPctRvrtTms"),
        value=lambda registers, _, suffix: need(registers, own(f"704.WMaxLimPct{suffix}")),
        enable_back=own("704.WMaxLimPctEnaRvrt"),
    ).control(
        (own("704.WMaxLimPct"),),
        lambda setpoints, _: {own("704.WMaxLimPct"): setpoints.get("active_power_limit")},
        {own("704.WMaxLimPctRvrt"): 100.0},
    ),
    Switched(
        setpoint="power_factor",
        enable=own("704.PFWInjEna"),
        timer=own("704.PFWInjRvrtTms"),
        value=_factor_704,
        enable_back=own("704.PFWInjEnaRvrt"),
    ).control(
        (own("704.PFWInj.PF"), own("704.PFWInj.Ext")),
        _show_factor_704,
        {own("704.PFWInjRvrt.PF"): 1.0, own("704.PFWInjRvrt.Ext"): OVER_EXCITED},
    ),
    Switched(
        setpoint="reactive_power",
        enable=own("704.VarSetEna"),
        timer=own("704.VarSetRvrtTms"),
        value=_var_704,
        enable_back=own("704.VarSetEnaRvrt"),
    ).control(
        (own("704.VarSetMod"), own("704.VarSet"), own("704.VarSetPct")),
        _show_var_704,
        _zero("704.VarSetRvrt", "704.VarSetPctRvrt"),
    ),
)

_SWITCH: Final = (0.0, 1.0)
_PERCENT: Final = (0.0, 100.0)
_EITHER_WAY: Final = (-100.0, 100.0)

LIMITS: Final[Mapping[str, tuple[float, float]]] = {
    **{
        control.enable: _SWITCH
        for control in CONTROLS
        if control.enable
    },
    **{register: _SWITCH for control in CONTROLS for register in control.settings if register.endswith("EnaRvrt")},
    own("123.Conn"): _SWITCH,
    own("123.WMaxLimPct"): _PERCENT,
    own("123.OutPFSet"): (-1.0, 1.0),
    own("123.VArWMaxPct"): _EITHER_WAY,
    own("123.VArMaxPct"): _EITHER_WAY,
    own("123.VArPct_Mod"): (1, 2),
    own("124.StorCtl_Mod"): (0, DISCHARGE),
    own("124.InWRte"): _PERCENT,
    own("124.OutWRte"): _PERCENT,
    own("124.MinRsvPct"): _PERCENT,
    own("704.WMaxLimPct"): _PERCENT,
    own("704.WMaxLimPctRvrt"): _PERCENT,
    own("704.PFWInj.PF"): (0.0, 1.0),
    own("704.PFWInj.Ext"): _SWITCH,
    own("704.PFWInjRvrt.PF"): (0.0, 1.0),
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
