"""Models of IEEE 1547-2018: 701 to 704, and 713."""

from typing import Final

from gateway.bridges.modbus.maps.sunspec.points import Model, Pt, Type, own, sf
from gateway.bridges.modbus.maps.sunspec.scales import Scale

REVERTS_IN: Final = ".reverts_in"
"""Ends the fields that say how long a setpoint's timer still runs (fields.py)."""
_RATED: Final = own("rated")
_NOMINAL: Final = own("nominal_line_volts")
_TEMPERATURES: Final = ("Amb", "Cab", "Snk", "Trns", "Sw", "Ot")


def _phase(n: int) -> tuple[Pt, ...]:
    other = n % 3 + 1
    return (
        Pt(f"WL{n}", Type.INT16, unit="W", sf="W_SF"),
        Pt(f"VAL{n}", Type.INT16, unit="VA", sf="VA_SF"),
        Pt(f"VarL{n}", Type.INT16, unit="Var", sf="Var_SF"),
        Pt(f"PFL{n}", Type.INT16, sf="PF_SF"),
        Pt(f"AL{n}", Type.INT16, f"l{n}_current", "A", "A_SF"),
        Pt(f"VL{n}L{other}", Type.UINT16, unit="V", sf="V_SF"),
        Pt(f"VL{n}", Type.UINT16, f"l{n}_voltage", "V", "V_SF"),
        Pt(f"TotWhInjL{n}", Type.UINT64, unit="Wh", sf="TotWh_SF"),
        Pt(f"TotWhAbsL{n}", Type.UINT64, unit="Wh", sf="TotWh_SF"),
        Pt(f"TotVarhInjL{n}", Type.UINT64, unit="Varh", sf="TotVarh_SF"),
        Pt(f"TotVarhAbsL{n}", Type.UINT64, unit="Varh", sf="TotVarh_SF"),
    )


MEASUREMENTS: Final = Model(
    701,
    "DER measurements",
    (
        Pt("ACType", Type.ENUM16, own("ac_type")),
        Pt("St", Type.ENUM16, own("der_on")),
        Pt("InvSt", Type.ENUM16, own("der_state")),
        Pt("ConnSt", Type.ENUM16, own("connected")),
        Pt("Alrm", Type.BITFIELD32, own("alarm")),
        Pt("DERMode", Type.BITFIELD32),
        Pt("W", Type.INT16, "ac_power", "W", "W_SF"),
        Pt("VA", Type.INT16, own("apparent"), "VA", "VA_SF"),
        Pt("Var", Type.INT16, "ac_reactive_power", "Var", "Var_SF"),
        # "The sign of power factor should be the sign of active power", whatever 101 to 123 are set to.
        Pt("PF", Type.INT16, own("power_factor_iec"), sf="PF_SF"),
        Pt("A", Type.INT16, own("amps"), "A", "A_SF"),
        Pt("LLV", Type.UINT16, unit="V", sf="V_SF"),
        Pt("LNV", Type.UINT16, own("volts"), "V", "V_SF"),
        Pt("Hz", Type.UINT32, own("frequency"), "Hz", "Hz_SF"),
        Pt("TotWhInj", Type.UINT64, "energy_total", "Wh", "TotWh_SF"),
        Pt("TotWhAbs", Type.UINT64, unit="Wh", sf="TotWh_SF"),
        Pt("TotVarhInj", Type.UINT64, unit="Varh", sf="TotVarh_SF"),
        Pt("TotVarhAbs", Type.UINT64, unit="Varh", sf="TotVarh_SF"),
        *(
            Pt(f"Tmp{where}", Type.INT16, "temperature" if where == "Cab" else "", "C", "Tmp_SF")
            for where in _TEMPERATURES
        ),
        *_phase(1),
        *_phase(2),
        *_phase(3),
        Pt("ThrotPct", Type.UINT16, own("throttling"), "Pct"),
        Pt("ThrotSrc", Type.BITFIELD32, own("throttled_by")),
        sf("A_SF", Scale.CURRENT),
        sf("V_SF", Scale.VOLTAGE),
        sf("Hz_SF", Scale.FREQUENCY),
        sf("W_SF", Scale.POWER),
        sf("PF_SF", Scale.FACTOR),
        sf("VA_SF", Scale.POWER),
        sf("Var_SF", Scale.POWER),
        sf("TotWh_SF", Scale.WHOLE),
        sf("TotVarh_SF"),
        sf("Tmp_SF", Scale.TEMPERATURE),
        Pt("MnAlrmInfo", Type.STRING, "fault_text", size=32),
    ),
    gate=2,
)


def _power(name: str, shows: str = "") -> Pt:
    return Pt(name, Type.UINT16, shows, "W", "W_SF")


def _apparent(name: str, shows: str = "") -> Pt:
    return Pt(name, Type.UINT16, shows, "VA", "VA_SF")


def _reactive(name: str, shows: str) -> Pt:
    return Pt(name, Type.UINT16, shows, "Var", "Var_SF")


def _factor(name: str) -> Pt:
    return Pt(name, Type.UINT16, sf="PF_SF")


def _volts(name: str, shows: str = "") -> Pt:
    return Pt(name, Type.UINT16, shows, "V", "V_SF")


CAPACITY: Final = Model(
    702,
    "DER capacity",
    (
        _power("WMaxRtg", _RATED),
        _power("WOvrExtRtg"),
        _factor("WOvrExtRtgPF"),
        _power("WUndExtRtg"),
        _factor("WUndExtRtgPF"),
        _apparent("VAMaxRtg", _RATED),
        _reactive("VarMaxInjRtg", own("var_most")),
        _reactive("VarMaxAbsRtg", own("var_most_absorbed")),
        _power("WChaRteMaxRtg", own("battery_most")),
        _power("WDisChaRteMaxRtg", own("battery_most")),
        _apparent("VAChaRteMaxRtg"),
        _apparent("VADisChaRteMaxRtg"),
        _volts("VNomRtg", _NOMINAL),
        _volts("VMaxRtg"),
        _volts("VMinRtg"),
        Pt("AMaxRtg", Type.UINT16, unit="A", sf="A_SF"),
        _factor("PFOvrExtRtg"),
        _factor("PFUndExtRtg"),
        Pt("ReactSusceptRtg", Type.UINT16, unit="S", sf="S_SF"),
        Pt("NorOpCatRtg", Type.ENUM16),
        Pt("AbnOpCatRtg", Type.ENUM16),
        Pt("CtrlModes", Type.BITFIELD32, own("control_modes")),
        Pt("IntIslandCatRtg", Type.BITFIELD16),
        _power("WMax", _RATED),
        _power("WMaxOvrExt"),
        _factor("WOvrExtPF"),
        _power("WMaxUndExt"),
        _factor("WUndExtPF"),
        _apparent("VAMax", _RATED),
        _reactive("VarMaxInj", own("var_most")),
        _reactive("VarMaxAbs", own("var_most_absorbed")),
        _power("WChaRteMax", own("battery_most")),
        _power("WDisChaRteMax", own("battery_most")),
        _apparent("VAChaRteMax"),
        _apparent("VADisChaRteMax"),
        _volts("VNom", _NOMINAL),
        _volts("VMax"),
        _volts("VMin"),
        Pt("AMax", Type.UINT16, unit="A", sf="A_SF"),
        _factor("PFOvrExt"),
        _factor("PFUndExt"),
        Pt("IntIslandCat", Type.BITFIELD16),
        sf("W_SF", Scale.POWER),
        sf("PF_SF", Scale.FACTOR),
        sf("VA_SF", Scale.POWER),
        sf("Var_SF", Scale.POWER),
        sf("V_SF", Scale.VOLTAGE),
        sf("A_SF", Scale.CURRENT),
        sf("S_SF"),
    ),
)

ENTER_SERVICE: Final = Model(
    703,
    "Enter service",
    (
        Pt("ES", Type.ENUM16),
        Pt("ESVHi", Type.UINT16, unit="Pct", sf="V_SF"),
        Pt("ESVLo", Type.UINT16, unit="Pct", sf="V_SF"),
        Pt("ESHzHi", Type.UINT32, unit="Hz", sf="Hz_SF"),
        Pt("ESHzLo", Type.UINT32, unit="Hz", sf="Hz_SF"),
        Pt("ESDlyTms", Type.UINT32, unit="Secs"),
        Pt("ESRndTms", Type.UINT32, unit="Secs"),
        Pt("ESRmpTms", Type.UINT32, unit="Secs"),
        Pt("ESDlyRemTms", Type.UINT32, unit="Secs"),
        sf("V_SF", Scale.PERCENT),
        sf("Hz_SF", Scale.FREQUENCY),
    ),
)


def _left(setpoint: str) -> str:
    return f"command.{setpoint}{REVERTS_IN}"


def _power_factor_timer(direction: str, shows: str = "") -> tuple[Pt, ...]:
    return (
        Pt(f"{direction}Ena", Type.ENUM16),
        Pt(f"{direction}EnaRvrt", Type.ENUM16),
        Pt(f"{direction}RvrtTms", Type.UINT32, unit="Secs"),
        Pt(f"{direction}RvrtRem", Type.UINT32, shows, "Secs"),
    )


def _power_factor(group: str) -> tuple[Pt, ...]:
    return Pt(f"{group}.PF", Type.UINT16, sf="PF_SF"), Pt(f"{group}.Ext", Type.ENUM16)


CONTROLS: Final = Model(
    704,
    "DER controls",
    (
        *_power_factor_timer("PFWInj", _left("power_factor")),
        *_power_factor_timer("PFWAbs"),
        Pt("WMaxLimPctEna", Type.ENUM16),
        Pt("WMaxLimPct", Type.UINT16, unit="Pct", sf="WMaxLimPct_SF"),
        Pt("WMaxLimPctRvrt", Type.UINT16, unit="Pct", sf="WMaxLimPct_SF"),
        Pt("WMaxLimPctEnaRvrt", Type.ENUM16),
        Pt("WMaxLimPctRvrtTms", Type.UINT32, unit="Secs"),
        Pt("WMaxLimPctRvrtRem", Type.UINT32, _left("active_power_limit"), "Secs"),
        Pt("WSetEna", Type.ENUM16),
        Pt("WSetMod", Type.ENUM16),
        Pt("WSet", Type.INT32, unit="W", sf="WSet_SF"),
        Pt("WSetRvrt", Type.INT32, unit="W", sf="WSet_SF"),
        Pt("WSetPct", Type.INT16, unit="Pct", sf="WSetPct_SF"),
        Pt("WSetPctRvrt", Type.INT16, unit="Pct", sf="WSetPct_SF"),
        Pt("WSetEnaRvrt", Type.ENUM16),
        Pt("WSetRvrtTms", Type.UINT32, unit="Secs"),
        Pt("WSetRvrtRem", Type.UINT32, unit="Secs"),
        Pt("VarSetEna", Type.ENUM16),
        Pt("VarSetMod", Type.ENUM16),
        Pt("VarSetPri", Type.ENUM16),
        Pt("VarSet", Type.INT32, unit="Var", sf="VarSet_SF"),
        Pt("VarSetRvrt", Type.INT32, unit="Var", sf="VarSet_SF"),
        Pt("VarSetPct", Type.INT16, unit="Pct", sf="VarSetPct_SF"),
        Pt("VarSetPctRvrt", Type.INT16, unit="Pct", sf="VarSetPct_SF"),
        Pt("VarSetEnaRvrt", Type.ENUM16),
        Pt("VarSetRvrtTms", Type.UINT32, unit="Secs"),
        Pt("VarSetRvrtRem", Type.UINT32, _left("reactive_power"), "Secs"),
        Pt("WRmp", Type.UINT16, unit="%Max/Sec"),
        Pt("WRmpRef", Type.ENUM16),
        Pt("VarRmp", Type.UINT16, unit="%Max/Sec"),
        Pt("AntiIslEna", Type.ENUM16),
        sf("PF_SF", Scale.FACTOR),
        sf("WMaxLimPct_SF", Scale.PERCENT),
        sf("WSet_SF"),
        sf("WSetPct_SF"),
        sf("VarSet_SF", Scale.WHOLE),
        sf("VarSetPct_SF", Scale.PERCENT),
        *_power_factor("PFWInj"),
        *_power_factor("PFWInjRvrt"),
        *_power_factor("PFWAbs"),
        *_power_factor("PFWAbsRvrt"),
    ),
)

STORAGE_CAPACITY: Final = Model(
    713,
    "DER storage",
    (
        Pt("WHRtg", Type.UINT16, "battery_capacity", "WH", "WH_SF"),
        Pt("WHAvail", Type.UINT16, own("energy_available"), "WH", "WH_SF"),
        Pt("SoC", Type.UINT16, "battery_soc", "Pct", "Pct_SF"),
        Pt("SoH", Type.UINT16, "battery_soh", "Pct", "Pct_SF"),
        Pt("Sta", Type.ENUM16, own("storage_state")),
        sf("WH_SF", Scale.CAPACITY),
        sf("Pct_SF", Scale.PERCENT),
    ),
    gate=2,
)
