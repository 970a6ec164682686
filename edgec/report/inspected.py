"""An inspection as one HTML file: the picture, then tables. No script, nothing from elsewhere.

Light or dark follows the reader's system.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgec.inspection import Inspection, Level
from edgec.report.figures import bytes_text, macs_text, plain, shape_text
from edgec.report.picture import safe, svg

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


def page(found: Inspection) -> str:
    """The whole HTML document."""
    title = f"{found.graph.source}: parts"
    if found.target is not None:
        title += f" on {found.target.name}"
    body = [f"<h1>{safe(title)}</h1>", f'<p class="about">{safe(about(found))}</p>']
    body += [f"<p>{safe(note)}</p>" for note in (*fixed_note(found), *found.notes)]
    body += [f"<figure>{svg(found)}</figure>"]
    if found.target is not None:
        body += ["<h2>What the target lacks</h2>", _lacking(found)]
    body += ["<h2>Parts</h2>", _parts(found), "<h2>What crosses</h2>", _crossings(found)]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{safe(title)}</title><style>{STYLE}</style></head>\n<body>\n"
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


def _lacking(found: Inspection) -> str:
    if not found.shortfalls:
        return "<p>Nothing that is known: what has weights has an INT8 form there.</p>"
    rows = []
    for one in found.shortfalls:
        style = "cannot" if one.level is Level.CANNOT else "soft"
        names = ", ".join(plain(name) for name in one.nodes[:4])
        more = f" and {len(one.nodes) - 4} more" if len(one.nodes) > 4 else ""
        rows.append(
            f'<tr><td class="{style}">{safe(str(one.level))}</td><td>{safe(one.part)}</td>'
            f'<td>{safe(plain(one.op_type))}</td><td class="n">{len(one.nodes)}</td>'
            f"<td>{safe(plain(one.reason))}</td><td>{safe(plain(one.evidence))}</td>"
            f"<td><code>{safe(names)}</code>{safe(more)}</td></tr>"
        )
    heads = ("", "part", "op", "nodes", "reason", "evidence", "which")
    return _table(heads, {3}, rows)


def _parts(found: Inspection) -> str:
    rows = [
        f"<tr><td>{safe(v.part.name)}</td><td>{safe(str(v.part.kind))}</td>"
        f"<td>{safe(str(v.part.modality))}</td><td class=n>{len(v.part.nodes)}</td>"
        f"<td class=n>{safe(bytes_text(v.part.weight_bytes))}</td>"
        f"<td class=n>{safe(macs_text(v))}</td>"
        f"<td>{safe(', '.join(f'{plain(op)} {count}' for op, count in v.ops.items()))}</td>"
        f"<td>{safe(v.part.reason)}</td></tr>"
        for v in found.parts
    ]
    heads = ("part", "kind", "modality", "nodes", "weights", "MACs", "ops", "why")
    return _table(heads, {3, 4, 5}, rows)


def _crossings(found: Inspection) -> str:
    rows = [
        f"<tr><td>{safe(c.source or 'input')}</td><td>{safe(c.sink or 'output')}</td>"
        f"<td><code>{safe(plain(c.name))}</code></td><td>{safe(c.dtype)}</td>"
        f"<td>{safe(shape_text(c.shape))}</td>"
        f"<td class=n>{safe('unknown' if c.size is None else bytes_text(c.size))}</td></tr>"
        for c in found.crossings
    ]
    return _table(("from", "to", "value", "dtype", "shape", "bytes"), {5}, rows)


def _table(heads: Sequence[str], numeric: set[int], rows: Sequence[str]) -> str:
    head = "".join(
        f"<th{' class=n' if index in numeric else ''}>{text}</th>"
        for index, text in enumerate(heads)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
