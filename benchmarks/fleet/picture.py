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
