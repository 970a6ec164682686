"""`edgec farm compare`: bundles side by side, from what was measured."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgec.cli.common import Page, json_option, write_json
from edgec.cli.farm_history import SHOWN, history_option, metric_option
from edgec.errors import InputError
from edgec.runtime.goals import MEASURED

if TYPE_CHECKING:
    from edgec.farm.history import Result

SHORTEST = 6  # characters of a hash that choose a bundle


@click.command("compare")
@click.argument("base", required=False)
@click.argument("new", required=False)
@history_option
@metric_option
@json_option
def command(
    base: str | None, new: str | None, history: Path | None, metric: str, json_file: str | None
) -> None:
    """Set bundle NEW beside BASE on every device that has run both; with one or none, all devices.

    A bundle is its file, the beginning of its sha256, its name, or results by number: 12,15. A
    difference is judged by an exact Mann-Whitney U test over clean runs; of fewer than 4 each it is
    shown and not judged.
    """
    from edgec.farm.compare import compare
    from edgec.farm.history import opened

    with opened(history) as file:
        results = file.results()
    unit = SHOWN[MEASURED[metric]][0]
    out = Page(json_file)
    if new is None:
        chosen = select(results, base) if base else results
        rows = newest(chosen)
        out.table(HEADS, [_row(one, unit, metric) for one in rows])
        write_json(json_file, [dict(one.page, id=one.id) for one in rows])
        return
    found = compare(select(results, str(base)), select(results, new), metric)
    if not found:
        raise InputError(
            "no device has clean runs of both that were driven in the same way",
            hint="edgec farm history shows what there is",
        )
    heads = ["device", "scenario", f"base {unit}", f"new {unit}", "new / base", "runs"]
    rows_of = [
        [
            one.driven[0],
            f"{one.driven[1]} ({one.driven[2]})",
            f"{one.base:.4g}",
            f"{one.new:.4g}",
            f"{one.ratio:.3f}",
            f"{one.base_runs} and {one.new_runs}, {one.left_out} marked left out",
            one.judgement,
        ]
        for one in found
    ]
    out.table([*heads, metric], rows_of)
    write_json(json_file, [{**vars(one), "judgement": one.judgement} for one in found])


HEADS = [
    "device",
    "target",
    "bundle",
    "scenario",
    "harness",
    "run",
    "value",
    "p95 ms",
    "MB",
    "state",
]


def select(results: Sequence[Result], text: str) -> list[Result]:
    """The results that a word chooses. Raises InputError where there are none."""
    found: list[Result]
    if re.fullmatch(r"[0-9]+(,[0-9]+)*", text) and len(text.split(",")[0]) < SHORTEST:
        numbers = {int(one) for one in text.split(",")}
        found = [one for one in results if one.id in numbers]
    elif Path(text).exists():
        from edgec.runtime.bundle import Bundle

        with Bundle(text) as bundle:
            digest = bundle.digest
        found = [one for one in results if one.page["bundle"]["digest"] == digest]
    else:
        found = [one for one in results if _called(one, text)]
    if not found:
        raise InputError(
            f"{text}: no result of it", hint="edgec farm compare lists the newest ones"
        )
    return found


def newest(results: Sequence[Result]) -> list[Result]:
    """Of each series and bundle the newest clean run; where all are marked, the newest."""
    best: dict[tuple[str, ...], Result] = {}
    for one in results:
        key = (*one.series, one.bundle_sha256)
        if key not in best or not one.marked or best[key].marked:
            best[key] = one
    return list(best.values())


def _called(one: Result, text: str) -> bool:
    hashes = (one.bundle_sha256, str(one.page["bundle"]["digest"]))
    by_hash = len(text) >= SHORTEST and any(name.startswith(text.lower()) for name in hashes)
    return by_hash or one.bundle == text


def _row(one: Result, unit: str, metric: str) -> list[str]:
    value = one.value(metric)
    return [
        one.device,
        f"{one.target} ({one.stack})",
        f"{one.bundle} {one.bundle_sha256[:12]}",
        one.scenario,
        one.harness,
        f"#{one.id}",
        "-" if value is None else f"{metric} {value:.4g} {unit}",
        f"{one.value('p95'):.4g}",
        f"{one.value('size'):.2f}",
        "; ".join(one.page["marks"]) or "clean",
    ]
