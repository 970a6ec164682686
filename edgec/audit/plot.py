"""The convergence curve as an SVG: a logarithmic axis of samples, a linear one of gaps."""

from __future__ import annotations

import math

import numpy as np

from edgec.audit.convergence import STILL, Curve
from edgec.svg import line, opening, polyline, text

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 60, 20, 46, 48
STEP = 0.2  # between the lines of the grid
LINES = (("worst", "#b3261e", "worst tenth of the values"), ("median", "#1a5fb4", "median value"))


def svg(curve: Curve, title: str) -> str:
    """A picture of a curve that has points; text, about 3 KB."""

    def x(n: float) -> float:
        share = math.log(n) / math.log(curve.samples)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(gap: float) -> float:
        return round(TOP + (1 - gap) * (HEIGHT - TOP - BOTTOM), 1)

    parts = [
        opening(WIDTH, HEIGHT),
        text(LEFT, 18, title, size=14),
    ]
    for gap in np.arange(0, 1 + STEP / 2, STEP):
        parts.append(line(LEFT, y(gap), WIDTH - RIGHT, y(gap), "#ddd"))
        parts.append(text(LEFT - 6, y(gap) + 4, f"{gap:.0%}", "end"))
    for n in curve.points:
        if n == curve.samples or x(curve.samples) - x(n) > 24:
            parts.append(line(x(n), y(0), x(n), y(0) + 4, "#555"))
            parts.append(text(x(n), y(0) + 18, str(n), "middle"))
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, "samples", "middle"))
    parts.append(line(LEFT, y(STILL), WIDTH - RIGHT, y(STILL), "#777", dashed=True))
    for row, (name, colour, label) in enumerate(LINES):
        gaps = getattr(curve, name)
        points = " ".join(f"{x(n)},{y(gap)}" for n, gap in enumerate(gaps, 1))
        parts.append(polyline(points, colour))
        at = WIDTH - 200
        parts.append(line(at, 14 + 15 * row, at + 20, 14 + 15 * row, colour))
        parts.append(text(at + 26, 18 + 15 * row, label, "start"))
    if curve.enough:
        parts.append(line(x(curve.enough), y(0), x(curve.enough), y(1), "#777", dashed=True))
        parts.append(text(x(curve.enough) + 4, y(1) + 12, f"{curve.enough} are enough", "start"))
    return "\n".join([*parts, "</svg>", ""])
