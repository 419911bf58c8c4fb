"""A SEMS cloud to run against: plants with sun, batteries and habits behind the Open API of the catalogue."""

from gateway.simulator.server import Simulator
from gateway.simulator.settings import SimulatorSettings

__all__ = ["Simulator", "SimulatorSettings"]
