"""`edgec data check`: is this data good to calibrate on?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgec.cli.common import (
    FILE,
    OUTPUT,
    Page,
    json_option,
    kernels_option,
    parse_shapes,
    threads_option,
    write_json,
)

if TYPE_CHECKING:
    from edgec.audit import Audit

MOST_NAMES = 6
BAR = 30  # characters of the longest bar of a histogram
MOST_BARS = 12


@click.group("data")
def command() -> None:
    """Look at calibration data before it is used."""


@command.command("check")
@click.argument("folder", metavar="DATA", type=FILE)
@click.option("--model", type=FILE, required=True, help="The ONNX model that it is for.")
@click.option(
    "--recipe",
    default="tensors",
    show_default=True,
    help="How it is read: tensors (.npz), images, text, audio, image-text, or a file.",
)
@click.option("--target", default="host", show_default=True, help="Whose plan says what counts.")
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="NAME=1x3x224x224",
    help="Fix or bound an input's shape; a dimension may be a range: ids=1x1..128.",
)
@kernels_option
@click.option("--plot", type=OUTPUT, metavar="FILE.svg", help="Draw how the ranges converge.")
@click.option("--strict", is_flag=True, help="Exit with 7 where there are warnings.")
@threads_option
@json_option
def check(
    folder: Path,
    shapes: tuple[str, ...],
    plot: Path | None,
    strict: bool,
    json_file: str | None,
    **options: Any,
) -> None:
    """Say what is wrong with DATA, sample by sample, and how many samples are enough.

    DATA is what a build takes as --data. Findings are notes and warnings, each with what to do.
    The exit code is 0 whatever is found, so that a first look never fails a script; with --strict,
    for CI, it is 7 if there are warnings (notes never fail). Where no sample can be used it is 3.
    """
    from edgec.audit import audit
    from edgec.build import Job, to_stderr
    from edgec.errors import GoalMissed, InputError

    found = audit(Job(data=folder, shapes=parse_shapes(shapes), say=to_stderr, **options))
    _show(Page(json_file), folder, found)
    if plot is not None:
        _draw(plot, folder, found)
    write_json(json_file, _as_json(found))
    if not found.run:
        raise InputError(
            f"{folder}: none of {found.total} samples can be used", hint="see the findings"
        )
    if strict and found.warnings:
        raise GoalMissed(
            "warnings", found.warnings, 0, hint="do what they say, or leave --strict out"
        )


def _draw(plot: Path, folder: Path, found: Audit) -> None:
    from edgec.audit.plot import svg
    from edgec.errors import InputError
    from edgec.runtime.npz import write_bytes

    if not found.curve.points:
        raise InputError(
            f"--plot {plot}: there is no curve, as no range was observed in two samples",
            hint="leave --plot out",
        )
    write_bytes(plot, svg(found.curve, f"ranges of {folder.name}").encode())


def _show(page: Page, folder: Path, found: Audit) -> None:
    page.line(
        f"{folder}: {found.total} samples, {found.readable} readable; the model ran on {found.run}"
    )
    for one in found.findings:
        page.line(f"{one.severity} {one.check}: {one.message}")
        if one.samples:
            more = len(one.samples) - MOST_NAMES
            names = ", ".join(one.samples[:MOST_NAMES])
            page.line(f"  samples: {names}{f' and {more} more' if more > 0 else ''}")
        page.line(f"  do: {one.hint}")
    for name, counts in found.lengths.items():
        _histogram(page, name, counts)
    curve = found.curve
    if curve.points:
        page.table(
            ["samples", "median range too narrow by", f"worst tenth of {curve.values}"],
            [
                [str(n), f"{curve.median[n - 1]:.1%}", f"{curve.worst[n - 1]:.1%}"]
                for n in curve.points
            ],
        )
    notes = len(found.findings) - found.warnings
    page.line(f"{found.warnings} warnings, {notes} notes")


def _histogram(page: Page, name: str, counts: Any) -> None:
    """Bars over bins of equal width, a power of two."""
    width, (low, high) = 1, (min(counts), max(counts))
    while high // width - low // width >= MOST_BARS:
        width *= 2
    bins = dict.fromkeys(range(low // width, high // width + 1), 0)
    for length, count in counts.items():
        bins[length // width] += count
    most = max(bins.values())
    rows = [
        [
            str(start) if width == 1 else f"{start * width} to {start * width + width - 1}",
            str(count),
            "#" * -(-count * BAR // most),
        ]
        for start, count in bins.items()
    ]
    page.table([f"length of {name}", "samples", ""], rows)


def _as_json(found: Audit) -> dict[str, Any]:
    curve = found.curve
    return {
        "samples": found.total,
        "readable": found.readable,
        "run": found.run,
        "warnings": found.warnings,
        "findings": [
            {
                "check": one.check,
                "severity": str(one.severity),
                "message": one.message,
                "samples": list(one.samples),
                "hint": one.hint,
            }
            for one in found.findings
        ],
        "lengths": {
            name: {str(length): counts[length] for length in sorted(counts)}
            for name, counts in found.lengths.items()
        },
        "convergence": {
            "samples": curve.samples,
            "values": curve.values,
            "enough": curve.enough or None,
            "curve": [
                {
                    "samples": n,
                    "median": round(float(curve.median[n - 1]), 6),
                    "worst": round(float(curve.worst[n - 1]), 6),
                }
                for n in curve.points
            ],
        },
    }
