"""`edgec demo`: the whole promise on this machine, with a real model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgec.cli.common import FILE, Page, json_option, threads_option, write_json

if TYPE_CHECKING:
    from edgec.demo.run import Demonstration


@click.command("demo")
@click.option(
    "--folder", type=FILE, default=Path("demo"), show_default=True, help="Where it works."
)
@click.option("--no-measure", is_flag=True, help="Decide by the table alone.")
@threads_option
@json_option
def command(folder: Path, no_measure: bool, threads: int, json_file: str | None) -> None:
    """Build and compare a real two-tower model on this machine, in a few minutes.

    EfficientNet-Lite0 looks at emoji pictures, MiniLM reads their captions. Both come from the
    package registry (101 MB, once). The bundle is compared with FP32 ONNX Runtime.
    """
    import os

    from edgec.build import to_stderr
    from edgec.demo.run import demonstrate

    found = demonstrate(folder, threads or os.cpu_count() or 1, not no_measure, to_stderr)
    _show(found, json_file)
    write_json(json_file, _as_json(found))


def _show(found: Demonstration, json_file: str | None) -> None:
    from edgec.report.page import show

    show(found.report, json_file)
    out = Page(json_file)
    rows = [
        [
            figure.metric,
            f"{figure.original:.3f}",
            f"{figure.built:.3f}",
            f"{figure.difference:+.3f}",
            f"{figure.low:+.3f} to {figure.high:+.3f}",
        ]
        for figure in found.figures
    ]
    out.table(["retrieval", "FP32", "bundle", "difference", "95 % interval, paired"], rows)
    saved = 1 - found.report.bundle_bytes / found.report.source_bytes
    out.line(
        f"{found.pictures} pictures in an unseen style, {found.captions} captions; the nearest "
        f"caption is FP32's for {found.agreement:.1%} of the pictures"
    )
    rows = [
        [
            race.caption,
            f"{race.original.p50:.2f}",
            f"{race.built.p50:.2f}",
            f"{race.gain.median:.2f}x",
            f"{race.gain.low:.2f} to {race.gain.high:.2f}",
        ]
        for race in found.races
    ]
    heads = ["one picture and one caption of", "FP32 ms", "bundle ms", "as fast", "quartiles"]
    out.table(heads, rows)
    out.line(
        f"{found.races[0].built.rounds} interleaved rounds, {found.races[0].built.threads} "
        f"threads; {saved:.0%} smaller"
    )


def _as_json(found: Demonstration) -> dict[str, Any]:
    from edgec.report import as_json

    return {
        "report": as_json(found.report),
        "pictures": found.pictures,
        "captions": found.captions,
        "retrieval": [
            {key: value for key, value in vars(figure).items() if not key.startswith("agreement")}
            for figure in found.figures
        ],
        "top1_agreement": found.agreement,
        "races": [
            {
                "caption": race.caption,
                "fp32": race.original._asdict(),
                "bundle": race.built._asdict(),
                "gain": race.gain._asdict(),
            }
            for race in found.races
        ],
        "smaller": 1 - found.report.bundle_bytes / found.report.source_bytes,
    }
