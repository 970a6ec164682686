"""Trends as an SVG: a panel a series, a point a run, and a line where the level changed."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgec import svg
from edgec.farm.history import Result
from edgec.farm.trend import Change

WIDTH, PANEL = 760, 220
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 40, 34
BLUE, RED, GREEN, GREY = "#1a5fb4", "#b3261e", "#1b7f3b", "#777"
LINES = 4  # of the grid
Placed = Callable[[float], float]  # a value's place in the picture


@dataclass(frozen=True)
class Panel:
    """A series: its runs, the clean ones among them in order, and where these changed."""

    title: str
    unit: str
    values: Sequence[tuple[Result, float]]
    changes: Sequence[Change]
    worse: float  # the sign of a change that is a regression

    @property
    def clean(self) -> list[int]:
        """The places of the runs that were judged."""
        return [index for index, (one, _) in enumerate(self.values) if not one.marked]


def draw(panels: Sequence[Panel]) -> str:
    """The picture of all panels, one below the other."""
    parts = [svg.opening(WIDTH, PANEL * max(1, len(panels)))]
    for index, panel in enumerate(panels):
        parts += _panel(panel, index * PANEL)
    if not panels:
        parts.append(svg.text(LEFT, TOP, "there are no results"))
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Panel, top: int) -> list[str]:
    numbers = [value for _, value in panel.values]
    low, high = min(numbers), max(numbers)
    margin = (high - low) * 0.08 or high * 0.05 or 1.0
    low, high = max(0.0, low - margin), high + margin

    def x(index: float) -> float:
        share = index / max(len(numbers) - 1, 1)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(value: float) -> float:
        share = (value - low) / (high - low)
        return round(top + TOP + (1 - share) * (PANEL - TOP - BOTTOM), 1)

    parts = [svg.text(LEFT, top + 20, panel.title, size=13)]
    for step in range(LINES + 1):
        value = low + (high - low) * step / LINES
        parts.append(svg.line(LEFT, y(value), WIDTH - RIGHT, y(value), "#ddd"))
        parts.append(svg.text(LEFT - 6, y(value) + 4, f"{value:.3g}", "end"))
    foot = top + PANEL - 12
    parts.append(svg.text(LEFT, foot, panel.values[0][0].started[:10]))
    parts.append(svg.text(WIDTH - RIGHT, foot, panel.values[-1][0].started[:10], "end"))
    hint = f"{panel.unit}; hollow: marked, not judged"
    parts.append(svg.text((LEFT + WIDTH) / 2, foot, hint, "middle"))
    parts += _levels(panel, x, y)
    for index, (one, value) in enumerate(panel.values):
        told = f"#{one.id} {one.started} {value:.4g} {panel.unit} {one.bundle_sha256[:12]}"
        told += "".join(f"; {mark}" for mark in one.page["marks"])
        parts.append(svg.dot(x(index), y(value), BLUE, told, hollow=one.marked))
    return parts


def _levels(panel: Panel, x: Placed, y: Placed) -> list[str]:
    """The median of each stretch, and what separates them."""
    clean = panel.clean
    cuts = [0, *(change.index for change in panel.changes), len(clean)]
    parts = []
    for begin, end in itertools.pairwise(cuts):
        places = clean[begin:end]
        if places:
            level = y(statistics.median(panel.values[place][1] for place in places))
            parts.append(svg.line(x(places[0]), level, x(places[-1]), level, GREY))
    for change in panel.changes:
        worse = (change.factor - 1) * panel.worse > 0
        colour, at = (RED if worse else GREEN), x(clean[change.index] - 0.5)
        head = y(max(value for _, value in panel.values))
        parts.append(
            svg.line(at, head, at, y(min(v for _, v in panel.values)), colour, dashed=True)
        )
        parts.append(svg.text(at + 4, head, f"{change.factor - 1:+.0%}, p = {change.p:.3g}"))
    return parts
