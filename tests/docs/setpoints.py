"""The tables of docs/reference/setpoints.md: what the point table and the maps say of each setpoint."""

from gateway.bridges.modbus.maps.goodwe.registers import SETTINGS
from gateway.bridges.modbus.maps.native import NATIVE
from gateway.bridges.modbus.maps.sunspec.controls import CONTROLS
from gateway.core.points import LEADERS, SETPOINTS, Type


def takes(point):
    if point.type is Type.BOOLEAN:
        return "true, false"
    return ", ".join(f"`{option}`" for option in point.options) or point.range_text().replace("none", "`none`")


def neutral(point):
    if point.group and point.id != LEADERS[point.group]:
        return f"{LEADERS[point.group]} `{SETPOINTS[LEADERS[point.group]].neutral}`"
    value = point.neutral
    if isinstance(value, bool):
        return str(value).lower()
    return f"`{value}`" if isinstance(value, str) else f"{value:g}{f' {point.unit}' if point.unit else ''}"


def places(point):
    single = next(row for row in NATIVE.rows if row.field == point.id and row.address >= 5800)
    wide = next(row for row in NATIVE.rows if row.field == point.id)
    floats = next(row for row in NATIVE.rows if row.field == point.id and 5500 <= row.address < 5800)
    native = f"{wide.address}, {floats.address}, {single.address}"
    sunspec = ", ".join(
        dict.fromkeys(
            name.removeprefix("sunspec.")
            for control in CONTROLS
            if point.id in control.needs
            for name in (*control.inputs, *([control.enable] if control.enable else []))
        )
    )
    goodwe = ", ".join(str(setting.address) for setting in SETTINGS.values() if setting.setpoint == point.id)
    return native, sunspec or "-", goodwe or "-"


def tables():
    lines = ["| setpoint | what it is | takes | a dead-man's timer sets |", "|---|---|---|---|"]
    lines += [f"| `{p.id}` | {p.description} | {takes(p)} | {neutral(p)} |" for p in SETPOINTS.values()]
    lines += ["", "| setpoint | native map: int32, float32, one register | SunSpec | GoodWe |", "|---|---|---|---|"]
    lines += [f"| `{p.id}` | {' | '.join(places(p))} |" for p in SETPOINTS.values()]
    return "\n".join(lines)
