"""Models of a weather station: 307, 302 and 303. They have no scale factors but fixed ones."""

from typing import Final

from gateway.bridges.modbus.maps.sunspec.points import Model, Pt, Type

BASE: Final = Model(
    307,
    "Weather",
    (
        Pt("TmpAmb", Type.INT16, "ambient_temperature", "C", exponent=-1),
        Pt("RH", Type.INT16, "humidity", "Pct"),
        Pt("Pres", Type.INT16, unit="HPa"),
        Pt("WndSpd", Type.INT16, "wind_speed", "mps"),
        Pt("WndDir", Type.INT16, "wind_direction", "deg"),
        Pt("Rain", Type.INT16, unit="mm"),
        Pt("Snw", Type.INT16, unit="mm"),
        Pt("PPT", Type.INT16),
        Pt("ElecFld", Type.INT16, unit="Vm"),
        Pt("SurWet", Type.INT16, unit="kO"),
        Pt("SoilWet", Type.INT16, unit="Pct"),
    ),
    gate=2,
)
IRRADIANCE: Final = Model(
    302,
    "Irradiance",
    (
        Pt("GHI", Type.UINT16, unit="W/m2"),
        Pt("POAI", Type.UINT16, "irradiance", "W/m2"),
        Pt("DFI", Type.UINT16, unit="W/m2"),
        Pt("DNI", Type.UINT16, unit="W/m2"),
        Pt("OTI", Type.UINT16, unit="W/m2"),
    ),
    gate=2,
)
MODULE_TEMPERATURE: Final = Model(
    303,
    "Module temperature",
    (Pt("TmpBOM", Type.INT16, "module_temperature", "C", exponent=-1),),
    gate=2,
)
