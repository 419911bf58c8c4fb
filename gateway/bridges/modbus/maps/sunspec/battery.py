"""Model 802: a battery bank."""

from typing import Final

from gateway.bridges.modbus.maps.sunspec.points import Model, Pt, Type, own, sf
from gateway.bridges.modbus.maps.sunspec.scales import Scale

_UNKNOWN_TYPE: Final = 0
_REMOTE: Final = 0

BANK: Final = Model(
    802,
    "Battery",
    (
        Pt("AHRtg", Type.UINT16, unit="Ah", sf="AHRtg_SF"),
        Pt("WHRtg", Type.UINT16, "battery_capacity", "Wh", "WHRtg_SF"),
        Pt("WChaRteMax", Type.UINT16, own("battery_most"), "W", "WChaDisChaMax_SF"),
        Pt("WDisChaRteMax", Type.UINT16, own("battery_most"), "W", "WChaDisChaMax_SF"),
        Pt("DisChaRte", Type.UINT16, unit="%WHRtg", sf="DisChaRte_SF"),
        Pt("SoCMax", Type.UINT16, unit="%WHRtg", sf="SoC_SF"),
        Pt("SoCMin", Type.UINT16, unit="%WHRtg", sf="SoC_SF"),
        Pt("SocRsvMax", Type.UINT16, unit="%WHRtg", sf="SoC_SF"),
        Pt("SoCRsvMin", Type.UINT16, "battery_target_soc", "%WHRtg", "SoC_SF"),
        Pt("SoC", Type.UINT16, "battery_soc", "%WHRtg", "SoC_SF"),
        Pt("DoD", Type.UINT16, own("depth_of_discharge"), "%", "DoD_SF"),
        Pt("SoH", Type.UINT16, "battery_soh", "%", "SoH_SF"),
        Pt("NCyc", Type.UINT32),
        Pt("ChaSt", Type.ENUM16, own("charge_state")),
        Pt("LocRemCtl", Type.ENUM16, constant=_REMOTE),
        Pt("Hb", Type.UINT16),
        Pt("CtrlHb", Type.UINT16),
        Pt("AlmRst", Type.UINT16, constant=0),
        Pt("Typ", Type.ENUM16, constant=_UNKNOWN_TYPE),
        Pt("State", Type.ENUM16, own("bank_state")),
        Pt("StateVnd", Type.ENUM16, "data.status"),
        Pt("WarrDt", Type.UINT32),
        *(Pt(name, Type.BITFIELD32, constant=0) for name in ("Evt1", "Evt2", "EvtVnd1", "EvtVnd2")),
        Pt("V", Type.UINT16, "battery_voltage", "V", "V_SF"),
        Pt("VMax", Type.UINT16, unit="V", sf="V_SF"),
        Pt("VMin", Type.UINT16, unit="V", sf="V_SF"),
        Pt("CellVMax", Type.UINT16, unit="V", sf="CellV_SF"),
        Pt("CellVMaxStr", Type.UINT16),
        Pt("CellVMaxMod", Type.UINT16),
        Pt("CellVMin", Type.UINT16, unit="V", sf="CellV_SF"),
        Pt("CellVMinStr", Type.UINT16),
        Pt("CellVMinMod", Type.UINT16),
        Pt("CellVAvg", Type.UINT16, unit="V", sf="CellV_SF"),
        # The definition leaves the sign of A and W open. As everywhere in the gateway, > 0 discharges.
        Pt("A", Type.INT16, "battery_current", "A", "A_SF"),
        Pt("AChaMax", Type.UINT16, unit="A", sf="AMax_SF"),
        Pt("ADisChaMax", Type.UINT16, unit="A", sf="AMax_SF"),
        Pt("W", Type.INT16, "battery_power", "W", "W_SF"),
        Pt("ReqInvState", Type.ENUM16),
        Pt("ReqW", Type.INT16, unit="W", sf="W_SF"),
        Pt("SetOp", Type.ENUM16),
        Pt("SetInvState", Type.ENUM16),
        sf("AHRtg_SF"),
        sf("WHRtg_SF", Scale.CAPACITY),
        sf("WChaDisChaMax_SF", Scale.POWER),
        sf("DisChaRte_SF", Scale.PERCENT),
        sf("SoC_SF", Scale.PERCENT),
        sf("DoD_SF", Scale.PERCENT),
        sf("SoH_SF", Scale.PERCENT),
        sf("V_SF", Scale.VOLTAGE),
        sf("CellV_SF", Scale.CELL_VOLTAGE),
        sf("A_SF", Scale.BATTERY_CURRENT),
        sf("AMax_SF", Scale.BATTERY_CURRENT),
        sf("W_SF", Scale.POWER),
    ),
    gate=2,
)
