"""Models 201 to 204, and 211 to 214 with floats: a meter, at the grid connection.

Quadrants 1 and 2 are named "imported" in these models, so W > 0 imports, as `grid_power` does, and VAR > 0 draws.
"""

from typing import Final

from gateway.bridges.modbus.maps.sunspec.points import Model, Pt, Type, own, sf
from gateway.bridges.modbus.maps.sunspec.scales import Scale

_PHASES: Final = ("", "phA", "phB", "phC")
_ENERGY_PHASES: Final = ("", "PhA", "PhB", "PhC")


_ENERGIES: Final = (
    ("TotWhExp", "Wh", "TotWh_SF", "grid_export_total"),
    ("TotWhImp", "Wh", "TotWh_SF", "grid_import_total"),
    ("TotVAhExp", "VAh", "TotVAh_SF", ""),
    ("TotVAhImp", "VAh", "TotVAh_SF", ""),
    ("TotVArhImpQ1", "varh", "TotVArh_SF", ""),
    ("TotVArhImpQ2", "varh", "TotVArh_SF", ""),
    ("TotVArhExpQ3", "varh", "TotVArh_SF", ""),
    ("TotVArhExpQ4", "varh", "TotVArh_SF", ""),
)

Column = tuple[str, str, str, str]
"""Name, what it shows, unit, scale factor."""


def _power(name: str, unit: str, factor: str, shows: str) -> tuple[Column, ...]:
    """Return the total and the phases. What a phase has is not known."""
    return tuple((f"{name}{phase}", "" if phase else shows, unit, factor) for phase in _PHASES)


def _measured(line_to_line: str) -> tuple[tuple[tuple[Column, ...], Scale], ...]:
    """Return what is measured, in groups that share a scale factor."""
    return (
        (
            (
                ("A", own("amps"), "A", "A_SF"),
                *((f"Aph{phase}", f"l{n}_current", "A", "A_SF") for n, phase in enumerate("ABC", 1)),
            ),
            Scale.CURRENT,
        ),
        (
            (
                ("PhV", own("volts"), "V", "V_SF"),
                *((f"PhVph{phase}", f"l{n}_voltage", "V", "V_SF") for n, phase in enumerate("ABC", 1)),
                ("PPV", "", "V", "V_SF"),
                *((f"{line_to_line}{pair}", "", "V", "V_SF") for pair in ("AB", "BC", "CA")),
            ),
            Scale.VOLTAGE,
        ),
        ((("Hz", own("frequency"), "Hz", "Hz_SF"),), Scale.FREQUENCY),
        (_power("W", "W", "W_SF", own("meter_power")), Scale.POWER),
        (_power("VA", "VA", "VA_SF", own("meter_apparent")), Scale.POWER),
        (_power("VAR", "var", "VAR_SF", own("meter_reactive")), Scale.POWER),
        (_power("PF", "Pct", "PF_SF", own("meter_power_factor")), Scale.FACTOR_PERCENT),
    )


def _integer(id_: int, title: str, line_to_line: str) -> Model:
    points: list[Pt] = []
    for group, scale in _measured(line_to_line):
        points += (Pt(name, Type.INT16, shows, unit, factor) for name, shows, unit, factor in group)
        points.append(sf(group[0][3], scale))
    for n, (name, unit, factor, shows) in enumerate(_ENERGIES):
        points += (Pt(f"{name}{phase}", Type.ACC32, "" if phase else shows, unit, factor) for phase in _ENERGY_PHASES)
        if n + 1 == len(_ENERGIES) or _ENERGIES[n + 1][2] != factor:
            points.append(sf(factor, Scale.ENERGY if factor == "TotWh_SF" else None))
    return Model(id_, title, (*points, Pt("Evt", Type.BITFIELD32, constant=0)), gate=2)


def _float(id_: int, title: str) -> Model:
    points = [
        Pt(name, Type.FLOAT32, shows, "PF" if unit == "Pct" else unit)
        for group, _ in _measured("PPVph")
        for name, shows, unit, _ in group
    ]
    for name, unit, _, shows in _ENERGIES:
        # The definitions write the phases of reactive energies with a small p here.
        phases = _PHASES if "VArh" in name else _ENERGY_PHASES
        points += (Pt(f"{name}{phase}", Type.FLOAT32, "" if phase else shows, unit) for phase in phases)
    return Model(id_, title, (*points, Pt("Evt", Type.BITFIELD32, constant=0)), gate=2)


SINGLE_PHASE: Final = _integer(201, "Meter, single phase", "PPVph")
SPLIT_PHASE: Final = _integer(202, "Meter, split phase", "PhVph")
WYE: Final = _integer(203, "Meter, three phase", "PhVph")
DELTA: Final = _integer(204, "Meter, three phase, delta", "PhVph")
SINGLE_PHASE_FLOAT: Final = _float(211, "Meter, single phase, float")
SPLIT_PHASE_FLOAT: Final = _float(212, "Meter, split phase, float")
WYE_FLOAT: Final = _float(213, "Meter, three phase, float")
DELTA_FLOAT: Final = _float(214, "Meter, three phase, delta, float")
