"""`edgec calibrate`: statistics for every later build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgec.cli.common import (
    OUTPUT,
    Page,
    calibration_options,
    job_options,
    json_option,
    megabytes,
    name_stack,
    parse_shapes,
    threads_option,
    write_json,
)


@click.command("calibrate")
@job_options
@click.option(
    "-o", "--output", type=OUTPUT, required=True, help="The file of statistics, made or extended."
)
@click.option(
    "--all", "everything", is_flag=True, help="Calibrate on every sample, verify on none."
)
@click.option("--samples", "most", type=click.IntRange(2), help="Take this many files at most.")
@click.option(
    "--tensorrt-cache",
    "cache",
    type=OUTPUT,
    help="Write a calibration cache for TensorRT 8 to 10 as well; all float values are watched.",
)
@click.option("--tensorrt", "version", help="The device's TensorRT, for the cache: 8.6.2, 10.3.0.")
@click.option(
    "--method",
    type=click.Choice(["minmax", "moving_average", "percentile", "mse", "entropy"]),
    default="entropy",
    show_default=True,
    help="How the cache's scales follow from the statistics.",
)
@calibration_options
@threads_option
@json_option
def command(
    model: Path,
    shapes: tuple[str, ...],
    output: Path,
    everything: bool,
    most: int | None,
    cache: Path | None,
    version: str | None,
    method: str,
    json_file: str | None,
    **options: Any,
) -> None:
    """Watch MODEL.onnx on samples, once for every target.

    OUTPUT holds ranges and histograms of the values that some build for the target may quantize;
    `edgec build --statistics OUTPUT` uses it, for this target or another. Where it exists, it is
    extended: by samples that it has not seen, and by values that it does not know. Interrupted, the
    same command goes on where it was. A third of the samples is left to verify builds with, as in
    a build, unless --all is given.
    """
    from edgec.build import Job, calibrate, to_stderr
    from edgec.doubts import doubts, listed

    if (cache is None) != (version is None):
        raise click.UsageError("--tensorrt-cache and --tensorrt belong together")
    if version is not None:
        from edgec.backends.tensorrt.calibration_cache import number

        number(version)
    job = Job(model=model, shapes=parse_shapes(shapes), statistics=output, say=to_stderr, **options)
    name_stack(job.target, job.stack)
    found = calibrate(job, everything=everything, most=most, every=cache is not None)
    effort, page = found.effort, Page(json_file)
    page.line(
        f"{output}: {len(found.statistics.values)} values on {len(found.statistics.samples)} "
        f"samples, {effort.runs} runs now; counted by {effort.counter}; "
        f"peak memory {megabytes(effort.peak_bytes)} MB"
    )
    warnings = [*doubts(found.statistics), *filter(None, [found.dropped])]
    if cache is not None:
        from edgec.backends.tensorrt.calibration_cache import scales
        from edgec.masked import masked_scores
        from edgec.types import Method

        found_scales = scales(found.statistics, Method(method), masked_scores(found.graph.model))
        values = sorted(found.statistics.values.items())
        lacking = [n for n, v in values if v.histogram is not None and n not in found_scales]
        if lacking:
            warnings.append(f"no line in {cache}, so that TensorRT takes float: {listed(lacking)}")
    for warning in warnings:
        page.line(f"warning: {warning}")
    if cache is not None and version is not None:
        from edgec.backends.tensorrt.calibration_cache import dump
        from edgec.runtime import npz

        npz.write_bytes(cache, dump(found_scales, version).encode())
        page.line(
            f"{cache}: {len(found_scales)} scales by {method} for TensorRT {version}; not verified "
            "on hardware"
        )
    write_json(
        json_file,
        {
            "statistics": str(output),
            "samples": len(found.statistics.samples),
            "values": len(found.statistics.values),
            "runs": effort.runs,
            "native": effort.counter == "native code",
            "counter": effort.counter,
            "seconds": effort.seconds,
            "cpu_seconds": effort.cpu_seconds,
            "peak_bytes": effort.peak_bytes,
            "warnings": list(warnings),
        },
    )
