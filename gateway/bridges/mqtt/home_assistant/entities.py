"""The components of a device: one entity each, as Home Assistant's documents of each platform have it.

Keys: a point's id for what only shows, `set_<setpoint>` for what also takes, `reset_<setpoint>` for its button.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

from gateway.bridges.mqtt.home_assistant.looks import DIAGNOSTIC, look, name
from gateway.bridges.mqtt.home_assistant.names import MAX_STATE
from gateway.bridges.mqtt.topics import SET
from gateway.core.model import Range
from gateway.core.points import NONE, POINTS, SETPOINTS, Point, Type

Component = dict[str, Any]

UNBOUNDED: Final = 100_000_000.0
"""Home Assistant's number needs bounds; the gateway itself has the last word."""
FINEST: Final = 0.001
"""The least step that a number of Home Assistant takes."""
DATA: Final = "data"
FAULT: Final = "fault"
MEASURED: Final = "measured"
SET_PREFIX: Final = "set_"
RESET_PREFIX: Final = "reset_"

_NUMBERS: Final = frozenset({Type.FLOAT, Type.INTEGER})
_ON: Final = "true"
_OFF: Final = "false"


def platform(component: Component) -> str:
    """Return which platform a component is of."""
    return str(component["platform"])


def shown(points: Iterable[str], permitted: Mapping[str, Range]) -> dict[str, Component]:
    """Return what shows these points; setpoints that may be written only where the entity can't show them."""
    return {
        point: _shown(POINTS[point])
        for point in POINTS
        if point in points and (point not in permitted or _narrow(POINTS[point], permitted[point]))
    }


def _shown(point: Point) -> Component:
    style = look(point)
    binary = point.type is Type.BOOLEAN
    component: Component = {"platform": "binary_sensor" if binary else "sensor", "name": name(point.id)}
    if binary:
        component |= {"value_template": _boolean(point.id), "payload_on": _ON, "payload_off": _OFF}
    else:
        component["value_template"] = _text(point.id) if point.type is Type.TEXT else _value(point.id)
        optional = {
            "device_class": style.device_class,
            "state_class": style.state_class,
            "unit_of_measurement": style.unit,
            "suggested_display_precision": style.precision,
        }
        component |= {key: value for key, value in optional.items() if value is not None}
    if point.type is Type.ENUM:
        component["options"] = list(point.options)
    return component | _common(point)


def _common(point: Point) -> Component:
    style = look(point)
    category = {"entity_category": style.category} if style.category else {}
    return category | ({"icon": style.icon} if style.icon else {})


def health(points: Iterable[str], bridge_availability: Component) -> dict[str, Component]:
    """Return what shows whether device and data are in order.

    The data's own entities stay available while the data are not good, for just that is what they show.
    """
    components: dict[str, Component] = {
        DATA: {
            "platform": "binary_sensor",
            "name": "Data",
            "device_class": "problem",
            "entity_category": DIAGNOSTIC,
            "value_template": "{{ 'OFF' if value_json.get('quality') == 'good' else 'ON' }}",
            "availability": [bridge_availability],
        },
        MEASURED: {
            "platform": "sensor",
            "name": "Measured",
            "device_class": "timestamp",
            "entity_category": DIAGNOSTIC,
            "enabled_by_default": False,
            "value_template": _value("time"),
            "availability": [bridge_availability],
        },
    }
    if "status" in points:
        components[FAULT] = {
            "platform": "binary_sensor",
            "name": "Fault",
            "device_class": "problem",
            "entity_category": DIAGNOSTIC,
            "value_template": "{{ 'ON' if value_json.get('status') == 'fault' else 'OFF' }}",
        }
    return components


def controls(root: str, permitted: Mapping[str, Range], *, dated: bool) -> dict[str, Component]:
    """Return what writes the permitted setpoints. `dated`: each message says when it was made."""
    components: dict[str, Component] = {}
    for setpoint, limits in permitted.items():
        point = SETPOINTS[setpoint]
        if point.type in _NUMBERS and not _is_span(limits):
            # One value is no number to choose, and Home Assistant refuses it: what stands is shown by a sensor.
            continue
        common = {"name": name(setpoint), "command_topic": f"{root}/{SET}/{setpoint}", "qos": 1, "retain": False}
        components[SET_PREFIX + setpoint] = (
            common | {"optimistic": False} | _control(point, limits, dated) | _common(point)
        )
        reset = _reset(point, limits)
        if reset is not None:
            word, value = reset
            components[RESET_PREFIX + setpoint] = common | {
                "platform": "button",
                "name": f"{word} {name(setpoint)[0].lower()}{name(setpoint)[1:]}",
                "payload_press": value,
                "command_template": _command("value | tojson" if point.nullable else "value", dated),
                "entity_category": "config",
                "icon": "mdi:restore",
            }
    return components


def _reset(point: Point, limits: Range) -> tuple[str, str] | None:
    """Return the word and the value of the button beside a number: what clears it, where that can be written."""
    if point.nullable:
        return "No", NONE
    if isinstance(point.neutral, float) and _within(point.neutral, limits):
        return "Reset", f"{point.neutral:g}"
    return None


def _control(point: Point, limits: Range, dated: bool) -> Component:
    match point.type:
        case Type.BOOLEAN:
            return {
                "platform": "switch",
                "value_template": _boolean(point.id),
                "payload_on": _ON,
                "payload_off": _OFF,
                "state_on": _ON,
                "state_off": _OFF,
                "command_template": _command("value", dated),
            }
        case Type.ENUM:
            return {
                "platform": "select",
                "value_template": _value(point.id),
                "options": list(point.options),
                "command_template": _command("value | tojson", dated),
            }
        case _:
            return _number(point, limits) | {"command_template": _command("value", dated)}


def _number(point: Point, limits: Range) -> Component:
    low = min(-UNBOUNDED, (limits.high or 0) - UNBOUNDED) if limits.low is None else limits.low
    high = max(UNBOUNDED, low + UNBOUNDED) if limits.high is None else limits.high
    style = look(point)
    component: Component = {
        "platform": "number",
        # Home Assistant logs an error for each value outside the bounds, so it never sees one.
        "value_template": f"{{% set v = value_json.get('{point.id}') %}}"
        f"{{{{ v if v is number and {low!r} <= v <= {high!r} else None }}}}",
        "min": low,
        "max": high,
        "step": _step(limits.step or (1 if point.unit else 0.01)),
        "mode": "slider" if point.unit == "%" else "box",
    }
    if style.device_class is not None:
        component["device_class"] = style.device_class
    return component | ({"unit_of_measurement": point.unit} if point.unit else {})


def _step(step: float) -> float:
    """Return the least step of Home Assistant's that is one of the device's as well."""
    return step * math.ceil(FINEST / step - 1e-9) if step < FINEST else step


def _is_span(limits: Range) -> bool:
    return limits.low is None or limits.high is None or limits.low < limits.high


def _narrow(point: Point, limits: Range) -> bool:
    """Return whether the device may be found at a value that may not be written."""
    return point.type in _NUMBERS and (limits.low, limits.high) != (point.low, point.high)


def _within(value: float, limits: Range) -> bool:
    return (limits.low is None or value >= limits.low) and (limits.high is None or value <= limits.high)


def _value(key: str) -> str:
    # `get`, for Home Assistant complains of a key that is not there. None reads as "unknown".
    return f"{{{{ value_json.get('{key}') }}}}"


def _text(key: str) -> str:
    return f"{{% set v = value_json.get('{key}') %}}{{{{ v[:{MAX_STATE}] if v else None }}}}"


def _boolean(key: str) -> str:
    return f"{{% set v = value_json.get('{key}') %}}{{{{ None if v is none else '{_ON}' if v else '{_OFF}' }}}}"


def _command(value: str, dated: bool) -> str:
    time = ', "time": "{{ utcnow().isoformat() }}"' if dated else ""
    return f'{{"value": {{{{ {value} }}}}{time}}}'
