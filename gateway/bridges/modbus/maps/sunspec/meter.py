"""Models 201 and 203: a meter, at the grid connection.

Quadrants 1 and 2 are named "imported" in these models, so W > 0 imports, as `grid_power` does.
"""

from typing import Final

from gateway.bridges.modbus.maps.sunspec.points import Model, Pt, Type, own, sf
from gateway.bridges.modbus.maps.sunspec.scales import Scale

_PHASES: Final = ("", "phA", "phB", "phC")
_ENERGY_PHASES: Final = ("", "PhA", "PhB", "PhC")


def _power(name: str, unit: str, factor: str, shows: str) -> tuple[Pt, ...]:
    """Return the total and the phases. What a phase has is not known."""
    return tuple(Pt(f"{name}{phase}", Type.INT16, "" if phase else shows, unit, factor) for phase in _PHASES)


def _energy(name: str, unit: str, factor: str, shows: str = "") -> tuple[Pt, ...]:
    return tuple(Pt(f"{name}{phase}", Type.ACC32, "" if phase else shows, unit, factor) for phase in _ENERGY_PHASES)


def _meter(id_: int, title: str, line_to_line: str) -> Model:
    voltages = (
        ("PhV", own("volts")),
        *((f"PhVph{phase}", f"l{n}_voltage") for n, phase in enumerate("ABC", 1)),
        ("PPV", ""),
        *((f"{line_to_line}{pair}", "") for pair in ("AB", "BC", "CA")),
    )
    return Model(
        id_,
        title,
        (
            Pt("A", Type.INT16, own("amps"), "A", "A_SF"),
            *(Pt(f"Aph{phase}", Type.INT16, f"l{n}_current", "A", "A_SF") for n, phase in enumerate("ABC", 1)),
            sf("A_SF", Scale.CURRENT),
            *(Pt(name, Type.INT16, shows, "V", "V_SF") for name, shows in voltages),
            sf("V_SF", Scale.VOLTAGE),
            Pt("Hz", Type.INT16, own("frequency"), "Hz", "Hz_SF"),
            sf("Hz_SF", Scale.FREQUENCY),
            *_power("W", "W", "W_SF", own("meter_power")),
            sf("W_SF", Scale.POWER),
            *_power("VA", "VA", "VA_SF", "ac_apparent_power"),
            sf("VA_SF", Scale.POWER),
            *_power("VAR", "var", "VAR_SF", "ac_reactive_power"),
            sf("VAR_SF", Scale.POWER),
            *_power("PF", "Pct", "PF_SF", "ac_power_factor"),
            sf("PF_SF", Scale.FACTOR_PERCENT),
            *_energy("TotWhExp", "Wh", "TotWh_SF", "grid_export_total"),
            *_energy("TotWhImp", "Wh", "TotWh_SF", "grid_import_total"),
            sf("TotWh_SF", Scale.ENERGY),
            *_energy("TotVAhExp", "VAh", "TotVAh_SF"),
            *_energy("TotVAhImp", "VAh", "TotVAh_SF"),
            sf("TotVAh_SF"),
            *_energy("TotVArhImpQ1", "varh", "TotVArh_SF"),
            *_energy("TotVArhImpQ2", "varh", "TotVArh_SF"),
            *_energy("TotVArhExpQ3", "varh", "TotVArh_SF"),
            *_energy("TotVArhExpQ4", "varh", "TotVArh_SF"),
            sf("TotVArh_SF"),
            Pt("Evt", Type.BITFIELD32, constant=0),
        ),
        gate=2,
    )


SINGLE_PHASE: Final = _meter(201, "Meter, single phase", "PPVph")
THREE_PHASE: Final = _meter(203, "Meter, three phase", "PhVph")
