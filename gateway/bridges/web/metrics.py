"""The metrics of the gateway as a whole, and points where they are wanted. Each bridge brings metrics of its own."""

from collections import Counter
from collections.abc import Iterable
from typing import Final

import msgspec

from gateway import __version__
from gateway.api.contexts import SinkContext
from gateway.core.metrics import Later, Metrics, counter, gauge
from gateway.core.model import Quality, Severity, day_of


def _writes(context: SinkContext) -> Later:
    writes = list(context.writes())
    return lambda: (((written.serial, written.setpoint), written.life) for written in writes)


def _today(context: SinkContext) -> Later:
    day, writes = day_of(context.clock.now()), list(context.writes())

    def numbers() -> Iterable[tuple[str, float]]:
        today: Counter[str] = Counter()
        for written in writes:
            today[written.serial] += written.today if written.day == day else 0
        return today.items()

    return numbers


def _ages(context: SinkContext) -> Later:
    now, states = context.clock.now(), context.states()
    return lambda: (
        ((state.device.serial, state.device.kind), (now - state.time).total_seconds())
        for state in states
        if state.time is not None
    )


class Shown(msgspec.Struct, frozen=True):
    """Points that a bridge was told to show."""

    context: SinkContext
    points: tuple[str, ...]


def _points(shown: Shown) -> Later:
    states, points = shown.context.states(), shown.points
    return lambda: (
        ((state.device.serial, point), value)
        for state in states
        # What is stale is no number of now: its series ends, and comes again.
        if state.quality is Quality.GOOD
        for point in points
        if isinstance(value := state.values.get(point), (int, float))
    )


POINT_METRICS: Final = Metrics[Shown](
    gauge("sems_gateway_point", "Newest value of a device's point, in the point's unit", _points, "serial", "point"),
)

METRICS: Final = Metrics[SinkContext](
    gauge(
        "sems_gateway_info", "Always 1", lambda context: {(context.gateway_id, __version__): 1}, "gateway", "version"
    ),
    gauge(
        "sems_gateway_bridge_up",
        "1 while the bridge works",
        lambda context: {(status.name, status.type): status.up for status in context.bridges()},
        "bridge",
        "type",
    ),
    gauge("sems_gateway_halted", "1 while control is halted", lambda context: context.halted is not None),
    gauge(
        "sems_gateway_journal_up",
        "1 while the command journal can be written",
        lambda context: not context.journal_trouble,
    ),
    gauge(
        "sems_gateway_findings",
        "What is doubted, or was found out, about the data",
        lambda context: Counter((s.name, f.code) for s in context.bridges() for f in s.findings),
        "bridge",
        "code",
    ),
    counter(
        "sems_gateway_setpoint_writes",
        "Writes that a device's memory has taken",
        _writes,
        "serial",
        "setpoint",
    ),
    gauge("sems_gateway_device_writes_today", "Writes a device has taken since midnight UTC", _today, "serial"),
    gauge(
        "sems_gateway_devices",
        "Devices by quality of their data",
        lambda context: {**dict.fromkeys(Quality, 0), **Counter(state.quality for state in context.states())},
        "quality",
    ),
    gauge(
        "sems_gateway_alarms",
        "Active alarms by severity",
        lambda context: {**dict.fromkeys(Severity, 0), **Counter(a.severity for a in context.active_alarms())},
        "severity",
    ),
    gauge("sems_gateway_data_age_seconds", "Age of a device's newest data", _ages, "serial", "kind"),
    whole=True,
)
