"""An inspection as one HTML file: parts as boxes, what crosses as arrows, then the tables.

The picture is SVG without a script. Every text of the model is escaped where it enters, and no
colour, link or style ever comes from it. Light or dark follows the reader's system.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from edgec.inspection import OUTSIDE, Crossing, Inspection, Level, PartView, Shortfall
from edgec.report.figures import bytes_text, crossing_text, macs_text, plain, shape_text
from edgec.types import Kind

WIDTH, GAP, ROW = 232, 190, 17  # of a box, between columns, of a line of text
HEAD, PAD, BETWEEN = 46, 14, 34
PILL = 30
MARGIN = 26
MOST_OPS, MOST_LINES, MOST_MISSING = 5, 3, 3
STYLE = """
:root{color-scheme:light dark}
body{margin:0;padding:32px 40px;font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;
background:#f7f7f5;color:#1c1d21}
h1{font-size:22px;margin:0 0 2px;font-weight:650;overflow-wrap:anywhere}
h2{font-size:16px;margin:36px 0 10px;font-weight:650}
p{margin:4px 0;max-width:78ch;overflow-wrap:anywhere}
.about{color:#63656e}
figure{margin:24px 0 0;padding:0;overflow-x:auto;background:#fff;border:1px solid #e2e2de;
border-radius:14px}
table{border-collapse:collapse;font-size:13.5px;background:#fff;border:1px solid #e2e2de;
border-radius:10px;border-spacing:0;overflow:hidden}
th,td{text-align:left;padding:7px 14px;border-top:1px solid #ecece8;vertical-align:top;
overflow-wrap:anywhere}
th{font-weight:600;color:#63656e;border-top:0;white-space:nowrap}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
td.cannot{color:#b3261e;font-weight:600;white-space:nowrap}td.soft{color:#8a5a00;white-space:nowrap}
code{font:12.5px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
svg{display:block;font-family:system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
.box{fill:#fff;stroke:#d5d6d1;stroke-width:1.2}
.pill{fill:#f1f1ee;stroke:#d5d6d1}
.name{font-size:15px;font-weight:650;fill:#1c1d21}
.kind{font-size:11px;font-weight:600;letter-spacing:.04em;fill:#fff}
.text{font-size:12.5px;fill:#1c1d21}.dim{font-size:12px;fill:#6c6e77}
.end{text-anchor:end}.middle{text-anchor:middle}
.track{fill:#ecece8}
.edge{fill:none;stroke:#a3a6af;stroke-linecap:round}.tip{fill:#a3a6af}
.label{font-size:11.5px;fill:#4b4d55}.size{font-size:12px;font-weight:650;fill:#1c1d21}
.halo{fill:#fff}
.bad{fill:#b3261e;font-size:12px;font-weight:600}.warn{fill:#8a5a00;font-size:12px}
.badge{fill:#fdecea}.badge-warn{fill:#fdf3dd}
.cnn{fill:#2f6fde}.transformer{fill:#7a4fd0}.recurrent{fill:#b14aa0}.mlp{fill:#0f8a7e}
.fusion{fill:#c2570c}.glue{fill:#6b6f7a}
@media (prefers-color-scheme:dark){
body{background:#141519;color:#e8e8ea}.about,th{color:#9c9fa9}
figure,table{background:#1c1e24;border-color:#31343d}th,td{border-color:#2a2d35}
td.cannot{color:#ff8a80}td.soft{color:#f0b653}
.box{fill:#23262e;stroke:#3b3f4a}.pill{fill:#2a2d36;stroke:#3b3f4a}
.name,.text,.size{fill:#f0f0f2}.dim{fill:#9c9fa9}.track{fill:#343842}
.edge{stroke:#6d7280}.tip{fill:#6d7280}.label{fill:#b9bcc6}.halo{fill:#1c1e24}
.bad{fill:#ff8a80}.warn{fill:#f0b653}.badge{fill:#402321}.badge-warn{fill:#3b2f17}
.cnn{fill:#4a86f0}.transformer{fill:#9470e6}.recurrent{fill:#c866b8}.mlp{fill:#22a698}
.fusion{fill:#d97324}.glue{fill:#858a96}}
"""


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


def page(found: Inspection) -> str:
    """The whole HTML document."""
    title = f"{found.graph.source}: parts"
    if found.target is not None:
        title += f" on {found.target.name}"
    body = [f"<h1>{_safe(title)}</h1>", f'<p class="about">{_safe(about(found))}</p>']
    body += [f"<p>{_safe(note)}</p>" for note in (*fixed_note(found), *found.notes)]
    body += [f"<figure>{svg(found)}</figure>"]
    if found.target is not None:
        body += ["<h2>What the target lacks</h2>", _lacking(found)]
    body += ["<h2>Parts</h2>", _parts(found), "<h2>What crosses</h2>", _crossings(found)]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{_safe(title)}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def about(found: Inspection) -> str:
    """One line over everything: nodes, bytes, work, and the target."""
    parts = [view.part for view in found.parts]
    nodes = sum(len(part.nodes) for part in parts)
    weights = sum(part.weight_bytes for part in parts)
    text = (
        f"{len(parts)} part{'s' * (len(parts) != 1)}, {nodes} nodes, {bytes_text(weights)} weights"
    )
    if found.target is None:
        return text
    target = found.target
    return f"{text}; target {target.name} ({target.stack}), {target.verified}"


def fixed_note(found: Inspection) -> list[str]:
    """What was taken for granted so that shapes are known."""
    if not found.fixed:
        return []
    names = ", ".join(plain(name) for name in found.fixed)
    return [
        f"for a batch of 1 ({names}), since an open one cannot be followed through this graph; "
        "--shape says otherwise"
    ]


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
        f'aria-label="{_safe(found.graph.source)}: its parts and what crosses between them">'
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
    for above, below in zip(own, own[1:], strict=False):
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
    for key, own in leaving.items():
        own.sort(key=lambda pair: places[pair[1]].middle)
    for key, own in arriving.items():
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
            f'd="{path}"><title>{_safe(told)}</title></path>'
        )
        # beside the target where columns are far apart, so that labels of a long arrow stay free
        near = min(end[0] - start[0], GAP)
        x = end[0] - near // 2 if near < end[0] - start[0] else (start[0] + end[0]) // 2
        y = end[1] if near < end[0] - start[0] else (start[1] + end[1]) // 2
        labels.append(_label(x, y, crossings))
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


def _label(x: int, y: int, crossings: Sequence[Crossing]) -> str:
    """The sizes of what crosses, over its types and shapes."""
    rows: list[tuple[str, str]] = []
    for one in crossings[:MOST_LINES]:
        rows.append(("size", "size unknown" if one.size is None else bytes_text(one.size)))
        rows.append(("label", f"{one.dtype} {shape_text(one.shape)}"))
    if len(crossings) > MOST_LINES:
        rows.append(("label", f"and {len(crossings) - MOST_LINES} more"))
    rows = [(kind, _short(text, 27)) for kind, text in rows]
    wide = max(len(text) for _, text in rows) * 6.2 + 10
    high = 15 * len(rows) + 4
    top = y - high / 2
    drawn = f'<rect class="halo" x="{x - wide / 2:.0f}" y="{top:.0f}" width="{wide:.0f}" '
    drawn += f'height="{high}" rx="5"/>'
    for index, (kind, text) in enumerate(rows):
        drawn += f'<text class="{kind} middle" x="{x}" y="{top + 13 + 15 * index:.0f}">'
        drawn += f"{_safe(text)}</text>"
    return drawn


def _pill(place: _Place, key: str) -> str:
    name = key.partition(":")[2]
    return (
        f'<rect class="pill" x="{place.x}" y="{place.y}" width="{place.width}" '
        f'height="{place.height}" rx="{place.height // 2}"/>'
        f'<text class="text middle" x="{place.x + place.width // 2}" y="{place.middle + 4}">'
        f"{_safe(_short(name, 24))}<title>{_safe(name)}</title></text>"
    )


def _box(place: _Place, view: PartView, lacking: Sequence[Shortfall], found: Inspection) -> str:
    part, x, y = view.part, place.x, place.y
    kind = part.kind if part.kind in set(Kind) else Kind.GLUE
    tag = str(kind)
    wide = int(len(tag) * 6.6 + 16)
    drawn = [
        f"<g><title>{_safe(part.reason)}</title>"
        f'<rect class="box" x="{x}" y="{y}" width="{place.width}" height="{place.height}" rx="12"/>'
        f'<rect class="{tag}" x="{x}" y="{y + 14}" width="4" height="20" rx="2"/>'
        f'<text class="name" x="{x + 16}" y="{y + 29}">{_safe(_short(part.name, 16))}</text>'
        f'<rect class="{tag}" x="{x + place.width - wide - 12}" y="{y + 15}" width="{wide}" '
        f'height="18" rx="9"/><text class="kind middle" x="{x + place.width - wide // 2 - 12}" '
        f'y="{y + 28}">{_safe(tag)}</text>'
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
            f"{_safe(_short(text, 26))}</text>"
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
            f'<text class="dim" x="{x + 16}" y="{line + 4}">{_safe(_short(op, 17))}</text>'
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
            f'<g><title>{_safe(reasons)}</title><rect class="{fill}" x="{x + 10}" y="{top}" '
            f'width="{width - 20}" height="22" rx="6"/><text class="{style}" x="{x + 18}" '
            f'y="{top + 15}">{_safe(_short(f"{level}: {told}", 34))}</text></g>'
        )
        top += 27
    return "".join(drawn)


def _badges_height(lacking: Sequence[Shortfall]) -> int:
    return 27 * len({one.level for one in lacking})


# The tables below


def _lacking(found: Inspection) -> str:
    if not found.shortfalls:
        return "<p>Nothing: every node runs, and what has weights has an INT8 form.</p>"
    rows = []
    for one in found.shortfalls:
        style = "cannot" if one.level is Level.CANNOT else "soft"
        names = ", ".join(plain(name) for name in one.nodes[:4])
        more = f" and {len(one.nodes) - 4} more" if len(one.nodes) > 4 else ""
        rows.append(
            f'<tr><td class="{style}">{_safe(str(one.level))}</td><td>{_safe(one.part)}</td>'
            f'<td>{_safe(plain(one.op_type))}</td><td class="n">{len(one.nodes)}</td>'
            f"<td>{_safe(plain(one.reason))}</td><td>{_safe(plain(one.evidence))}</td>"
            f"<td><code>{_safe(names)}</code>{_safe(more)}</td></tr>"
        )
    heads = ("", "part", "op", "nodes", "reason", "evidence", "which")
    return _table(heads, {3}, rows)


def _parts(found: Inspection) -> str:
    rows = [
        f"<tr><td>{_safe(v.part.name)}</td><td>{_safe(str(v.part.kind))}</td>"
        f"<td>{_safe(str(v.part.modality))}</td><td class=n>{len(v.part.nodes)}</td>"
        f"<td class=n>{_safe(bytes_text(v.part.weight_bytes))}</td>"
        f"<td class=n>{_safe(macs_text(v))}</td>"
        f"<td>{_safe(', '.join(f'{plain(op)} {count}' for op, count in v.ops.items()))}</td>"
        f"<td>{_safe(v.part.reason)}</td></tr>"
        for v in found.parts
    ]
    heads = ("part", "kind", "modality", "nodes", "weights", "MACs", "ops", "why")
    return _table(heads, {3, 4, 5}, rows)


def _crossings(found: Inspection) -> str:
    rows = [
        f"<tr><td>{_safe(c.source or 'input')}</td><td>{_safe(c.sink or 'output')}</td>"
        f"<td><code>{_safe(plain(c.name))}</code></td><td>{_safe(c.dtype)}</td>"
        f"<td>{_safe(shape_text(c.shape))}</td>"
        f"<td class=n>{_safe('unknown' if c.size is None else bytes_text(c.size))}</td></tr>"
        for c in found.crossings
    ]
    return _table(("from", "to", "value", "dtype", "shape", "bytes"), {5}, rows)


def _table(heads: Sequence[str], numeric: set[int], rows: Sequence[str]) -> str:
    head = "".join(
        f"<th{' class=n' if index in numeric else ''}>{text}</th>"
        for index, text in enumerate(heads)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _short(text: str, most: int) -> str:
    text = plain(text)
    return text if len(text) <= most else text[: most - 1] + "…"


def _safe(text: str) -> str:
    return escape(plain(text), quote=True)
