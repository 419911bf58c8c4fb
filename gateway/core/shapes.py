"""What text interfaces say alike: commands, setpoints and bridges as JSON objects."""

from typing import Any, Final

import msgspec

from gateway.core.findings import Finding
from gateway.core.model import Alarm, BridgeStatus, CommandEvent, CommandState, DeviceState, Range, iso
from gateway.core.points import SETPOINTS
from gateway.core.verdict import Verdict

MAX_FINDINGS: Final = 20
"""Findings of a bridge in one message; how many there are stands beside them."""


def step(event: CommandEvent) -> dict[str, Any]:
    """Return one step of a command.

    `verified` is there of a success: whether the value was read back. `correction` is there, and true, of what became
    known after the end. `parent` is there of a command to a member: the id of the fleet's.
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
        "origin": str(command.origin),
        "time": iso(event.time),
    }
    if event.state is CommandState.SUCCEEDED:
        body["verified"] = event.verified
    if event.correction:
        body["correction"] = True
    if command.parent:
        body["parent"] = command.parent
    return body


def device(state: DeviceState) -> dict[str, Any]:
    """Return what a device is, and how good its data are."""
    device = state.device
    return {
        "serial": device.serial,
        "name": device.name,
        "kind": device.kind,
        "model": device.model,
        "plant": device.plant,
        "quality": state.quality,
        "time": iso(state.time) if state.time else None,
    }


def setpoint(name: str, limits: Range) -> dict[str, Any]:
    """Return what a setpoint takes here: `{"type", "unit"}`, `"options"`, `"min"`, `"max"`, `"step"` as there are.

    `"none": true` where it takes `none`, too; `"least"` where a magnitude has a lowest value.
    """
    row = SETPOINTS[name]
    body: dict[str, Any] = {"type": row.type, "unit": row.unit}
    if row.nullable:
        body["none"] = True
    if row.least:
        body["least"] = row.least
    if row.options:
        return body | {"options": row.options}
    if limits.low is not None:
        body["min"] = limits.low
    if limits.high is not None:
        body["max"] = limits.high
    if limits.step is not None:
        body["step"] = limits.step
    return body


def verdict(found: Verdict) -> dict[str, Any]:
    """Return what judging a command came to: the value as it would be sent, and each check."""
    refusal = found.refusal
    return {
        "permitted": refusal is None,
        "reason": refusal.reason if refusal else None,
        "detail": refusal.detail if refusal else "",
        "value": found.value,
        "checks": [
            {"check": c.name, "ok": c.reason is None, "reason": c.reason, "detail": c.text} for c in found.checks
        ],
    } | ({} if found.foretold is None else {"foretold": msgspec.to_builtins(found.foretold)})


def bridge(status: BridgeStatus) -> dict[str, Any]:
    """Return how a bridge does, with the first of its findings."""
    shown = {"type": status.type, "up": status.up, "detail": status.detail, "since": iso(status.since)}
    if status.findings:
        shown["findings"] = [finding(each) for each in status.findings[:MAX_FINDINGS]]
        shown["findings_total"] = len(status.findings)
    return shown


def alarm(each: Alarm) -> dict[str, Any]:
    """Return an alarm; `cleared` is null while it is active."""
    return {
        "id": each.id,
        "serial": each.serial,
        "code": each.code,
        "text": each.text,
        "severity": each.severity,
        "raised": iso(each.raised),
        "cleared": iso(each.cleared) if each.cleared else None,
    }


def finding(each: Finding) -> dict[str, Any]:
    """Return what a bridge doubts or has found out."""
    return {
        "code": each.code,
        "subject": each.subject,
        "text": each.text,
        "remedy": each.remedy,
        "since": iso(each.since),
    }
