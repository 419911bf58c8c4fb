"""A reading of a plant as points of the table: what a device measures and tells the cloud."""

from collections.abc import Mapping
from math import exp, pi, sin
from typing import Final

from gateway.core.model import Value
from gateway.simulator.flows import SOC_MAX, SOC_MIN, DeviceFlow, DeviceState
from gateway.simulator.noise import derive, swing, unit
from gateway.simulator.plant import Reading
from gateway.simulator.sky import Sky
from gateway.simulator.specs import DeviceSpec, PlantSpec

FAULT_CODE: Final = 1 << 9
FAULT_TEXT: Final = "Isolation Failure"
OFFLINE: Final = "offline"
_MAINS_VOLTAGE: Final = 230.0
_MAINS_FREQUENCY: Final = 50.0

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
    return {
        "status": _plant_status([_status(s, f) for s, f in zip(states, flow.devices, strict=True)]),
        "capacity": sum(device.peak_power for device in plant.devices) / 1000,
        "battery_capacity": capacity * (SOC_MAX - SOC_MIN) / 100 if stores else None,
        "pv_power": flow.pv,
        "battery_power": flow.battery if stores else None,
        "grid_power": flow.grid,
        "load_power": flow.load,
        "battery_soc": 100 * sum(stored for stored, _ in stores) / capacity if stores else None,
        "energy_today": sum(meter.today for meter in generated),
        "energy_month": sum(meter.month for meter in generated),
        "energy_total": sum(meter.total for meter in generated),
        **_grid_values(reading),
    }


def device_values(plant: PlantSpec, position: int, reading: Reading, seed: int) -> Values:
    """Return a device's points. What it has no hardware for is None, or not there at all."""
    device, state, flow = plant.devices[position], reading.devices[position], reading.flow.devices[position]
    dice = derive(seed, device.serial, "device")
    utilised = abs(flow.ac) / device.model.rated_power
    metered = plant.metered == position
    return {
        "status": _status(state, flow),
        "fault_code": FAULT_CODE if state.tripped else 0,
        "fault_text": FAULT_TEXT if state.tripped else "",
        "firmware": f"0{1 + dice % 4}.{10 + dice // 4 % 30}.{100 + dice // 128 % 200}",
        "signal_strength": round(-62 + 8 * swing(dice, reading.time / 3600)),
        "ac_power": flow.ac,
        "ac_reactive_power": 0.02 * flow.ac,
        "pv_power": flow.pv,
        "battery_power": flow.battery if device.model.battery else None,
        "load_power": reading.flow.load if metered else None,
        "grid_power": reading.flow.grid if metered else None,
        "energy_today": state.generated.today,
        "energy_month": state.generated.month,
        "energy_total": state.generated.total,
        "operating_hours": state.hours.total,
        "temperature": reading.sky.ambient + 8 + 32 * utilised,
        **_phases(device, flow, utilised, dice, reading.time),
        **_strings(device, flow, reading.sky, dice),
        **_battery(device, state, flow, reading.sky),
        **(_grid_values(reading) if metered else {}),
        "running": state.setpoints.running,
        "active_power_limit": state.setpoints.active_power_limit,
        "battery_mode": state.setpoints.battery_mode,
        "battery_power_target": state.setpoints.battery_power_target,
        "battery_target_soc": state.setpoints.battery_target_soc,
    }


def _status(state: DeviceState, flow: DeviceFlow) -> str:
    if state.tripped:
        return "fault"
    return "normal" if flow.busy else "waiting"


def _plant_status(statuses: list[str]) -> str:
    return next(status for status in ("fault", "normal", "waiting") if status in statuses)


def _grid_values(reading: Reading) -> Values:
    bought, sold, consumed = reading.grid
    return {
        "grid_import_today": bought.today,
        "grid_import_total": bought.total,
        "grid_export_today": sold.today,
        "grid_export_total": sold.total,
        "load_energy_today": consumed.today,
        "load_energy_total": consumed.total,
    }


def _phases(device: DeviceSpec, flow: DeviceFlow, utilised: float, dice: int, time: float) -> Values:
    """Return the AC side. The mains is there by night too, and feeding in lifts its voltage."""
    values: dict[str, Value] = {}
    for n in range(1, device.model.phases + 1):
        lift = 3 * utilised if flow.ac > 0 else 0.0
        voltage = _MAINS_VOLTAGE + 3 * swing(dice + n, time / 180) + lift
        values[f"l{n}_voltage"] = voltage
        values[f"l{n}_current"] = abs(flow.ac) / device.model.phases / voltage
        # One grid, one frequency, for all devices.
        values[f"l{n}_frequency"] = _MAINS_FREQUENCY + 0.03 * sin(2 * pi * time / 97) + 0.02 * swing(50, time / 20)
    return values


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


def _battery(device: DeviceSpec, state: DeviceState, flow: DeviceFlow, sky: Sky) -> Values:
    battery = device.model.battery
    if battery is None:
        return {}
    soc = state.soc(battery)
    effort = abs(flow.battery) / battery.max_power
    voltage = battery.voltage * (0.94 + 0.0012 * soc - 0.015 * flow.battery / battery.max_power)
    return {
        "battery_soc": soc,
        "battery_soh": max(100 - 1.1 * device.age, 70.0),
        "battery_voltage": voltage,
        "battery_current": flow.battery / voltage,
        "battery_temperature": 16 + 0.3 * sky.ambient + 6 * effort,
        "battery_charge_today": state.charged.today,
        "battery_charge_total": state.charged.total,
        "battery_discharge_today": state.discharged.today,
        "battery_discharge_total": state.discharged.total,
    }
