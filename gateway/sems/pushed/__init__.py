"""Takes in what GoodWe sends by itself, over whatever transport: HTTP pushes, and Kafka telemetry."""

from gateway.sems.pushed.intake import Intake, Taken
from gateway.sems.pushed.outcome import BadPushError, Outcome
from gateway.sems.pushed.settings import IntakeSettings

__all__ = ["BadPushError", "Intake", "IntakeSettings", "Outcome", "Taken"]
