"""What text interfaces say alike: commands, setpoints and bridges as JSON objects."""

from typing import Any

from gateway.core.model import BridgeStatus, CommandEvent, CommandState, Range, iso
from gateway.core.points import SETPOINTS


def step(event: CommandEvent) -> dict[str, Any]:
    """Return one step of a command.

    `verified` is there of a success: whether the value was read back. `correction` is there, and true, of what became
    known after the end.
    """
    command = event.command
    body: dict[str, Any] = {
        "id": command.id,
        "serial": command.serial,
        "setpoint": command.setpoint,
        "value": command.value,
        "state": event.state,
        "reason": event.reason,
        "detail": event.detail,
        "origin": command.origin,
        "time": iso(event.time),
    }
    if event.state is CommandState.SUCCEEDED:
        body["verified"] = event.verified
    if event.correction:
        body["correction"] = True
    return body


def setpoint(name: str, limits: Range) -> dict[str, Any]:
    """Return what a setpoint takes here: `{"type", "unit"}`, `"options"`, `"min"`, `"max"`, `"step"` as there are."""
    row = SETPOINTS[name]
    body: dict[str, Any] = {"type": row.type, "unit": row.unit}
    if row.options:
        return body | {"options": row.options}
    if limits.low is not None:
        body["min"] = limits.low
    if limits.high is not None:
        body["max"] = limits.high
    if limits.step is not None:
        body["step"] = limits.step
    return body


def bridge(status: BridgeStatus) -> dict[str, Any]:
    """Return how a bridge does."""
    return {"type": status.type, "up": status.up, "detail": status.detail, "since": iso(status.since)}
