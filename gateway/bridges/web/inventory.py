"""Devices and bridges, for who reads."""

from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.bridge import Context
from gateway.api.contexts import StatesContext
from gateway.bridges.web.access_policy import Caller
from gateway.bridges.web.openapi import OFFSET_LIMIT, PAGE, PAGE_LIMIT
from gateway.bridges.web.problems import ProblemError
from gateway.bridges.web.replies import json_response
from gateway.core import shapes
from gateway.core.model import DeviceKind, DeviceState, Range, Reason, iso

NAME_LIMIT: Final = 64


def devices(context: Context, request: Request) -> Response:
    """Answer which devices there are: `?plant=&kind=&offset=&limit=`."""
    query = request.query_params
    offset = _whole(query, "offset", 0, 0, OFFSET_LIMIT)
    limit = _whole(query, "limit", PAGE, 1, PAGE_LIMIT)
    kind = query.get("kind")
    if kind is not None and kind not in list(DeviceKind):
        raise ProblemError(Reason.BAD_REQUEST, f"kind takes one of {', '.join(DeviceKind)}")
    found = [
        state
        for state in context.states()
        if query.get("plant") in (None, state.device.plant) and kind in (None, state.device.kind)
    ]
    page = [shapes.device(state) for state in found[offset : offset + limit]]
    return json_response({"total": len(found), "offset": offset, "devices": page})


def known(context: StatesContext, serial: str) -> DeviceState:
    """Return the state of a device. Raises ProblemError where there is none such."""
    state = context.state(serial)
    if state is None:
        raise ProblemError(Reason.UNKNOWN_DEVICE, f"no device {serial[:NAME_LIMIT]!r} is known")
    return state


def device(context: Context, caller: Caller, serial: str) -> Response:
    """Answer what is known of one device, and what this caller may set."""
    state = known(context, serial)
    permitted: Mapping[str, Range] = context.permitted(state.device, caller.origin) if caller.write else {}
    return json_response(
        shapes.device(state)
        | {
            "rated_power": state.device.rated_power,
            "source": state.source,
            "values": state.values,
            "setpoints": {name: shapes.setpoint(name, limits) for name, limits in permitted.items()},
        }
    )


def bridges(context: Context) -> Response:
    """Answer how every bridge does."""
    return json_response({"bridges": {status.name: shapes.bridge(status) for status in context.bridges()}})


def halt(context: Context) -> dict[str, Any]:
    """Return whether control is halted, since when, by whom and why."""
    current = context.halted
    if current is None:
        return {"halted": False}
    return {"halted": True, "by": current.by, "reason": current.reason, "since": iso(current.since)}


def _whole(query: Mapping[str, str], key: str, default: int, low: int, high: int) -> int:
    text = query.get(key, str(default))
    value = int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else -1
    if not low <= value <= high:
        raise ProblemError(Reason.BAD_REQUEST, f"{key} takes a whole number, {low} to {high}")
    return value
