"""Models of an inverter's measurements: 101, 103, 111, 113 and 160."""

from typing import Final

from gateway.bridges.modbus.maps.sunspec.points import Model, Pt, Type, own, sf
from gateway.bridges.modbus.maps.sunspec.scales import Scale

STRINGS: Final = 4
"""As many as the point table has. The model's length must not depend on how many are in use."""

_AC: Final = (
    # name, integer type, expression or point, unit, scale factor
    (("A", Type.UINT16, own("amps"), "A", "A_SF"),
     ("AphA", Type.UINT16, "l1_current", "A", "A_SF"),
     ("AphB", Type.UINT16, "l2_current", "A", "A_SF"),
     ("AphC", Type.UINT16, "l3_current", "A", "A_SF")),
    (("PPVphAB", Type.UINT16, "", "V", "V_SF"),
     ("PPVphBC", Type.UINT16, "", "V", "V_SF"),
     ("PPVphCA", Type.UINT16, "", "V", "V_SF"),
     ("PhVphA", Type.UINT16, "l1_voltage", "V", "V_SF"),
     ("PhVphB", Type.UINT16, "l2_voltage", "V", "V_SF"),
     ("PhVphC", Type.UINT16, "l3_voltage", "V", "V_SF")),
    (("W", Type.INT16, "ac_power", "W", "W_SF"),),
    (("Hz", Type.UINT16, own("frequency"), "Hz", "Hz_SF"),),
    (("VA", Type.INT16, "ac_apparent_power", "VA", "VA_SF"),),
    (("VAr", Type.INT16, "ac_reactive_power", "var", "VAr_SF"),),
    (("PF", Type.INT16, "ac_power_factor", "Pct", "PF_SF"),),
    (("WH", Type.ACC32, "energy_total", "Wh", "WH_SF"),),
    (("DCA", Type.UINT16, "", "A", "DCA_SF"),),
    (("DCV", Type.UINT16, "", "V", "DCV_SF"),),
    (("DCW", Type.INT16, "pv_power", "W", "DCW_SF"),),
    (("TmpCab", Type.INT16, "temperature", "C", "Tmp_SF"),
     ("TmpSnk", Type.INT16, "", "C", "Tmp_SF"),
     ("TmpTrns", Type.INT16, "", "C", "Tmp_SF"),
     ("TmpOt", Type.INT16, "", "C", "Tmp_SF")),
)  # fmt: skip
"""Measurements, in groups that share a scale factor, which follows each group in the integer models."""

_SCALES: Final = {
    "A_SF": Scale.CURRENT,
    "V_SF": Scale.VOLTAGE,
    "W_SF": Scale.POWER,
    "Hz_SF": Scale.FREQUENCY,
    "VA_SF": Scale.POWER,
    "VAr_SF": Scale.POWER,
    "PF_SF": Scale.FACTOR_PERCENT,
    "WH_SF": Scale.ENERGY,
    "DCA_SF": Scale.STRING_CURRENT,
    "DCV_SF": Scale.VOLTAGE,
    "DCW_SF": Scale.POWER,
    "Tmp_SF": Scale.TEMPERATURE,
}

_STATE: Final = (
    Pt("St", Type.ENUM16, own("inverter_state")),
    Pt("StVnd", Type.ENUM16, "data.status"),
    # No cloud interface says which of SunSpec's events is there; the device's own bits go to EvtVnd1.
    Pt("Evt1", Type.BITFIELD32, constant=0),
    Pt("Evt2", Type.BITFIELD32, constant=0),
    Pt("EvtVnd1", Type.BITFIELD32, "fault_code"),
    *(Pt(f"EvtVnd{n}", Type.BITFIELD32) for n in (2, 3, 4)),
)


def _integer(id_: int, title: str) -> Model:
    points: list[Pt] = []
    for group in _AC:
        points += (Pt(name, type_, shows, unit, scaled_by) for name, type_, shows, unit, scaled_by in group)
        points.append(sf(group[0][4], _SCALES[group[0][4]]))
    return Model(id_, title, (*points, *_STATE), gate=2)


def _float(id_: int, title: str) -> Model:
    points = (Pt(name, Type.FLOAT32, shows, unit) for group in _AC for name, _, shows, unit, _ in group)
    return Model(id_, title, (*points, *_STATE), gate=2)


SINGLE_PHASE: Final = _integer(101, "Inverter, single phase")
THREE_PHASE: Final = _integer(103, "Inverter, three phase")
SINGLE_PHASE_FLOAT: Final = _float(111, "Inverter, single phase, float")
THREE_PHASE_FLOAT: Final = _float(113, "Inverter, three phase, float")


def _string(n: int) -> tuple[Pt, ...]:
    return (
        Pt("ID", Type.UINT16, constant=n),
        Pt("IDStr", Type.STRING, size=8, constant=f"PV{n}"),
        Pt("DCA", Type.UINT16, f"pv{n}_current", "A", "DCA_SF"),
        Pt("DCV", Type.UINT16, f"pv{n}_voltage", "V", "DCV_SF"),
        Pt("DCW", Type.UINT16, own(f"pv{n}_power"), "W", "DCW_SF"),
        Pt("DCWH", Type.ACC32, unit="Wh", sf="DCWH_SF"),
        Pt("Tms", Type.UINT32, unit="Secs"),
        Pt("Tmp", Type.INT16, unit="C"),
        Pt("DCSt", Type.ENUM16),
        Pt("DCEvt", Type.BITFIELD32),
    )


MPPT: Final = Model(
    160,
    "PV strings",
    (
        sf("DCA_SF", Scale.STRING_CURRENT),
        sf("DCV_SF", Scale.VOLTAGE),
        sf("DCW_SF", Scale.POWER),
        sf("DCWH_SF"),
        Pt("Evt", Type.BITFIELD32, constant=0),
        Pt("N", Type.COUNT, constant=STRINGS),
        Pt("TmsPer", Type.UINT16),
        *(point for n in range(1, STRINGS + 1) for point in _string(n)),
    ),
    # A scan reads as far as N to know how many strings follow.
    gate=10,
)
