"""Models of an inverter's measurements: 101 to 103, 111 to 113, and 160."""

from typing import Final

import msgspec

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
    (("VA", Type.INT16, own("apparent"), "VA", "VA_SF"),),
    (("VAr", Type.INT16, "ac_reactive_power", "var", "VAr_SF"),),
    (("PF", Type.INT16, own("power_factor"), "Pct", "PF_SF"),),
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
    "DCW_SF": Scale.DC_POWER,
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
SPLIT_PHASE: Final = _integer(102, "Inverter, split phase")
THREE_PHASE: Final = _integer(103, "Inverter, three phase")
SINGLE_PHASE_FLOAT: Final = _float(111, "Inverter, single phase, float")
SPLIT_PHASE_FLOAT: Final = _float(112, "Inverter, split phase, float")
THREE_PHASE_FLOAT: Final = _float(113, "Inverter, three phase, float")


class Module(msgspec.Struct, frozen=True):
    """One of 160's, by what it shows."""

    name: str
    """IDStr, as Fronius' hybrids have it: clients know a battery by that."""
    what: str
    """What its fields begin with: `<what>_current` and so on."""
    energy: str = ""
    """The point that counts what flowed through it."""


STRING_MODULES: Final = tuple(Module(f"MPPT {n}", f"pv{n}") for n in range(1, STRINGS + 1))
BATTERY_MODULES: Final = (
    Module("StCha 3", "battery_in", "battery_charge_total"),
    Module("StDisCha 4", "battery_out", "battery_discharge_total"),
)
HYBRID_MODULES: Final = (*STRING_MODULES[:2], *BATTERY_MODULES, *STRING_MODULES[2:])
"""Clients made for hybrids (evcc's fronius-gen24, TeslaSolarCharger) look for the battery at 3 and 4, so further
strings come after."""


def _module(n: int, module: Module) -> tuple[Pt, ...]:
    return (
        Pt("ID", Type.UINT16, constant=n),
        Pt("IDStr", Type.STRING, size=8, constant=module.name),
        Pt("DCA", Type.UINT16, _shown(module, "current"), "A", "DCA_SF"),
        Pt("DCV", Type.UINT16, _shown(module, "voltage"), "V", "DCV_SF"),
        Pt("DCW", Type.UINT16, own(f"{module.what}_power"), "W", "DCW_SF"),
        Pt("DCWH", Type.ACC32, module.energy, "Wh", "DCWH_SF"),
        Pt("Tms", Type.UINT32, unit="Secs"),
        Pt("Tmp", Type.INT16, unit="C"),
        Pt("DCSt", Type.ENUM16, own(f"{module.what}_state")),
        Pt("DCEvt", Type.BITFIELD32),
    )


def _shown(module: Module, quantity: str) -> str:
    """Return the point of a string, or the battery's by its direction."""
    return own(f"{module.what}_{quantity}") if module.energy else f"{module.what}_{quantity}"


def _modules(title: str, modules: tuple[Module, ...]) -> Model:
    return Model(
        160,
        title,
        (
            sf("DCA_SF", Scale.STRING_CURRENT),
            sf("DCV_SF", Scale.VOLTAGE),
            sf("DCW_SF", Scale.MODULE_POWER),
            sf("DCWH_SF", Scale.ENERGY),
            Pt("Evt", Type.BITFIELD32, constant=0),
            Pt("N", Type.COUNT, constant=len(modules)),
            Pt("TmsPer", Type.UINT16),
            *(point for n, module in enumerate(modules, 1) for point in _module(n, module)),
        ),
        # A scan reads as far as N to know how many modules follow.
        gate=10,
    )


MPPT: Final = _modules("PV strings", STRING_MODULES)
HYBRID_MPPT: Final = _modules("PV strings and battery", HYBRID_MODULES)
