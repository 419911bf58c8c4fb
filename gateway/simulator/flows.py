"""Where the power goes at one instant: PV, batteries, site and grid of one plant.

Power in W with the signs of the point table, so PV + battery + grid = load; energy in kWh.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple, Self

import msgspec

from gateway.simulator.sky import Sky
from gateway.simulator.specs import BatterySpec, DeviceSpec, PlantSpec

INVERTER_EFFICIENCY: Final = 0.975
BATTERY_EFFICIENCY: Final = 0.95
"""One way; there and back 0.95²."""
SOC_MIN: Final = 10.0
SOC_MAX: Final = 100.0
"""%: what the battery's own management allows."""
STEP: Final = 60.0
"""Seconds of the physics grid."""
_DARK: Final = 4.0
"""W/m² below which an inverter does not start."""
_CABLES: Final = 0.95
"""Part of the modules' power that reaches the inverter."""


class Meter(NamedTuple):
    """A counter of energy, kWh; or of hours."""

    today: float
    month: float
    total: float

    def plus(self, amount: float) -> "Meter":
        """Return the meter after `amount` more."""
        return Meter(self.today + amount, self.month + amount, self.total + amount)

    def next_day(self, *, new_month: bool) -> "Meter":
        """Return the meter at local midnight."""
        return Meter(0.0, 0.0 if new_month else self.month, self.total)


class Setpoints(msgspec.Struct, frozen=True):
    """What a device was last told, by the names of the point table."""

    running: bool = True
    active_power_limit: float = 100.0
    battery_mode: str | None = None
    """None: never told, so the battery serves the site's own consumption."""
    battery_power_target: float | None = None
    battery_target_soc: float | None = None


class DeviceState(msgspec.Struct, frozen=True, kw_only=True):
    """What a device carries from one step to the next."""

    setpoints: Setpoints = Setpoints()
    tripped: bool = False
    """Stands still with a fault of its own."""
    stored: float = 0.0
    """kWh in the battery."""
    generated: Meter
    charged: Meter
    discharged: Meter
    hours: Meter

    @property
    def produces(self) -> bool:
        """True unless told to stand still, or broken."""
        return self.setpoints.running and not self.tripped

    def soc(self, battery: BatterySpec) -> float:
        """Return the state of charge, %."""
        return 100 * self.stored / battery.capacity

    def after(self, flow: "DeviceFlow", seconds: float) -> Self:
        """Return the state after that power has flowed for that long."""
        hours = seconds / 3600
        charge, discharge = max(-flow.battery, 0.0) / 1000 * hours, max(flow.battery, 0.0) / 1000 * hours
        return type(self)(
            setpoints=self.setpoints,
            tripped=self.tripped,
            stored=self.stored + charge * BATTERY_EFFICIENCY - discharge / BATTERY_EFFICIENCY,
            generated=self.generated.plus(flow.pv / 1000 * hours),
            charged=self.charged.plus(charge),
            discharged=self.discharged.plus(discharge),
            hours=self.hours.plus(hours if flow.busy else 0.0),
        )

    def next_day(self, *, new_month: bool) -> Self:
        """Return the state at local midnight."""
        return msgspec.structs.replace(
            self,
            generated=self.generated.next_day(new_month=new_month),
            charged=self.charged.next_day(new_month=new_month),
            discharged=self.discharged.next_day(new_month=new_month),
            hours=self.hours.next_day(new_month=new_month),
        )


class DeviceFlow(NamedTuple):
    """Power of one device."""

    available: float
    """What its modules could give."""
    pv: float
    battery: float
    """> 0 discharges."""
    ac: float
    """> 0 feeds in."""

    @property
    def busy(self) -> bool:
        """True while power flows."""
        return self.pv > 0 or abs(self.battery) >= 1


class PlantFlow(NamedTuple):
    """Power of one plant. PV + battery + grid = load."""

    devices: tuple[DeviceFlow, ...]
    pv: float
    battery: float
    grid: float
    """> 0 imports."""
    load: float
    """The site's consumption and, as in SEMS, the inverters' losses: what the meters leave over."""


def solve(
    plant: PlantSpec, states: Sequence[DeviceState], sky: Sky, site_load: float, horizon: float = STEP
) -> PlantFlow:
    """Return the flows of a plant.

    `horizon`: seconds that a battery has to be able to go on like this.
    """
    available = [_available(device, sky) for device in plant.devices]
    flows: list[DeviceFlow | None] = [None] * len(available)
    uncovered = site_load
    for n in plant.turns:
        flow = _device(plant.devices[n], states[n], available[n], uncovered, horizon)
        uncovered -= flow.ac
        flows[n] = flow
    devices = tuple(flow for flow in flows if flow is not None)
    pv = sum(flow.pv for flow in devices)
    battery = sum(flow.battery for flow in devices)
    return PlantFlow(devices, pv, battery, uncovered, pv + battery + uncovered)


def module_temperature(sky: Sky) -> float:
    """Return the modules' temperature, °C (Ross)."""
    return sky.ambient + 0.03 * sky.irradiance


def _available(device: DeviceSpec, sky: Sky) -> float:
    if sky.irradiance < _DARK:
        return 0.0
    heat = 1 - 0.0038 * (module_temperature(sky) - 25)
    return device.peak_power * sky.irradiance / 1000 * heat * _CABLES


def _device(spec: DeviceSpec, state: DeviceState, available: float, uncovered: float, horizon: float) -> DeviceFlow:
    if not state.produces:
        return DeviceFlow(available, 0.0, 0.0, 0.0)
    most = spec.model.rated_power * state.setpoints.active_power_limit / 100
    most_dc = most / INVERTER_EFFICIENCY
    battery = 0.0
    if spec.model.battery:
        wish = _battery_wish(state.setpoints, available, min(max(uncovered, 0.0), most))
        low, high = _battery_bounds(spec.model.battery, state, horizon)
        battery = min(max(wish, -low), high, most_dc)
    # PV yields to a battery that was told to discharge: a dispatch order is to be seen at the terminals.
    pv = min(available, most_dc - battery)
    dc = pv + battery
    ac = dc * INVERTER_EFFICIENCY if dc > 0 else dc / INVERTER_EFFICIENCY
    return DeviceFlow(available, pv, battery, ac)


def _battery_wish(setpoints: Setpoints, available: float, cover: float) -> float:
    target = setpoints.battery_power_target or 0.0
    match setpoints.battery_mode:
        case "charge":
            return -target
        case "discharge":
            return target
        case "idle":
            return 0.0
        case _:
            return cover / INVERTER_EFFICIENCY - available


def _battery_bounds(battery: BatterySpec, state: DeviceState, horizon: float) -> tuple[float, float]:
    """Return the most it can charge and discharge with, so that the state of charge keeps its limits."""
    low, high = SOC_MIN, SOC_MAX
    target = state.setpoints.battery_target_soc
    if target is not None:
        if state.setpoints.battery_mode == "charge":
            high = min(high, target)
        elif state.setpoints.battery_mode == "discharge":
            low = max(low, target)
    soc = battery.capacity / 100
    to_watts = 1000 * 3600 / horizon
    room = max(high * soc - state.stored, 0.0) / BATTERY_EFFICIENCY * to_watts
    content = max(state.stored - low * soc, 0.0) * BATTERY_EFFICIENCY * to_watts
    return min(battery.max_power, room), min(battery.max_power, content)
