"""An inspection as a picture in SVG: parts as boxes, what crosses between them as arrows.

Every text of the model is escaped where it enters, and no colour, link or style ever comes from it.
The classes are those of `edgec.report.inspected`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from edgec.inspection import OUTSIDE, Crossing, Inspection, Level, PartView, Shortfall
from edgec.report.figures import bytes_text, crossing_text, macs_text, plain, shape_text
from edgec.types import Kind

WIDTH, GAP, ROW = 232, 190, 17  # of a box, between columns, of a line of text
HEAD, PAD, BETWEEN = 46, 14, 34
PILL = 30
MARGIN = 26
CROWD = 8  # arrows at one box, from which labels would lie upon each other
MOST_OPS, MOST_LINES, MOST_MISSING = 5, 3, 3


@dataclass
class _Place:
    """A box or a pill: where it stands, and its lines."""

    key: str
    column: int
    width: int
    height: int
    x: int = 0
    y: int = 0

    @property
    def middle(self) -> int:
        return self.y + self.height // 2


def svg(found: Inspection) -> str:
    """The picture alone."""
    places, columns = _layout(found)
    width = MARGIN * 2 + columns * WIDTH + (columns - 1) * GAP
    height = max(place.y + place.height for place in places.values()) + MARGIN
    drawn = [_arrows(found, places)]
    drawn += [_pill(places[key], key) for key in places if key.startswith(("in:", "out:"))]
    lacking = {
        view.part.name: [s for s in found.shortfalls if s.part == view.part.name]
        for view in found.parts
    }
    drawn += [_box(places[v.part.name], v, lacking[v.part.name], found) for v in found.parts]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" '
        f'aria-label="{safe(found.graph.source)}: its parts and what crosses between them">'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="6.5" refY="4" markerWidth="8" '
        'markerHeight="8" markerUnits="userSpaceOnUse" orient="auto">'
        '<path class="tip" d="M0 0.6 7 4 0 7.4z"/></marker></defs>' + "".join(drawn) + "</svg>"
    )


# Where things stand: a column per step away from the inputs


def _layout(found: Inspection) -> tuple[dict[str, _Place], int]:
    depth: dict[str, int] = {}
    for view in found.parts:
        before = [c.source for c in found.crossings if c.sink == view.part.name and c.source]
        depth[view.part.name] = 1 + max((depth.get(one, 0) for one in before), default=0)
    places: dict[str, _Place] = {}
    for crossing in found.crossings:
        if crossing.source == OUTSIDE:
            column = min(
                depth[c.sink]
                for c in found.crossings
                if c.source == OUTSIDE and c.name == crossing.name
            )
            key = f"in:{crossing.name}"
            places.setdefault(key, _Place(key, column - 1, WIDTH - 60, PILL))
    last = max(depth.values(), default=0) + 1
    for view in found.parts:
        lacking = [one for one in found.shortfalls if one.part == view.part.name]
        height = HEAD + PAD + ROW * (3 + len(_ops(view))) + 22 + _badges_height(lacking)
        places[view.part.name] = _Place(view.part.name, depth[view.part.name], WIDTH, height)
    for crossing in found.crossings:
        if crossing.sink == OUTSIDE:
            key = f"out:{crossing.name}"
            places.setdefault(key, _Place(key, last, WIDTH - 60, PILL))
    used = sorted({place.column for place in places.values()})
    for place in places.values():
        place.column = used.index(place.column)
    _stack(found, places, len(used))
    above = min(place.y for place in places.values()) - MARGIN
    for place in places.values():
        place.y -= above
    return places, len(used)


def _stack(found: Inspection, places: Mapping[str, _Place], columns: int) -> None:
    """Columns from left to right; in each, things stand near what leads to them."""
    heights = []
    for column in range(columns):
        own = [place for place in places.values() if place.column == column]
        heights.append(sum(p.height for p in own) + BETWEEN * (len(own) - 1))
    tallest = max(heights)
    # parts first decide, then inputs and outputs align with what they belong to
    for column in range(columns):
        own = [place for place in places.values() if place.column == column]
        if column:
            own.sort(key=lambda place: _centre(found, places, place.key))
        y = MARGIN + (tallest - heights[column]) // 2
        for place in own:
            place.x = MARGIN + column * (WIDTH + GAP) + (WIDTH - place.width) // 2
            place.y = y
            y += place.height + BETWEEN
    for column in range(columns):
        own = [p for p in places.values() if p.column == column]
        if all(p.key.startswith(("in:", "out:")) for p in own):
            _align(found, places, own)


def _align(found: Inspection, places: Mapping[str, _Place], own: list[_Place]) -> None:
    """Inputs and outputs beside their parts, without touching each other."""
    for place in own:
        near = [places[key].middle for key in _neighbours(found, place.key) if key in places]
        if near:
            place.y = sum(near) // len(near) - place.height // 2
    own.sort(key=lambda place: place.y)
    for above, below in pairwise(own):
        below.y = max(below.y, above.y + above.height + 18)
    groups: dict[tuple[str, ...], list[_Place]] = {}
    for place in own:
        groups.setdefault(tuple(sorted(_neighbours(found, place.key))), []).append(place)
    for keys, group in groups.items():
        near = [places[key].middle for key in keys if key in places]
        if not near or len(group) < 2:
            continue
        shift = sum(near) // len(near) - (group[0].y + group[-1].y + PILL) // 2
        if all(place.y + shift >= MARGIN for place in group) and len(groups) == 1:
            for place in group:
                place.y += shift


def _centre(found: Inspection, places: Mapping[str, _Place], key: str) -> float:
    near = [
        places[one].middle
        for one in _neighbours(found, key)
        if one in places and places[one].column < places[key].column
    ]
    return sum(near) / len(near) if near else 0.0


def _neighbours(found: Inspection, key: str) -> list[str]:
    near = []
    for crossing in found.crossings:
        one, other = _ends(crossing)
        if key in (one, other):
            near.append(other if key == one else one)
    return near


def _ends(crossing: Crossing) -> tuple[str, str]:
    return (crossing.source or f"in:{crossing.name}", crossing.sink or f"out:{crossing.name}")


# What is drawn


def _arrows(found: Inspection, places: Mapping[str, _Place]) -> str:
    pairs: dict[tuple[str, str], list[Crossing]] = {}
    for crossing in found.crossings:
        pairs.setdefault(_ends(crossing), []).append(crossing)
    leaving: dict[str, list[tuple[str, str]]] = {}
    arriving: dict[str, list[tuple[str, str]]] = {}
    for pair in pairs:
        leaving.setdefault(pair[0], []).append(pair)
        arriving.setdefault(pair[1], []).append(pair)
    for own in leaving.values():
        own.sort(key=lambda pair: places[pair[1]].middle)
    for own in arriving.values():
        own.sort(key=lambda pair: places[pair[0]].middle)
    lines, labels = [], []
    for pair, crossings in pairs.items():
        one, other = places[pair[0]], places[pair[1]]
        start = (one.x + one.width, _port(one, leaving[pair[0]].index(pair), len(leaving[pair[0]])))
        end = (other.x - 3, _port(other, arriving[pair[1]].index(pair), len(arriving[pair[1]])))
        bend = max((end[0] - start[0]) * 0.45, 40)
        path = (
            f"M{start[0]} {start[1]}C{start[0] + bend:.0f} {start[1]} "
            f"{end[0] - bend:.0f} {end[1]} {end[0]} {end[1]}"
        )
        told = "\n".join(crossing_text(crossing) for crossing in crossings)
        lines.append(
            f'<path class="edge" stroke-width="{_thickness(crossings)}" marker-end="url(#tip)" '
            f'd="{path}"><title>{safe(told)}</title></path>'
        )
        # beside the target where columns are far apart, so that labels of a long arrow stay free
        near = min(end[0] - start[0], GAP)
        x = end[0] - near // 2 if near < end[0] - start[0] else (start[0] + end[0]) // 2
        y = end[1] if near < end[0] - start[0] else (start[1] + end[1]) // 2
        crowded = len(leaving[pair[0]]) > CROWD or len(arriving[pair[1]]) > CROWD
        if crowded:  # beside the pill, where arrows are still apart
            x, y = (
                (end[0] - 84, end[1]) if pair[1].startswith("out:") else (start[0] + 84, start[1])
            )
        labels.append(_label(x, y, crossings, crowded))
    return "".join(lines + labels)


def _port(place: _Place, index: int, count: int) -> int:
    """Where an arrow touches a box: spread over its side."""
    if count == 1:
        return place.middle
    span = min(place.height - 24, 52 * (count - 1))
    return int(place.middle - span / 2 + span * index / (count - 1))


def _thickness(crossings: Sequence[Crossing]) -> float:
    size = sum(c.size.per_unit for c in crossings if c.size is not None)
    return min(1.4 + max(len(str(size)) - 3, 0) * 0.55, 5.0)


def _label(x: int, y: int, crossings: Sequence[Crossing], crowded: bool) -> str:
    """The sizes of what crosses, over its types and shapes; in a crowd the first size alone."""
    rows: list[tuple[str, str]] = []
    for one in crossings[: 1 if crowded else MOST_LINES]:
        rows.append(("size", "size unknown" if one.size is None else bytes_text(one.size)))
        rows.append(("label", f"{one.dtype} {shape_text(one.shape)}"))
    if crowded:
        rows = rows[:1]
    elif len(crossings) > MOST_LINES:
        rows.append(("label", f"and {len(crossings) - MOST_LINES} more"))
    rows = [(kind, short(text, 27)) for kind, text in rows]
    wide = max(len(text) for _, text in rows) * 6.2 + 10
    high = 15 * len(rows) + 4
    top = y - high / 2
    drawn = f'<rect class="halo" x="{x - wide / 2:.0f}" y="{top:.0f}" width="{wide:.0f}" '
    drawn += f'height="{high}" rx="5"/>'
    for index, (kind, text) in enumerate(rows):
        drawn += f'<text class="{kind} middle" x="{x}" y="{top + 13 + 15 * index:.0f}">'
        drawn += f"{safe(text)}</text>"
    return drawn


def _pill(place: _Place, key: str) -> str:
    name = key.partition(":")[2]
    return (
        f'<rect class="pill" x="{place.x}" y="{place.y}" width="{place.width}" '
        f'height="{place.height}" rx="{place.height // 2}"/>'
        f'<text class="text middle" x="{place.x + place.width // 2}" y="{place.middle + 4}">'
        f"{safe(short(name, 24))}<title>{safe(name)}</title></text>"
    )


def _box(place: _Place, view: PartView, lacking: Sequence[Shortfall], found: Inspection) -> str:
    part, x, y = view.part, place.x, place.y
    kind = part.kind if part.kind in set(Kind) else Kind.GLUE
    tag = str(kind)
    wide = int(len(tag) * 6.6 + 16)
    drawn = [
        f"<g><title>{safe(part.reason)}</title>"
        f'<rect class="box" x="{x}" y="{y}" width="{place.width}" height="{place.height}" rx="12"/>'
        f'<rect class="{tag}" x="{x}" y="{y + 14}" width="4" height="20" rx="2"/>'
        f'<text class="name" x="{x + 16}" y="{y + 29}">{safe(short(part.name, 16))}</text>'
        f'<rect class="{tag}" x="{x + place.width - wide - 12}" y="{y + 15}" width="{wide}" '
        f'height="18" rx="9"/><text class="kind middle" x="{x + place.width - wide // 2 - 12}" '
        f'y="{y + 28}">{safe(tag)}</text>'
    ]
    top = y + HEAD + 14
    work = macs_text(view, short=True)
    for index, (head, text) in enumerate(
        (
            ("weights", bytes_text(part.weight_bytes)),
            ("MACs", work),
            ("nodes", str(len(part.nodes))),
        )
    ):
        line = top + ROW * index
        drawn.append(f'<text class="dim" x="{x + 16}" y="{line}">{head}</text>')
        drawn.append(
            f'<text class="text end" x="{x + place.width - 14}" y="{line}">'
            f"{safe(short(text, 26))}</text>"
        )
    top += ROW * 3 + 8
    drawn.append(_bars(view, x, top, place.width))
    top += ROW * len(_ops(view)) + 6
    drawn.append(_badges(lacking, x, top, place.width))
    return "".join(drawn) + "</g>"


def _ops(view: PartView) -> list[tuple[str, int]]:
    ops = list(view.ops.items())
    if len(ops) <= MOST_OPS:
        return ops
    rest = sum(count for _, count in ops[MOST_OPS - 1 :])
    return [*ops[: MOST_OPS - 1], (f"{len(ops) - MOST_OPS + 1} other ops", rest)]


def _bars(view: PartView, x: int, top: int, width: int) -> str:
    """How many nodes are of which operator."""
    ops = _ops(view)
    most = max((count for _, count in ops), default=1)
    left, room = x + 128, width - 128 - 44
    drawn = []
    for index, (op, count) in enumerate(ops):
        line = top + ROW * index
        long = max(room * count / most, 2)
        drawn.append(
            f'<text class="dim" x="{x + 16}" y="{line + 4}">{safe(short(op, 17))}</text>'
            f'<rect class="track" x="{left}" y="{line - 3}" width="{room}" height="6" rx="3"/>'
            f'<rect class="{view.part.kind}" x="{left}" y="{line - 3}" width="{long:.1f}" '
            'height="6" rx="3"/>'
            f'<text class="dim end" x="{x + width - 14}" y="{line + 4}">{count}</text>'
        )
    return "".join(drawn)


def _badges(lacking: Sequence[Shortfall], x: int, top: int, width: int) -> str:
    drawn = []
    for level, style, fill in (
        (Level.CANNOT, "bad", "badge"),
        (Level.LIMITS, "warn", "badge-warn"),
        (Level.FLOAT, "warn", "badge-warn"),
    ):
        own = [one for one in lacking if one.level is level]
        if not own:
            continue
        ops: dict[str, int] = {}
        for one in own:
            ops[one.op_type] = ops.get(one.op_type, 0) + len(one.nodes)
        told = ", ".join(f"{count} {op}" for op, count in list(ops.items())[:MOST_MISSING])
        told += f" and {len(ops) - MOST_MISSING} more" if len(ops) > MOST_MISSING else ""
        reasons = "\n".join(f"{one.op_type}: {one.reason}" for one in own[:12])
        drawn.append(
            f'<g><title>{safe(reasons)}</title><rect class="{fill}" x="{x + 10}" y="{top}" '
            f'width="{width - 20}" height="22" rx="6"/><text class="{style}" x="{x + 18}" '
            f'y="{top + 15}">{safe(short(f"{level}: {told}", 34))}</text></g>'
        )
        top += 27
    return "".join(drawn)


def _badges_height(lacking: Sequence[Shortfall]) -> int:
    return 27 * len({one.level for one in lacking})


def short(text: str, most: int) -> str:
    """A text in so many characters."""
    text = plain(text)
    return text if len(text) <= most else text[: most - 1] + "…"


def safe(text: str) -> str:
    """A text as HTML and SVG show it, never obey it."""
    return escape(plain(text), quote=True)
