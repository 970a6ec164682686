"""`edgec build`: the whole line."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from edgec.cli.common import (
    FILE,
    OUTPUT,
    calibration_options,
    job_options,
    json_option,
    name_stack,
    parse_shapes,
    threads_option,
    write_json,
)


@click.command("build")
@job_options
@click.option("-o", "--output", type=FILE, help="Default: <model>.<target>.edgec.")
@click.option("--force", is_flag=True, help="Replace an existing output.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["onnx", "ort"]),
    default="onnx",
    show_default=True,
    help="ONNX Runtime's file: ort is for minimal builds of it.",
)
@click.option("--no-measure", is_flag=True, help="Decide by the table alone.")
@click.option(
    "--max-error",
    metavar="DB|none",
    help="Least SQNR of a part in dB; none switches all limits off. Default: 12.",
)
@click.option(
    "--goal",
    "goals",
    multiple=True,
    metavar="GOAL",
    help="What the bundle is to reach, such as 'size<30MB' or 'p95<20ms'; else exit code 7, and "
    "the bundle is kept. May be given several times.",
)
@click.option(
    "--statistics",
    type=OUTPUT,
    help="A file of edgec calibrate: used, and extended by values that it lacks.",
)
@click.option(
    "--in-image",
    metavar="IMAGE",
    help="Build within a container of this image, which edgec image makes; without a network.",
)
@calibration_options
@threads_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    /,
    model: Path,
    shapes: tuple[str, ...],
    no_measure: bool,
    max_error: str | None,
    in_image: str | None,
    json_file: str | None,
    **options: Any,
) -> None:
    """Compile MODEL.onnx into a verified bundle for a target.

    Without --data only what needs no data is done: dynamic and weight-only INT8, or float.
    """
    if in_image is not None:
        _inside(context, in_image)
        return
    from edgec.build import Job, build, to_stderr
    from edgec.goals import first_missed
    from edgec.report import as_json
    from edgec.report.page import show

    job = Job(
        model=model,
        shapes=parse_shapes(shapes),
        measure=not no_measure,
        limits=_limits(max_error, options["policy"]),
        say=to_stderr,
        **options,
    )
    name_stack(job.target, job.stack)
    report = build(job)
    show(report, json_file)
    write_json(json_file, as_json(report))
    if missed := first_missed(report):
        raise missed


def _inside(context: click.Context, image: str) -> None:
    """The same command line in a container; the model and the data are mounted."""
    from edgec.errors import InputError
    from edgec.goals import missed_of
    from edgec.image import inside, program

    given = context.params
    if given["target"] == "host":
        raise InputError("an image is no host", hint="give --target; edgec targets lists them")
    left_out = {"in_image", "output", "force", "json_file"}
    flags = {
        str(one.name): "" if isinstance(one, click.Argument) else one.opts[-1]
        for one in context.command.params
        if one.name not in left_out
        and context.get_parameter_source(str(one.name)) is not click.core.ParameterSource.DEFAULT
    }
    output = given["output"] or Path(f"{given['model'].stem}.{Path(given['target']).name}.edgec")
    if output.exists() and not given["force"]:
        raise InputError(f"{output} exists", hint="give --force to replace it, or another -o")
    options = inside.options_of(flags, given)
    options += [("--force", True)] * given["force"]
    click.echo(inside.build(program.find(), image, options, output), nl=False)
    if missed := missed_of(output):
        raise missed


def _limits(text: str | None, policy: Path | None) -> Any:
    """The policy's limits, with the least SQNR that the command line asks for."""
    from dataclasses import replace

    from edgec.errors import InputError
    from edgec.policy import load_policy
    from edgec.types import Limits

    if text is None:
        return None
    if text == "none":
        return Limits(part_sqnr_db=None, cosine=None)
    try:
        limit = float(text)
    except ValueError:
        limit = math.nan
    if not math.isfinite(limit):
        raise InputError(f"--max-error {text}: not a number", hint="give dB, or none")
    return replace(load_policy(policy).limits, part_sqnr_db=limit)
