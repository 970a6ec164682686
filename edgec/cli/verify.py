"""`edgec verify`: is a bundle whole, and how close is it to its source?"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgec.cli.common import (
    FILE,
    Page,
    json_option,
    kernels_option,
    threads_option,
    write_json,
)
from edgec.cli.farm_options import farm_options, need_farm, send
from edgec.errors import InputError

if TYPE_CHECKING:
    from edgec.metrics import Figure

METRICS = """\b
Metrics, as NAME or NAME:option=value,option=value:
  top1, top5    output=NAME
  f1            output=, average=macro|micro|binary, positive=1 (for binary),
                threshold=0.5 (where the output is one score a sample)
  map           boxes=NAME, scores=NAME, classes=NAME: mAP and AP50 as COCO has
                them. boxes alone is [n, 6]: box, score, class; scores without
                classes is [n, classes]. One picture a file.
                format=xyxy|xywh|cxcywh|yxyx
                size=HEIGHTxWIDTH of the picture that boxes are in, 1x1 for shares;
                without it the labelled picture's own pixels
                fit=exact|center|corner: how that picture was made: stretched,
                or padded around the center or beyond the corner
                first=0: class of the first category by id, or id: classes are ids
                threshold=0.5: a picture's objects, for agreement
  retrieval     query=NAME,gallery=NAME, k=1: recall@k; without k @1, @5, @10
  pearson, spearman   output=NAME
  wer, cer, exact     decoder=ctc|argmax, vocabulary=FILE (a token a line, vocab.json
                or tokenizer.json), output=NAME, axes=btv|tbv (tbv with output=),
                blank=0 (of ctc; -1: the last class), end=ID (of argmax),
                space=TOKEN that means a space
  module:function     your own: (outputs, labels) -> one number a sample

\b
Labels: one a sample, as lines or .npy in the order of the samples' file names, or with
these as .csv or .tsv (file,label) or .jsonl ({"file": …, "label": …}). map takes COCO
JSON. Files match by name, or by name without ending. Classes count from 0.

\b
Intervals: paired percentile bootstrap over samples, 2000 times; map 500 times.
"""


@click.command("verify", epilog=METRICS)
@click.argument("bundle", type=FILE)
@click.option("--against", type=FILE, metavar="MODEL.onnx", help="The model it was built from.")
@click.option(
    "--data",
    type=FILE,
    help="Samples that the build did not see, in any form that its recipe reads.",
)
@click.option(
    "--metric",
    "wanted",
    multiple=True,
    metavar="NAME",
    help="A task metric, see below. May be given several times.",
)
@click.option("--labels", type=FILE, help="What the samples are, see below.")
@kernels_option
@click.option(
    "--native-code",
    is_flag=True,
    help="Run native kernels that the bundle holds: code of whoever made it.",
)
@threads_option
@farm_options
@json_option
def command(
    bundle: Path,
    against: Path | None,
    data: Path | None,
    wanted: tuple[str, ...],
    labels: Path | None,
    kernels: Path | None,
    native_code: bool,
    threads: int,
    json_file: str | None,
    **given: Any,
) -> int:
    """Check BUNDLE's files and its results on the golden inputs.

    With --against and --data, compare it with its source model, per part and end to end, and by
    task metrics, each with a paired 95 % interval and with the share of samples on which both give
    the same answer. A metric of your own runs your code.
    """
    if against is None:
        if data or wanted or labels:
            raise InputError(
                "--data, --metric and --labels compare with a model",
                hint="give --against MODEL.onnx",
            )
        if given["farm"]:
            words = ["--threads", str(threads)] if threads else []
            words += ["--native-code"] if native_code else []
            return send("verify", bundle, words, json_file, given)
        need_farm()
        from edgec.runtime.cli import main

        arguments = ["verify", str(bundle), "--threads", str(threads)]
        arguments += ["--native-code"] if native_code else []
        return main(arguments + (["--json", json_file] if json_file else []), program="edgec")
    if given["farm"]:
        raise InputError(
            "a device checks a bundle on its golden data, and has no source model",
            hint="leave --against out, or --farm",
        )
    if data is None:
        raise InputError("nothing to compare on", hint="give --data FOLDER")
    if labels and not wanted:
        raise InputError("--labels serves a metric", hint="give --metric NAME, or leave it out")
    from edgec.manifest import comparison
    from edgec.recheck import recheck
    from edgec.report.page import comparisons

    found = recheck(
        bundle,
        against,
        data,
        wanted,
        labels,
        threads or os.cpu_count() or 1,
        kernels,
        native_code=native_code,
    )
    out = Page(json_file)
    comparisons(out, (*found.parts, *found.outputs))
    _show(out, found.figures)
    write_json(
        json_file,
        {
            "parts": [comparison(one) for one in found.parts],
            "outputs": [comparison(one) for one in found.outputs],
            "metrics": [
                {key: _plain(value) for key, value in vars(one).items()} for one in found.figures
            ],
        },
    )
    missed = found.missed
    if missed is not None:
        raise missed
    return 0


def _plain(value: object) -> object:
    """What JSON can hold: it has no word for a figure that is no number."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _show(out: Page, figures: Sequence[Figure]) -> None:
    """The original's and the bundle's figures side by side."""
    if not figures:
        return
    heads = ["metric", "original", "bundle", "difference", "95 % interval, paired", "agreement"]
    rows = [
        [
            one.metric,
            f"{one.original:.4f}",
            f"{one.built:.4f}",
            f"{one.difference:+.4f}",
            f"{one.low:+.4f} to {one.high:+.4f}",
            f"{one.agreement:.3f}",
            one.agreement_kind,
            str(one.samples),
        ]
        for one in figures
    ]
    out.table([*heads, "of", "samples"], rows)
