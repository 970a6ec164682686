"""`edgec farm history`: what was measured, over time, and where it became worse."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgec.cli.common import FILE, OUTPUT, Page, json_option, write_json
from edgec.runtime.goals import MEASURED

if TYPE_CHECKING:
    from edgec.farm.history import Result
    from edgec.farm.plot import Panel

# In a dimension's own unit: what it is called, and whether more of it is worse.
SHOWN = {
    "time": ("ms", 1),
    "size": ("MB", 1),
    "rate": ("/s", -1),
    "ratio": ("x", 1),
    "power": ("W", 1),
}
BETTER = ("speedup",)  # more of it is better, whatever its dimension
history_option = click.option(
    "--history", type=FILE, help="The history's file; default: the farm's of this machine."
)
metric_option = click.option(
    "--metric", type=click.Choice(list(MEASURED)), default="p50", show_default=True
)


@click.command("history")
@history_option
@metric_option
@click.option("--device", help="Of this device alone.")
@click.option("--model", help="Of this model alone, by its file name.")
@click.option("--plot", type=OUTPUT, metavar="FILE.svg", help="Draw the trends.")
@click.option("--export", type=OUTPUT, metavar="FILE", help="All results, as .json or .csv.")
@click.option("--strict", is_flag=True, help="Exit code 7 where the newest change is a regression.")
@json_option
def command(
    history: Path | None,
    metric: str,
    device: str | None,
    model: str | None,
    plot: Path | None,
    export: Path | None,
    strict: bool,
    json_file: str | None,
) -> None:
    """Show each series of results, and where its level changed.

    A series is a model on a device, driven in one way. A change is told with its test: E-divisive
    means over runs, by permutations; of fewer than 10 clean runs nothing is said. Marked runs are
    shown and not judged.
    """
    from edgec.farm.export import export as write
    from edgec.farm.history import opened
    from edgec.farm.plot import draw
    from edgec.runtime.npz import write_bytes

    wanted = {key: value for key, value in (("device", device), ("model", model)) if value}
    with opened(history) as file:
        results = file.results(**wanted)
    panels = _panels(results, metric)
    out = Page(json_file)
    out.table(HEADS, [_row(panel) for panel in panels])
    for panel in panels:
        for told in _told(panel):
            out.line(told)
    if export is not None:
        write(results, export)
    if plot is not None:
        write_bytes(plot, draw(panels).encode())
    write_json(json_file, [_json(panel) for panel in panels])
    if strict:
        _refuse(panels, metric)


HEADS = ["model", "device", "scenario", "runs", "marked", "first", "newest", "unit", "changes"]


def _panels(results: Sequence[Result], metric: str) -> list[Panel]:
    from edgec.farm.plot import Panel
    from edgec.farm.trend import changes

    unit, sign = SHOWN[MEASURED[metric]]
    found = []
    for series in dict.fromkeys(one.series for one in results):
        of_it = [one for one in results if one.series == series]
        values = [(one, value) for one in of_it if (value := one.value(metric))]
        if values:
            clean = [value for one, value in values if not one.marked]
            title = f"{metric} of {' · '.join(text for text in series[:-1] if text)}"
            found.append(
                Panel(title, unit, values, changes(clean), -sign if metric in BETTER else sign)
            )
    return found


def _row(panel: Panel) -> list[str]:
    first, newest = panel.values[0], panel.values[-1]
    of = newest[0]
    return [
        of.model,
        of.device,
        f"{of.scenario} ({of.harness})",
        str(len(panel.values)),
        str(len(panel.values) - len(panel.clean)),
        f"{first[1]:.4g}",
        f"{newest[1]:.4g}" + (" marked" if of.marked else ""),
        panel.unit,
        str(len(panel.changes)),
    ]


def _told(panel: Panel) -> list[str]:
    from edgec.farm.trend import LEAST, TEST

    if len(panel.clean) < LEAST:
        return [
            f"{panel.title}: not judged: {len(panel.clean)} clean runs, {LEAST} are needed ({TEST})"
        ]
    lines = []
    for change in panel.changes:
        run = panel.values[panel.clean[change.index]][0]
        worse = (change.factor - 1) * panel.worse > 0
        lines.append(
            f"{'regression' if worse else 'improvement'}: {panel.title}: {change.before:.4g} -> "
            f"{change.after:.4g} {panel.unit} ({change.factor - 1:+.1%}) since run #{run.id} of "
            f"{run.started}, bundle {run.bundle_sha256[:12]}: {TEST}, p = {change.p:.3g}"
        )
    return lines


def _refuse(panels: Sequence[Panel], metric: str) -> None:
    from edgec.errors import GoalMissed

    for panel in panels:
        if panel.changes and (panel.changes[-1].factor - 1) * panel.worse > 0:
            newest = panel.changes[-1]
            raise GoalMissed(
                f"no regression of {metric} ({panel.title})",
                newest.after,
                newest.before,
                hint="edgec farm history --plot shows it; edgec farm compare sets two bundles "
                "side by side",
            )


def _json(panel: Panel) -> dict[str, Any]:
    return {
        "title": panel.title,
        "unit": panel.unit,
        "runs": [
            {"id": one.id, "started": one.started, "value": value, "marks": one.page["marks"]}
            for one, value in panel.values
        ],
        "changes": [
            {**vars(change), "since": panel.values[panel.clean[change.index]][0].id}
            for change in panel.changes
        ],
    }
