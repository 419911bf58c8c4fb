"""Models every device or every inverter has, beside its measurements: 1, 120, 121, 122, 123 and 124."""

from collections.abc import Mapping
from typing import Final

from gateway.bridges.modbus.maps.sunspec.points import PAD_VALUE, Model, Pt, Type, own, sf
from gateway.bridges.modbus.maps.sunspec.scales import Scale

_QUADRANTS: Final = ("Q1", "Q2", "Q3", "Q4")
_RATED: Final = own("rated")
_VARS: Final = {"Q1": own("var_most"), "Q4": own("var_least")}
"""Injected in quadrant 1, absorbed in 4 (github.com/sunspec/models/issues/204)."""
_FACTORS: Final = {"Q1": own("factor_q1"), "Q4": own("factor_q4")}


def _by_quadrant(name: str, shows: Mapping[str, str], unit: str) -> tuple[Pt, ...]:
    return tuple(Pt(f"{name}{one}", Type.INT16, shows.get(one, ""), unit, f"{name}_SF") for one in _QUADRANTS)


COMMON: Final = Model(
    1,
    "Device",
    (
        Pt("Mn", Type.STRING, size=16, constant="GoodWe"),
        Pt("Md", Type.STRING, own("model"), size=16),
        Pt("Opt", Type.STRING, own("kind"), size=8),
        Pt("Vr", Type.STRING, "device.firmware", size=8),
        Pt("SN", Type.STRING, "device.serial", size=16),
        Pt("DA", Type.UINT16),
        Pt("Pad", Type.PAD, constant=PAD_VALUE),
    ),
)

NAMEPLATE: Final = Model(
    120,
    "Nameplate",
    (
        Pt("DERTyp", Type.ENUM16, own("der_type")),
        Pt("WRtg", Type.UINT16, _RATED, "W", "WRtg_SF"),
        sf("WRtg_SF", Scale.POWER),
        # What an inverter is rated for it gives as active power: of apparent power it is known to give as much.
        Pt("VARtg", Type.UINT16, _RATED, "VA", "VARtg_SF"),
        sf("VARtg_SF", Scale.POWER),
        *_by_quadrant("VArRtg", _VARS, "var"),
        sf("VArRtg_SF", Scale.POWER),
        Pt("ARtg", Type.UINT16, unit="A", sf="ARtg_SF"),
        sf("ARtg_SF", Scale.CURRENT),
        *(
            Pt(f"PFRtg{quadrant}", Type.INT16, _FACTORS.get(quadrant, ""), "cos()", "PFRtg_SF")
            for quadrant in _QUADRANTS
        ),
        sf("PFRtg_SF", Scale.FACTOR),
        Pt("WHRtg", Type.UINT16, own("capacity"), "Wh", "WHRtg_SF"),
        sf("WHRtg_SF", Scale.CAPACITY),
        Pt("AhrRtg", Type.UINT16, own("charge_capacity"), "AH", "AhrRtg_SF"),
        sf("AhrRtg_SF", Scale.CHARGE),
        Pt("MaxChaRte", Type.UINT16, own("battery_most"), "W", "MaxChaRte_SF"),
        sf("MaxChaRte_SF", Scale.POWER),
        Pt("MaxDisChaRte", Type.UINT16, own("battery_most"), "W", "MaxDisChaRte_SF"),
        sf("MaxDisChaRte_SF", Scale.POWER),
        Pt("Pad", Type.PAD, constant=PAD_VALUE),
    ),
)

SETTINGS: Final = Model(
    121,
    "Basic settings",
    (
        Pt("WMax", Type.UINT16, _RATED, "W", "WMax_SF"),
        Pt("VRef", Type.UINT16, own("nominal_volts"), "V", "VRef_SF"),
        Pt("VRefOfs", Type.INT16, unit="V", sf="VRefOfs_SF"),
        Pt("VMax", Type.UINT16, unit="V", sf="VMinMax_SF"),
        Pt("VMin", Type.UINT16, unit="V", sf="VMinMax_SF"),
        Pt("VAMax", Type.UINT16, _RATED, "VA", "VAMax_SF"),
        *_by_quadrant("VArMax", _VARS, "var"),
        Pt("WGra", Type.UINT16, unit="% WMax/sec", sf="WGra_SF"),
        *(
            Pt(f"PFMin{quadrant}", Type.INT16, _FACTORS.get(quadrant, ""), "cos()", "PFMin_SF")
            for quadrant in _QUADRANTS
        ),
        Pt("VArAct", Type.ENUM16),
        Pt("ClcTotVA", Type.ENUM16),
        Pt("MaxRmpRte", Type.UINT16, unit="% WGra", sf="MaxRmpRte_SF"),
        Pt("ECPNomHz", Type.UINT16, own("nominal_hertz"), "Hz", "ECPNomHz_SF"),
        Pt("ConnPh", Type.ENUM16),
        sf("WMax_SF", Scale.POWER),
        sf("VRef_SF", Scale.VOLTAGE),
        sf("VRefOfs_SF", Scale.VOLTAGE),
        sf("VMinMax_SF", Scale.VOLTAGE),
        sf("VAMax_SF", Scale.POWER),
        sf("VArMax_SF", Scale.POWER),
        sf("WGra_SF", Scale.PERCENT),
        sf("PFMin_SF", Scale.FACTOR),
        sf("MaxRmpRte_SF", Scale.PERCENT),
        sf("ECPNomHz_SF", Scale.FREQUENCY),
    ),
)

STATUS: Final = Model(
    122,
    "Measurements and status",
    (
        Pt("PVConn", Type.BITFIELD16, own("pv_connection")),
        Pt("StorConn", Type.BITFIELD16, own("storage_connection")),
        Pt("ECPConn", Type.BITFIELD16, own("connected")),
        Pt("ActWh", Type.ACC64, "energy_total", "Wh"),
        Pt("ActVAh", Type.ACC64, unit="VAh"),
        *(Pt(f"ActVArh{quadrant}", Type.ACC64, unit="varh") for quadrant in _QUADRANTS),
        Pt("VArAval", Type.INT16, unit="var", sf="VArAval_SF"),
        sf("VArAval_SF", Scale.POWER),
        Pt("WAval", Type.UINT16, own("available"), "W", "WAval_SF"),
        sf("WAval_SF", Scale.POWER),
        Pt("StSetLimMsk", Type.BITFIELD32, own("limits_reached")),
        Pt("StActCtl", Type.BITFIELD32, own("active_controls")),
        Pt("TmSrc", Type.STRING, size=4, constant="SEMS"),
        Pt("Tms", Type.UINT32, own("time"), "Secs"),
        Pt("RtSt", Type.BITFIELD16),
        Pt("Ris", Type.UINT16, unit="ohms", sf="Ris_SF"),
        sf("Ris_SF"),
    ),
    gate=2,
)

CONTROLS: Final = Model(
    123,
    "Immediate controls",
    (
        Pt("Conn_WinTms", Type.UINT16, unit="Secs"),
        Pt("Conn_RvrtTms", Type.UINT16, unit="Secs"),
        Pt("Conn", Type.ENUM16),
        Pt("WMaxLimPct", Type.UINT16, unit="% WMax", sf="WMaxLimPct_SF"),
        Pt("WMaxLimPct_WinTms", Type.UINT16, unit="Secs"),
        Pt("WMaxLimPct_RvrtTms", Type.UINT16, unit="Secs"),
        Pt("WMaxLimPct_RmpTms", Type.UINT16, unit="Secs"),
        Pt("WMaxLim_Ena", Type.ENUM16),
        Pt("OutPFSet", Type.INT16, unit="cos()", sf="OutPFSet_SF"),
        Pt("OutPFSet_WinTms", Type.UINT16, unit="Secs"),
        Pt("OutPFSet_RvrtTms", Type.UINT16, unit="Secs"),
        Pt("OutPFSet_RmpTms", Type.UINT16, unit="Secs"),
        Pt("OutPFSet_Ena", Type.ENUM16),
        Pt("VArWMaxPct", Type.INT16, unit="% WMax", sf="VArPct_SF"),
        Pt("VArMaxPct", Type.INT16, unit="% VArMax", sf="VArPct_SF"),
        Pt("VArAvalPct", Type.INT16, unit="% VArAval", sf="VArPct_SF"),
        Pt("VArPct_WinTms", Type.UINT16, unit="Secs"),
        Pt("VArPct_RvrtTms", Type.UINT16, unit="Secs"),
        Pt("VArPct_RmpTms", Type.UINT16, unit="Secs"),
        Pt("VArPct_Mod", Type.ENUM16),
        Pt("VArPct_Ena", Type.ENUM16),
        sf("WMaxLimPct_SF", Scale.PERCENT),
        sf("OutPFSet_SF", Scale.FACTOR),
        sf("VArPct_SF", Scale.PERCENT),
    ),
)

STORAGE: Final = Model(
    124,
    "Basic storage control",
    (
        Pt("WChaMax", Type.UINT16, own("battery_most"), "W", "WChaMax_SF"),
        Pt("WChaGra", Type.UINT16, unit="% WChaMax/sec", sf="WChaDisChaGra_SF"),
        Pt("WDisChaGra", Type.UINT16, unit="% WChaMax/sec", sf="WChaDisChaGra_SF"),
        Pt("StorCtl_Mod", Type.BITFIELD16),
        Pt("VAChaMax", Type.UINT16, unit="VA", sf="VAChaMax_SF"),
        Pt("MinRsvPct", Type.UINT16, unit="% WChaMax", sf="MinRsvPct_SF"),
        # Expressions, which are hidden while data are not good: the rest of the model stays readable.
        Pt("ChaState", Type.UINT16, own("soc"), "% AhrRtg", "ChaState_SF"),
        Pt("StorAval", Type.UINT16, own("charge_available"), "AH", "StorAval_SF"),
        Pt("InBatV", Type.UINT16, own("battery_volts"), "V", "InBatV_SF"),
        Pt("ChaSt", Type.ENUM16, own("charge_state")),
        Pt("OutWRte", Type.INT16, unit="% WDisChaMax", sf="InOutWRte_SF"),
        Pt("InWRte", Type.INT16, unit=" % WChaMax", sf="InOutWRte_SF"),
        Pt("InOutWRte_WinTms", Type.UINT16, unit="Secs"),
        Pt("InOutWRte_RvrtTms", Type.UINT16, unit="Secs"),
        Pt("InOutWRte_RmpTms", Type.UINT16, unit="Secs"),
        Pt("ChaGriSet", Type.ENUM16),
        sf("WChaMax_SF", Scale.POWER),
        sf("WChaDisChaGra_SF", Scale.PERCENT),
        sf("VAChaMax_SF", Scale.POWER),
        sf("MinRsvPct_SF", Scale.PERCENT),
        sf("ChaState_SF", Scale.PERCENT),
        sf("StorAval_SF", Scale.CHARGE),
        sf("InBatV_SF", Scale.VOLTAGE),
        sf("InOutWRte_SF", Scale.PERCENT),
    ),
)
