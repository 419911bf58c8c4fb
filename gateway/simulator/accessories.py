"""What the devices that are no inverters measure and tell the cloud."""

from collections.abc import Callable, Mapping
from typing import Final

from gateway.core.points import NONE
from gateway.simulator.flows import INVERTER_EFFICIENCY, module_temperature
from gateway.simulator.noise import derive
from gateway.simulator.plant import Reading
from gateway.simulator.report import (
    NO_FAULT,
    Values,
    apparent_power,
    battery_values,
    currents,
    device_values,
    firmware,
    frequencies,
    grid_totals,
    plant_values,
    power_factor,
    signal_strength,
    status_of,
    voltages,
    weather_values,
)
from gateway.simulator.specs import AccessorySpec, PlantSpec

_LOAD_REACTIVE: Final = 0.22
"""Reactive power that a site's motors and lamps take, as part of their active power."""


def values_of(plant: PlantSpec, serial: str, reading: Reading, seed: int) -> Values:
    """Return the points of a device, or of the plant itself by its id. What has no hardware is not there at all."""
    if serial == plant.id:
        return plant_values(plant, reading)
    position = plant.by_serial.get(serial)
    if position is not None:
        return device_values(plant, position, reading, seed)
    accessory = plant.extras[serial]
    return _REPORTS[accessory.type](plant, accessory, reading, derive(seed, serial, "device"))


def _battery(plant: PlantSpec, accessory: AccessorySpec, reading: Reading, dice: int) -> Values:
    position = plant.by_serial[accessory.at]
    device, state, flow = plant.devices[position], reading.devices[position], reading.flow.devices[position]
    return {
        "status": status_of(state, flow),
        "fault_code": NO_FAULT,
        "fault_text": "",
        "firmware": firmware(dice),
        "battery_power": flow.battery,
        **battery_values(device, state, flow, reading.sky),
    }


def _meter(plant: PlantSpec, accessory: AccessorySpec, reading: Reading, dice: int) -> Values:
    power, reactive = _measured(accessory, reading)
    return {
        "status": "normal",
        "firmware": firmware(dice),
        "grid_power": power,
        "ac_reactive_power": reactive,
        "ac_power_factor": power_factor(power, reactive),
        **_lines(plant, power, reactive, reading.time, dice),
        **(_yield_totals(reading) if accessory.generation else grid_totals(reading)),
    }


def _homekit(plant: PlantSpec, accessory: AccessorySpec, reading: Reading, dice: int) -> Values:
    return {
        **_meter(plant, accessory, reading, dice),
        "signal_strength": signal_strength(dice, reading.time),
        "load_power": reading.flow.load,
    }


def _sec1000(_: PlantSpec, __: AccessorySpec, reading: Reading, dice: int) -> Values:
    orders = reading.orders
    return {
        "status": "normal",
        "firmware": firmware(dice),
        "signal_strength": signal_strength(dice, reading.time),
        "ac_power": sum(flow.ac for flow in reading.flow.devices),
        "active_power_limit": orders.active_power_limit,
        "reactive_power": orders.reactive_power,
        "power_factor": orders.power_factor,
        "export_limit": NONE if orders.export_limit is None else orders.export_limit,
    }


def _weather_station(_: PlantSpec, __: AccessorySpec, reading: Reading, dice: int) -> Values:
    return {
        "status": "normal",
        "firmware": firmware(dice),
        "irradiance": reading.sky.irradiance,
        "module_temperature": module_temperature(reading.sky),
        **weather_values(reading),
    }


def _ev_charger(plant: PlantSpec, accessory: AccessorySpec, reading: Reading, dice: int) -> Values:
    position = plant.chargers.index(accessory)
    state, power = reading.chargers[position], reading.flow.chargers[position]
    phases = accessory.charger.phases if accessory.charger else 0
    lines = voltages(dice, phases, 0.0, reading.time)
    ev_status = "charging" if power else "plugged" if state.plugged else "unplugged"
    return {
        "status": "normal" if power else "waiting",
        "fault_code": NO_FAULT,
        "fault_text": "",
        "firmware": firmware(dice),
        "signal_strength": signal_strength(dice, reading.time),
        "ev_status": ev_status,
        "ev_power": power,
        "ev_session_energy": state.session,
        "ev_session_time": state.hours,
        "ev_energy_total": state.total,
        **lines,
        **currents(lines, power),
        "charging": state.setpoints.charging is not False,
    }


def _measured(accessory: AccessorySpec, reading: Reading) -> tuple[float, float]:
    """Return W at a meter, > 0 towards the site, and var, > 0 given to the grid."""
    flow = reading.flow
    given = sum(device.reactive for device in flow.devices)
    if accessory.generation:
        return -sum(device.ac for device in flow.devices), given
    return flow.grid, given - _LOAD_REACTIVE * reading.household


def _lines(plant: PlantSpec, power: float, reactive: float, time: float, dice: int) -> Values:
    rated = sum(device.model.rated_power for device in plant.devices)
    phases = max(device.model.phases for device in plant.devices)
    lines = voltages(dice, phases, max(-power, 0.0) / rated, time)
    return {**lines, **currents(lines, apparent_power(power, reactive)), **frequencies(phases, time)}


def _yield_totals(reading: Reading) -> Values:
    """Return what a meter has counted that stands between the inverters and the site."""
    generated = [state.generated for state in reading.devices]
    return {
        "grid_import_today": 0.0,
        "grid_import_total": 0.0,
        "grid_export_today": INVERTER_EFFICIENCY * sum(meter.today for meter in generated),
        "grid_export_total": INVERTER_EFFICIENCY * sum(meter.total for meter in generated),
    }


_REPORTS: Final[Mapping[str, Callable[[PlantSpec, AccessorySpec, Reading, int], Values]]] = {
    "battery": _battery,
    "meter": _meter,
    "homekit": _homekit,
    "sec1000": _sec1000,
    "weather_station": _weather_station,
    "ev_charger": _ev_charger,
}
