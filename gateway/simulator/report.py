"""A reading of a plant as points of the table: what a device measures and tells the cloud."""

from collections.abc import Mapping, Sequence
from math import copysign, exp, pi, sin, sqrt
from typing import Final

from gateway.core.model import Value
from gateway.core.points import NONE
from gateway.simulator.flows import SOC_MAX, SOC_MIN, DeviceFlow, DeviceState
from gateway.simulator.noise import derive, swing, unit
from gateway.simulator.plant import Reading
from gateway.simulator.sky import Sky
from gateway.simulator.specs import DeviceSpec, PlantSpec

FAULT_CODE: Final = "512"
NO_FAULT: Final = "0"
FAULT_TEXT: Final = "Isolation Failure"
OFFLINE: Final = "offline"
_MAINS_VOLTAGE: Final = 230.0
_MAINS_FREQUENCY: Final = 50.0
_BACKED_UP: Final = 0.35
"""Part of the site's consumption that is on the backup output."""

Values = Mapping[str, Value]


def plant_values(plant: PlantSpec, reading: Reading) -> Values:
    """Return a plant's points."""
    states, flow = reading.devices, reading.flow
    stores = [
        (state.stored, device.model.battery.capacity)
        for device, state in zip(plant.devices, states, strict=True)
        if device.model.battery
    ]
    capacity = sum(full for _, full in stores)
    generated = [state.generated for state in states]
    statuses = {status_of(s, f) for s, f in zip(states, flow.devices, strict=True)}
    today, total = sum(meter.today for meter in generated), sum(meter.total for meter in generated)
    return {
        "status": next(status for status in ("fault", "normal", "waiting") if status in statuses),
        "capacity": sum(device.peak_power for device in plant.devices) / 1000,
        "battery_capacity": capacity * (SOC_MAX - SOC_MIN) / 100 if stores else None,
        "pv_power": flow.pv,
        "battery_power": flow.battery if stores else None,
        "grid_power": flow.grid,
        "load_power": flow.load,
        "ev_power": sum(flow.chargers) if plant.chargers else None,
        "battery_soc": 100 * sum(stored for stored, _ in stores) / capacity if stores else None,
        "energy_today": today,
        "energy_month": sum(meter.month for meter in generated),
        "energy_year": sum(meter.year for meter in generated),
        "energy_total": total,
        **(_battery_totals(states) if stores else {}),
        # SEMS reckons the yield with one price, whether it was sold or used.
        **(
            {} if plant.tariff is None else {"income_today": plant.tariff * today, "income_total": plant.tariff * total}
        ),
        **weather_values(reading),
        **_site_totals(reading),
    }


def device_values(plant: PlantSpec, position: int, reading: Reading, seed: int) -> Values:
    """Return a device's points. What it has no hardware for is None, or not there at all."""
    device, state, flow = plant.devices[position], reading.devices[position], reading.flow.devices[position]
    dice = derive(seed, device.serial, "device")
    rated, setpoints = device.model.rated_power, state.setpoints
    utilised = abs(flow.ac) / rated
    metered = plant.metered == position
    lines = voltages(dice, device.model.phases, utilised if flow.ac > 0 else 0.0, reading.time)
    return {
        "status": status_of(state, flow),
        "fault_code": FAULT_CODE if state.tripped else NO_FAULT,
        "fault_text": FAULT_TEXT if state.tripped else "",
        "firmware": firmware(dice),
        "signal_strength": signal_strength(dice, reading.time),
        "ac_power": flow.ac,
        "ac_reactive_power": flow.reactive,
        "ac_apparent_power": flow.apparent,
        "ac_power_factor": power_factor(flow.ac, flow.reactive),
        "pv_power": flow.pv,
        "battery_power": flow.battery if device.model.battery else None,
        "backup_power": _backup(device, state, reading),
        "load_power": reading.flow.load if metered else None,
        "grid_power": reading.flow.grid if metered else None,
        "energy_today": state.generated.today,
        "energy_month": state.generated.month,
        "energy_year": state.generated.year,
        "energy_total": state.generated.total,
        "operating_hours": state.hours.total,
        "temperature": reading.sky.ambient + 8 + 32 * utilised,
        **lines,
        **currents(lines, flow.apparent),
        **frequencies(device.model.phases, reading.time),
        **_strings(device, flow, reading.sky, dice),
        **battery_values(device, state, flow, reading.sky),
        **(_site_totals(reading) if metered else {}),
        "running": setpoints.running,
        "active_power_limit": setpoints.active_power_limit,
        "reactive_power": setpoints.reactive_power,
        "power_factor": setpoints.power_factor,
        "export_limit": NONE if setpoints.export_limit is None else setpoints.export_limit,
        "work_mode": setpoints.work_mode if device.model.battery else None,
        "battery_mode": setpoints.battery_mode if device.model.battery else None,
        "battery_power_target": setpoints.battery_power_target,
        "battery_target_soc": setpoints.battery_target_soc,
    }


def status_of(state: DeviceState, flow: DeviceFlow) -> str:
    """Return what an inverter is doing."""
    if state.tripped:
        return "fault"
    return "normal" if flow.busy else "waiting"


def firmware(dice: int) -> str:
    """Return a version."""
    return f"0{1 + dice % 4}.{10 + dice // 4 % 30}.{100 + dice // 128 % 200}"


def signal_strength(dice: int, time: float) -> int:
    """Return dBm."""
    return round(-62 + 8 * swing(dice, time / 3600))


def apparent_power(active: float, reactive: float) -> float:
    """Return VA."""
    return sqrt(active * active + reactive * reactive)


def power_factor(active: float, reactive: float) -> float:
    """Return the power factor with the sign of the point table: < 0 under-excited."""
    apparent = apparent_power(active, reactive)
    return copysign(abs(active) / apparent, reactive) + 0.0 if apparent else 1.0


def weather_values(reading: Reading) -> Values:
    """Return what is known of the weather where a plant stands."""
    return {
        "ambient_temperature": reading.sky.ambient,
        "wind_speed": reading.weather.wind_speed,
        "wind_direction": reading.weather.wind_direction,
        "humidity": reading.weather.humidity,
    }


def grid_totals(reading: Reading) -> Values:
    """Return the counters of the grid connection."""
    bought, sold = reading.grid.bought, reading.grid.sold
    return {
        "grid_import_today": bought.today,
        "grid_import_total": bought.total,
        "grid_export_today": sold.today,
        "grid_export_total": sold.total,
    }


def _battery_totals(states: Sequence[DeviceState]) -> Values:
    return {
        "battery_charge_today": sum(state.charged.today for state in states),
        "battery_charge_total": sum(state.charged.total for state in states),
        "battery_discharge_today": sum(state.discharged.today for state in states),
        "battery_discharge_total": sum(state.discharged.total for state in states),
    }


def _site_totals(reading: Reading) -> Values:
    consumed = reading.grid.consumed
    return {
        **grid_totals(reading),
        "load_energy_today": consumed.today,
        "load_energy_total": consumed.total,
    }


def _backup(device: DeviceSpec, state: DeviceState, reading: Reading) -> float | None:
    """Return what the circuits draw that hybrid inverters keep alive in a blackout; None where there are none."""
    if device.model.battery is None:
        return None
    return min(_BACKED_UP * reading.household, device.model.rated_power) if state.produces else 0.0


def voltages(dice: int, phases: int, feeding: float, time: float) -> Values:
    """Return the voltage of each phase. The mains is there by night too; feeding in, 0 to 1, lifts it."""
    return {
        f"l{n}_voltage": _MAINS_VOLTAGE + 3 * swing(dice + n, time / 180) + 3 * feeding for n in range(1, phases + 1)
    }


def currents(lines: Values, apparent: float) -> Values:
    """Return the current of each phase: voltage times current is apparent power."""
    return {
        name.replace("voltage", "current"): apparent / len(lines) / voltage
        for name, voltage in lines.items()
        if isinstance(voltage, float)
    }


def frequencies(phases: int, time: float) -> Values:
    """Return the frequency of each phase. One grid, one frequency, for all devices."""
    frequency = _MAINS_FREQUENCY + 0.03 * sin(2 * pi * time / 97) + 0.02 * swing(50, time / 20)
    return {f"l{n}_frequency": frequency for n in range(1, phases + 1)}


def _strings(device: DeviceSpec, flow: DeviceFlow, sky: Sky, dice: int) -> Values:
    """Return the DC side: voltage times current is PV power, and a throttled string is nearer to open circuit."""
    model = device.model
    weights = [0.9 + 0.2 * unit(dice, n) for n in range(model.strings)]
    throttled = 1 - flow.pv / flow.available if flow.available else 0.0
    awake = 1 - exp(-sky.irradiance / 12)
    values: dict[str, Value] = {}
    for n, weight in enumerate(weights):
        heat = 1 - 0.0028 * (sky.ambient + 0.03 * sky.irradiance - 25)
        voltage = model.string_voltage * (0.98 + 0.04 * unit(dice, 20 + n)) * heat * awake * (1 + 0.17 * throttled)
        power = flow.pv * weight / sum(weights)
        values[f"pv{n + 1}_voltage"] = voltage
        values[f"pv{n + 1}_current"] = power / voltage if power else 0.0
    return values


def battery_values(device: DeviceSpec, state: DeviceState, flow: DeviceFlow, sky: Sky) -> Values:
    """Return what the management of an inverter's battery says; nothing where there is none."""
    battery = device.model.battery
    if battery is None:
        return {}
    soc = state.soc(battery)
    load = abs(flow.battery) / battery.max_power
    voltage = battery.voltage * (0.94 + 0.0012 * soc - 0.015 * flow.battery / battery.max_power)
    return {
        "battery_capacity": battery.capacity * (SOC_MAX - SOC_MIN) / 100,
        "battery_soc": soc,
        "battery_soh": max(100 - 1.1 * device.age, 70.0),
        "battery_voltage": voltage,
        "battery_current": flow.battery / voltage,
        "battery_temperature": 16 + 0.3 * sky.ambient + 6 * load,
        **_battery_totals([state]),
    }
