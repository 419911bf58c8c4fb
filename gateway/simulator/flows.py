"""Where the power goes at one instant: PV, batteries, site and grid of one plant.

Power in W with the signs of the point table, so PV + battery + grid = load; energy in kWh.
"""

from collections.abc import Sequence
from math import copysign, sqrt
from typing import Final, NamedTuple, Self

import msgspec

from gateway.simulator.meters import Meter, Turn
from gateway.simulator.setpoints import Setpoints
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
_FILTERS: Final = 0.02
"""Reactive power of an inverter's filters, as part of its active power."""
_CHEAP_FROM: Final = 22
_CHEAP_UNTIL: Final = 6
"""Hours between which `eco` charges from the grid."""
_PEAK: Final = 0.3
"""Part of the rated power that `peak_shaving` leaves to the grid."""
_CABLES: Final = 0.95
"""Part of the modules' power that reaches the inverter."""


class DeviceState(msgspec.Struct, frozen=True, kw_only=True, gc=False):
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
        """True unless switched off, or broken."""
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

    def next_day(self, turn: Turn) -> Self:
        """Return the state at local midnight."""
        return msgspec.structs.replace(
            self,
            generated=self.generated.next_day(turn),
            charged=self.charged.next_day(turn),
            discharged=self.discharged.next_day(turn),
            hours=self.hours.next_day(turn),
        )


class DeviceFlow(msgspec.Struct, frozen=True, gc=False):
    """Power of one device."""

    available: float
    """What its modules could give."""
    pv: float
    battery: float
    """> 0 discharges."""
    ac: float
    """> 0 feeds in."""
    reactive: float = 0.0
    """var at the AC terminals, > 0 over-excited."""

    @property
    def apparent(self) -> float:
        """VA at the AC terminals."""
        return sqrt(self.ac * self.ac + self.reactive * self.reactive)

    @property
    def busy(self) -> bool:
        """True while power flows."""
        return self.pv > 0 or abs(self.battery) >= 1


class PlantFlow(msgspec.Struct, frozen=True, gc=False):
    """Power of one plant. PV + battery + grid = load."""

    devices: tuple[DeviceFlow, ...]
    pv: float
    battery: float
    grid: float
    """> 0 imports."""
    load: float
    """The site's consumption and, as in SEMS, the inverters' losses: what the meters leave over."""
    chargers: tuple[float, ...] = ()
    """Of it, what each EV charger takes."""


class Demand(NamedTuple):
    """What a plant feels and is asked for at one instant."""

    sky: Sky
    household: float
    """W that the site consumes, without EV chargers and inverters' losses."""
    hour: int
    """Of the local clock."""
    orders: Setpoints = Setpoints()
    """Setpoints of the plant's data logger; they hold for all inverters."""
    chargers: tuple[float, ...] = ()
    """W that each EV charger takes."""


def solve(plant: PlantSpec, states: Sequence[DeviceState], demand: Demand, horizon: float = STEP) -> PlantFlow:
    """Return the flows of a plant.

    `horizon`: seconds that a battery has to be able to go on like this.
    """
    flows: list[DeviceFlow | None] = [None] * len(states)
    uncovered = demand.household + sum(demand.chargers)
    for n in plant.turns:
        flow = _device(plant.devices[n], states[n], uncovered, demand, horizon)
        uncovered -= flow.ac
        flows[n] = flow
    devices = [flow for flow in flows if flow is not None]
    uncovered += _throttle(plant, devices, states, -uncovered, demand.orders)
    pv = sum(flow.pv for flow in devices)
    battery = sum(flow.battery for flow in devices)
    return PlantFlow(tuple(devices), pv, battery, uncovered, pv + battery + uncovered, demand.chargers)


def solve_alone(
    plant: PlantSpec, states: Sequence[DeviceState], sky: Sky, orders: Setpoints
) -> tuple[DeviceFlow, ...] | None:
    """Return the flows of devices that mind neither the site nor each other; None where one does.

    Those are inverters without batteries, where nothing limits what the plant may export.
    """
    if orders.most_exported is not None or any(state.setpoints.most_exported is not None for state in states):
        return None
    demand = Demand(sky, 0.0, 0, orders)
    return tuple(_device(spec, state, 0.0, demand, STEP) for spec, state in zip(plant.devices, states, strict=True))


def module_temperature(sky: Sky) -> float:
    """Return the modules' temperature, °C (Ross)."""
    return sky.ambient + 0.03 * sky.irradiance


def harvest(sky: Sky) -> float:
    """Return what modules give, as part of their peak power."""
    if sky.irradiance < _DARK:
        return 0.0
    heat = 1 - 0.0038 * (module_temperature(sky) - 25)
    return sky.irradiance / 1000 * heat * _CABLES


def _device(spec: DeviceSpec, state: DeviceState, uncovered: float, demand: Demand, horizon: float) -> DeviceFlow:
    available = spec.peak_power * harvest(demand.sky)
    if not state.produces:
        return DeviceFlow(available, 0.0, 0.0, 0.0)
    setpoints = state.setpoints.within(demand.orders)
    rated = spec.model.rated_power
    room = _active_room(setpoints) * rated
    most = min(rated * setpoints.active_power_limit / 100, room)
    most_dc = most / INVERTER_EFFICIENCY
    battery = 0.0
    if spec.model.battery:
        request = _battery_request(spec, setpoints, available, min(max(uncovered, 0.0), most), demand.hour)
        low, high = _battery_bounds(spec.model.battery, state, horizon)
        battery = min(max(request, -low, -available - room * INVERTER_EFFICIENCY), high, most_dc) + 0.0
    # PV yields to a battery that is ordered to discharge: a dispatch order is to be seen at the terminals.
    pv = min(available, most_dc - battery)
    return _at_terminals(available, pv, battery, setpoints, rated)


def _at_terminals(available: float, pv: float, battery: float, setpoints: Setpoints, rated: float) -> DeviceFlow:
    dc = pv + battery
    ac = dc * INVERTER_EFFICIENCY if dc > 0 else dc / INVERTER_EFFICIENCY
    return DeviceFlow(available, pv, battery, ac, _reactive(setpoints, ac, rated) if available or battery else 0.0)


def _reactive(setpoints: Setpoints, ac: float, rated: float) -> float:
    """Return the reactive power, var. Without a setpoint the filters' own is seen."""
    if setpoints.reactive_power:
        return setpoints.reactive_power / 100 * rated
    factor = abs(setpoints.power_factor)
    if factor == 1:
        return _FILTERS * ac
    return copysign(abs(ac) * sqrt(1 - factor * factor) / factor if factor else 0.0, setpoints.power_factor)


def _active_room(setpoints: Setpoints) -> float:
    """Return the part of the rated power that reactive power leaves to active power, so that VA stay within it."""
    if setpoints.reactive_power:
        return sqrt(max(1 - (setpoints.reactive_power / 100) ** 2, 0.0))
    return abs(setpoints.power_factor)


def _throttle(
    plant: PlantSpec, flows: list[DeviceFlow], states: Sequence[DeviceState], exported: float, orders: Setpoints
) -> float:
    """Cut what goes beyond the export limit, if there is one; returns how much, W.

    Inverters that have the limit themselves give way first, then the others: those of one plant talk to each other.
    """
    own = [state.setpoints.most_exported for state in states]
    limits = [limit for limit in (*own, orders.export_limit) if limit is not None]
    excess = exported - min(limits) if limits else 0.0
    if excess <= 0:
        return 0.0
    left = excess
    for n in sorted(range(len(flows)), key=lambda n: own[n] is None):
        flow = flows[n]
        cut = min(left, flow.ac)
        if cut <= 0:
            continue
        left -= cut
        dc = (flow.ac - cut) / INVERTER_EFFICIENCY
        # The modules give way before the battery does.
        pv = max(dc - flow.battery, 0.0)
        setpoints = states[n].setpoints.within(orders)
        flows[n] = _at_terminals(flow.available, pv, dc - pv, setpoints, plant.devices[n].model.rated_power)
    return excess - left


def _battery_request(spec: DeviceSpec, setpoints: Setpoints, available: float, cover: float, hour: int) -> float:
    """Return the power an order, or else the work mode, would have; > 0 discharges.

    - `general`, `self_use`: cover the site's load, store the surplus.
    - `off_grid`: the same, and nothing is fed in (`Setpoints.most_exported`); what it can't cover comes from the grid.
    - `backup`: fill up, from the grid too, and stay full.
    - `eco`: fill up from the grid by night, self-use by day.
    - `peak_shaving`: cover only what is above a part of the inverter's rated power, store the surplus.
    """
    target = setpoints.battery_power_target or 0.0
    order = {"charge": -target, "discharge": target, "idle": 0.0}.get(setpoints.battery_mode)
    if order is not None:
        return order
    most = spec.model.battery.max_power if spec.model.battery else 0.0
    if setpoints.work_mode == "backup" or (setpoints.work_mode == "eco" and not _CHEAP_UNTIL <= hour < _CHEAP_FROM):
        return -most
    lack = cover / INVERTER_EFFICIENCY - available
    if setpoints.work_mode == "peak_shaving" and lack > 0:
        return max(lack - _PEAK * spec.model.rated_power, 0.0)
    return lack


def _battery_bounds(battery: BatterySpec, state: DeviceState, horizon: float) -> tuple[float, float]:
    """Return the most it can charge and discharge with, so that the state of charge keeps its limits."""
    low, high = max(SOC_MIN, state.setpoints.battery_reserve_soc or 0.0), SOC_MAX
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
