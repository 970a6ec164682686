"""Speed against fidelity as an SVG: a panel for each model, and numbers that the tables explain.

The same rows give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

import peers_front as fronts
from peers_types import Row

COLUMNS, WIDTH, HEIGHT, GAP = 3, 300, 250, 16
LEFT, RIGHT, TOP, BOTTOM = 36, 10, 26, 34  # inside a panel
LOWEST, HIGHEST = -5.0, 60.0  # dB; what lies beyond is drawn at the edge
COLOURS = {
    "float": "#6e7781",
    "ort": "#c2570c",
    "nncf": "#1a7f4b",
    "olive": "#8250df",
    "edgec": "#0550ae",
}
FONT = "font-family='Helvetica, Arial, sans-serif'"
LEGEND_ROW, LEGEND_COLUMNS = 17, 3
Panel = tuple[str, Sequence[Row]]
Box = tuple[float, float, float, float]


def draw(panels: Sequence[Panel]) -> str:
    """The whole picture."""
    down = -(-len(panels) // COLUMNS)
    cases = _cases(panels)
    legend = -(-len(cases) // LEGEND_COLUMNS) * LEGEND_ROW + 30
    width, height = COLUMNS * (WIDTH + GAP) + GAP, down * (HEIGHT + GAP) + GAP + legend
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' "
        f"width='{width}' height='{height}' {FONT} font-size='11'>",
        f"<rect width='{width}' height='{height}' fill='white'/>",
    ]
    for index, panel in enumerate(panels):
        x = GAP + index % COLUMNS * (WIDTH + GAP)
        y = GAP + index // COLUMNS * (HEIGHT + GAP)
        parts += [f"<g transform='translate({x} {y})'>", *_panel(*panel), "</g>"]
    parts += [f"<g transform='translate({GAP} {height - legend})'>", *_legend(cases), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _cases(panels: Sequence[Panel]) -> list[tuple[int, str, str, str]]:
    """Number, label, family and runtime of every case that occurs."""
    found = {
        row.number: (row.number, row.case.label, row.case.family, row.case.runtime)
        for _, rows in panels
        for row in rows
    }
    return [found[number] for number in sorted(found)]


def _panel(title: str, rows: Sequence[Row]) -> Iterator[str]:
    shown = [(row, point) for row in rows if (point := fronts.point(row)) is not None]
    top = max([1.5, *(point[0] for _, point in shown)]) * 1.08
    best = fronts.front(rows)
    yield f"<text x='{LEFT}' y='15' font-weight='bold' font-size='12'>{escape(title)}</text>"
    yield from _axes(top)
    line = sorted((point for row, point in shown if row.number in best), key=lambda one: one[1])
    if line:
        path = " ".join(_step(index, line, top) for index in range(len(line)))
        yield f"<path d='{path}' fill='none' stroke='#afb8c1' stroke-width='1.5'/>"
    taken: list[Box] = [_around(*_place(point, top), 5) for _, point in shown]
    for row, point in sorted(shown, key=lambda one: (one[0].case.family == "edgec", one[0].number)):
        x, y = _place(point, top)
        yield _mark(x, y, row.case.family, row.case.runtime)
        box = _free(x, y, 6.5 * len(str(row.number)), taken)
        taken.append(box)
        weight = " font-weight='bold'" if row.number in best else ""
        yield (
            f"<text x='{box[0]:.1f}' y='{box[3] - 1.5:.1f}' font-size='10'{weight} "
            f"fill='{COLOURS[row.case.family]}'>{row.number}</text>"
        )


def _axes(top: float) -> Iterator[str]:
    left, right, bottom = LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM
    step = next(size for size in (0.5, 1.0, 2.0, 5.0) if top / size <= 8)
    for count in range(int(top / step) + 1):
        y = _place((count * step, 0.0), top)[1]
        strong = count * step == 1.0
        colour, dash = ("#57606a", " stroke-dasharray='4 3'") if strong else ("#eaeef2", "")
        yield f"<line x1='{left}' x2='{right}' y1='{y:.1f}' y2='{y:.1f}' stroke='{colour}'{dash}/>"
        yield _text(left - 5, y + 3.5, f"{count * step:g}x", "end")
    for value in range(0, int(HIGHEST) + 1, 10):
        x = _place((0.0, float(value)), top)[0]
        yield f"<line x1='{x:.1f}' x2='{x:.1f}' y1='{TOP}' y2='{bottom}' stroke='#eaeef2'/>"
        yield _text(x, bottom + 13, f"≥{value}" if value == HIGHEST else str(value), "middle")
    yield f"<path d='M{left} {TOP}V{bottom}H{right}' fill='none' stroke='#57606a'/>"
    axes = "SQNR of the worst output, dB; up: times as fast as FP32"
    yield _text((left + right) / 2, bottom + 27, axes, "middle")


def _text(x: float, y: float, text: str, anchor: str, colour: str = "#24292f") -> str:
    place = f"x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}'"
    return f"<text {place} font-size='10' fill='{colour}'>{escape(text)}</text>"


def _step(index: int, line: Sequence[fronts.Point], top: float) -> str:
    """The front falls in steps: each point is the best up to its own fidelity."""
    x, y = _place(line[index], top)
    if index == 0:
        return f"M{x:.1f} {y:.1f}"
    before = _place(line[index - 1], top)
    return f"L{before[0]:.1f} {y:.1f}L{x:.1f} {y:.1f}"


def _place(point: fronts.Point, top: float) -> tuple[float, float]:
    """(speed, dB) to pixels within a panel."""
    share = (min(max(point[1], LOWEST), HIGHEST) - LOWEST) / (HIGHEST - LOWEST)
    x = LEFT + 6 + share * (WIDTH - LEFT - RIGHT - 12)
    return x, HEIGHT - BOTTOM - point[0] / top * (HEIGHT - TOP - BOTTOM)


def _mark(x: float, y: float, family: str, runtime: str) -> str:
    """Circle: ONNX Runtime; square: OpenVINO; diamond: a bundle."""
    paint = f"fill='{COLOURS[family]}' stroke='white'"
    if runtime == "openvino":
        return f"<rect x='{x - 4:.1f}' y='{y - 4:.1f}' width='8' height='8' {paint}/>"
    if runtime == "edgec":
        return f"<path d='M{x:.1f} {y - 6.5:.1f}l6.5 6.5l-6.5 6.5l-6.5 -6.5z' {paint}/>"
    return f"<circle cx='{x:.1f}' cy='{y:.1f}' r='4.5' {paint}/>"


def _around(x: float, y: float, size: float) -> Box:
    return x - size, y - size, x + size, y + size


def _free(x: float, y: float, width: float, taken: Sequence[Box]) -> Box:
    """A place for a label beside a mark: the one that covers least."""
    high = 9.0
    corners = [
        (x + 7, y - high / 2),
        (x - width - 7, y - high / 2),
        (x - width / 2, y - 7 - high),
        (x - width / 2, y + 7),
        (x + 5, y - 5 - high),
        (x - width - 5, y - 5 - high),
        (x + 5, y + 5),
        (x - width - 5, y + 5),
    ]
    boxes = [(left, above, left + width, above + high) for left, above in corners]
    inside = [box for box in boxes if box[0] > LEFT and box[2] < WIDTH and box[3] < HEIGHT - BOTTOM]
    return min(inside or boxes, key=lambda box: sum(_common(box, other) for other in taken))


def _common(a: Box, b: Box) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0.0) * max(height, 0.0)


def _legend(cases: Sequence[tuple[int, str, str, str]]) -> Iterator[str]:
    rows = -(-len(cases) // LEGEND_COLUMNS)
    step = (COLUMNS * (WIDTH + GAP)) / LEGEND_COLUMNS
    for index, (number, label, family, runtime) in enumerate(cases):
        x, y = index // rows * step + 10, index % rows * LEGEND_ROW + 10
        yield _mark(x, y, family, runtime)
        text = escape(f"{number}  {label}")
        yield f"<text x='{x + 12:.1f}' y='{y + 4:.1f}' fill='{COLOURS[family]}'>{text}</text>"
    note = "circle: ONNX Runtime, square: OpenVINO, diamond: edgec's bundle; grey: the Pareto front"
    yield _text(4, rows * LEGEND_ROW + 14, note, "start", "#57606a")
