"""Whether what stands in a field is what such a field has, where no arithmetic decides."""

from collections.abc import Mapping
from typing import Final

from gateway.core.points import POINTS
from gateway.core.zones import zone_named
from gateway.learn.columns import Column
from gateway.learn.report import Evidence, Kind
from gateway.learn.values import is_nothing
from gateway.sems.catalogue import Json

_WITHIN: Final[Mapping[str, tuple[float, float]]] = {
    "irradiance": (0, 1600), "wind_speed": (0, 75), "wind_direction": (0, 360), "operating_hours": (0, 400_000),
    "signal_strength": (-130, 100), "ev_session_time": (0, 30 * 86_400), "income_today": (0, 1e7),
    "income_total": (0, 1e10), "capacity": (0, 2e6), "battery_capacity": (0, 2e6), "rated_power": (0, 5e6),
    "battery_power_max": (0, 5e6), "time_span": (-14, 14),
}  # fmt: skip
"""Point or attribute → what it can be, in SEMS's own number."""


def plausible(column: Column, serials: frozenset[str]) -> Evidence | None:
    """Return what speaks for a column by its values; None where they are none of such a field."""
    said = [sample.raw for sample in column.samples if not is_nothing(sample.raw)][:500]
    if column.row.options:
        known = all(_key(raw) in column.row.options for raw in said)
        return Evidence(Kind.VALUES, "it has the catalogue's own codes") if known else None
    if column.gives in ("serial", "plant"):
        shared = column.gives == "plant" and 1 <= len({str(raw) for raw in said}) < len(said)
        return _serial(said, serials) or (Evidence(Kind.VALUES, "several devices share it") if shared else None)
    if column.gives == "time_zone":
        named = all(isinstance(raw, str) and zone_named(raw) is not None for raw in said)
        return Evidence(Kind.VALUES, "it names a time zone") if named else None
    if column.row.type == "text":
        texts = all(isinstance(raw, (str, int)) and not isinstance(raw, bool) for raw in said)
        return Evidence(Kind.VALUES, "it is text") if texts else None
    if any(sample.number is None for sample in column.samples if not is_nothing(sample.raw)):
        return None
    point = POINTS.get(column.row.point)
    low, high = _WITHIN.get(column.gives, (point.low, point.high) if point is not None else (None, None))
    numbers = [value for value in column.numbers if value != column.row.none]
    if any((low is not None and value < low) or (high is not None and value > high) for value in numbers):
        return None
    if column.gives in ("battery_soc", "battery_soh", "humidity") and numbers and max(numbers) <= 1 and any(numbers):
        return None  # a part of one, or all but nothing
    if numbers and (low is not None or high is not None):
        return Evidence(Kind.FORM, f"from {min(numbers):g} to {max(numbers):g}, as such a number is")
    return Evidence(Kind.FORM, "it is a number")


def _serial(said: list[Json], serials: frozenset[str]) -> Evidence | None:
    texts = [str(raw) for raw in said]
    if len(set(texts)) < len(texts) and len(set(texts)) == 1 and len(texts) > 2 and not serials & set(texts):
        return None
    if serials & set(texts):
        return Evidence(Kind.SAME, "SEMS answers for what it names")
    return None


def _key(raw: Json) -> str:
    if isinstance(raw, bool):
        return "true" if raw else "false"
    if isinstance(raw, float) and raw.is_integer():
        return str(int(raw))
    return str(raw).strip()
