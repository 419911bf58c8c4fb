# ruff: noqa: D103, INP001 - part of a script
"""A run as a picture: what was asked for, what was given, and the error."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pygal

EVERY: Final = 3
"""Seconds from one point to the next."""
MOST: Final = 10.0
"""%. Errors are drawn up to it: right after a new target they are as large as the step."""


def draw(path: Path, title: str, wanted: Sequence[float], given: Sequence[float], step: float) -> None:
    top = math.ceil(1.1 * max(*wanted, *given) / 4e6) * 4
    chart = pygal.XY(
        title=title, show_dots=False, x_title="minutes", y_title="MW (error: %, on the right)", width=1000, height=480,
        legend_at_bottom=True, js=(), secondary_range=(-MOST, MOST), disable_xml_declaration=True,
        xrange=(0, len(wanted) * step / 60), range=(0, top),
        y_labels=[top * n / 4 for n in range(5)], value_formatter="{:g}".format,
        style=pygal.style.CleanStyle(colors=("#555555", "#1f77b4", "#d62728")),
    )  # fmt: skip
    seconds = range(0, min(len(wanted), len(given)), max(1, round(EVERY / step)))
    chart.add("target, MW", [(n * step / 60, wanted[n] / 1e6) for n in seconds])
    chart.add("power, MW", [(n * step / 60, given[n] / 1e6) for n in seconds])
    errors = ((n * step / 60, (given[n] / wanted[n] - 1) * 100) for n in seconds)
    chart.add("error, %", [(at, max(-MOST, min(MOST, error))) for at, error in errors], secondary=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(chart.render(is_unicode=True), "utf-8")


def draw_day(
    path: Path, title: str, wanted: Sequence[float], given: Sequence[float], sun: Sequence[float], step: float
) -> None:
    """Draw a day: targets in MW, what was given, and what the modules could have given."""
    low, top = min(0.0, *wanted, *given) / 1e6, max(*wanted, *given, *sun) / 1e6
    chart = pygal.XY(
        title=title, show_dots=False, x_title="hours, UTC", y_title="MW", width=1000, height=480, legend_at_bottom=True,
        js=(), disable_xml_declaration=True, xrange=(0, len(wanted) * step / 3600), range=(1.05 * low, 1.05 * top),
        x_labels=range(0, 25, 3), value_formatter="{:g}".format,
        style=pygal.style.CleanStyle(colors=("#d3b200", "#555555", "#1f77b4")),
    )  # fmt: skip
    for name, series in (("PV could give", sun), ("target", wanted), ("power", given)):
        chart.add(name, [(n * step / 3600, round(power / 1e6, 4)) for n, power in enumerate(series)])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(chart.render(is_unicode=True), "utf-8")
