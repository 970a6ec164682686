"""`edgec verify`: is a bundle whole, and how close is it to its source?"""

from __future__ import annotations

import os
from pathlib import Path

import click

from edgec.cli.common import FILE, Page, json_option, threads_option, write_json
from edgec.errors import InputError


@click.command("verify")
@click.argument("bundle", type=FILE)
@click.option("--against", type=FILE, metavar="MODEL.onnx", help="The model it was built from.")
@click.option("--data", type=FILE, help="Folder of samples that the build did not see.")
@click.option(
    "--metric",
    metavar="NAME",
    help="top1, top5, retrieval, pearson, or your own module:function(outputs, labels).",
)
@click.option("--labels", type=FILE, help="One number a sample: .npy, or lines of text.")
@threads_option
@json_option
def command(
    bundle: Path,
    against: Path | None,
    data: Path | None,
    metric: str | None,
    labels: Path | None,
    threads: int,
    json_file: str | None,
) -> int:
    """Check BUNDLE's files and its results on the golden inputs.

    With --against and --data, compare it with its source model, per part and end to end, and by a
    task metric with a paired 95 % interval. A metric of your own runs your code.
    """
    if against is None:
        if data or metric or labels:
            raise InputError(
                "--data, --metric and --labels compare with a model",
                hint="give --against MODEL.onnx",
            )
        from edgec.runtime.cli import main

        arguments = ["verify", str(bundle), "--threads", str(threads)]
        return main(arguments + (["--json", json_file] if json_file else []), program="edgec")
    if data is None:
        raise InputError("nothing to compare on", hint="give --data FOLDER")
    from edgec.manifest import comparison
    from edgec.recheck import recheck
    from edgec.report.page import comparisons

    found = recheck(bundle, against, data, metric, labels, threads or os.cpu_count() or 1)
    out = Page(json_file)
    comparisons(out, (*found.parts, *found.outputs))
    for one in found.figures:
        out.line(
            f"{one.metric}: {one.original:.4f} original, {one.built:.4f} bundle; difference "
            f"{one.difference:+.4f}, 95 % interval {one.low:+.4f} to {one.high:+.4f}, "
            f"{one.samples} samples"
        )
    write_json(
        json_file,
        {
            "parts": [comparison(one) for one in found.parts],
            "outputs": [comparison(one) for one in found.outputs],
            "metrics": [
                {k: None if isinstance(v, float) and v != v else v for k, v in vars(one).items()}
                for one in found.figures
            ],
        },
    )
    missed = found.missed
    if missed is not None:
        raise missed
    return 0
