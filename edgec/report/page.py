"""A report as a person reads it: one table of parts, one of outputs, then what to know."""

from __future__ import annotations

from collections.abc import Sequence

from edgec.cli.common import Page, megabytes
from edgec.goals import line
from edgec.report import finite, report_path
from edgec.results import Comparison, Report
from edgec.revise import worst
from edgec.types import Gain, KernelChoice


def show(report: Report, json_file: str | None) -> None:
    """Print the report on stdout, or on stderr while stdout carries JSON."""
    out = Page(json_file)
    speeds = {speed.part: speed for speed in report.checks.speeds}
    errors = worst(report.checks.parts)
    rows = []
    for part in report.plan.parts:
        speed = speeds.get(part.name)
        made = next(a for a in report.artifacts if part.name in a.parts)
        rows.append(
            [
                part.name,
                str(part.kind),
                str(report.plan.schemes[part.name]),
                f"{made.backend} ({made.device})",
                megabytes(part.weight_bytes),
                megabytes(report.sizes.get(part.name, part.weight_bytes)),
                "-" if speed is None else f"{speed.float_form.p50:.2f}",
                "-" if speed is None else f"{speed.built.p50:.2f}",
                finite(errors.get(part.name, float("nan"))),
            ]
        )
    heads = ["part", "kind", "scheme", "backend", "MB before", "MB after"]
    heads += ["isolated ms before", "after", "SQNR dB"]
    out.table(heads, rows)
    comparisons(out, report.checks.outputs)
    gains(out, report.gains)
    if report.effort.runs:
        out.line(
            f"calibrated: {report.effort.runs} runs, counted by {report.effort.counter}, "
            f"peak memory {megabytes(report.effort.peak_bytes)} MB"
        )
    for step in report.plan.revisions:
        moved = f" on {step.runtime}" if step.runtime else ""
        text = f"revised: {step.part}: {step.before} -> {step.after}{moved}: {step.reason}"
        out.line(text + (f" ({step.measured})" if step.measured else ""))
    for told in kernels(report.kernels):
        out.line(told)
    for plan in report.contenders:
        if plan.speed is None:
            out.line(f"failed: {plan.name}: {plan.failure}")
            continue
        gain = plan.speed.gain
        out.line(
            f"{'chosen' if plan.name == report.chosen else 'tried'}: {plan.name}: "
            f"{gain.median:.2f}x as fast as FP32 ONNX Runtime ({gain.low:.2f} to {gain.high:.2f}), "
            f"worst part {finite(plan.sqnr_db)} dB"
        )
    for note in report.notes:
        out.line(f"note: {note}")
    for verdict in report.goals:
        out.line(line(verdict))
    int8 = sum(artifact.optimised.int8 for artifact in report.artifacts)
    total = int8 + sum(artifact.optimised.float for artifact in report.artifacts)
    unseen = [one.engine for one in report.artifacts if one.build and not one.layers]
    where = (
        f"as emitted: {', '.join(unseen)} is built on the device"
        if unseen
        else ("counted in the backend's own graph")
    )
    out.line(f"{int8} of {total} weighted ops run in INT8, {where}")
    change = report.bundle_bytes / max(report.source_bytes, 1) - 1
    out.line(
        f"{report.bundle}: {megabytes(report.bundle_bytes)} MB with its runtime and golden data, "
        f"{abs(change):.0%} {'smaller' if change < 0 else 'larger'} than the source "
        f"({megabytes(report.source_bytes)} MB); details in {report_path(report.bundle).name}"
    )


def comparisons(out: Page, found: Sequence[Comparison]) -> None:
    """A table of comparisons with the original."""
    rows = [
        [
            one.part or "end to end",
            one.value,
            f"{one.max_abs:.3g}",
            finite(one.cosine, "{:.4f}"),
            finite(one.sqnr_db),
            finite(one.agreement, "{:.3f}"),
            one.agreement_kind,
            str(one.samples),
        ]
        for one in found
    ]
    heads = ["", "value", "max abs error", "cosine", "SQNR dB", "agreement", "of", "samples"]
    out.table(heads, rows)


def gains(out: Page, found: Sequence[Gain]) -> None:
    """What was tried to keep INT8 close to float: a line a part."""
    for part in dict.fromkeys(one.part for one in found):
        steps = [
            f"{one.stage} {finite(one.before_db)} -> {finite(one.after_db)} dB"
            + ("" if one.kept else " (left out)")
            for one in found
            if one.part == part and (one.kept or one.after_db != one.before_db)
        ]
        out.line(f"recovered: {part}: {'; '.join(steps)}")


def kernels(choices: Sequence[KernelChoice]) -> list[str]:
    """What computes custom ops, a line for each op and runtime."""
    return [
        f"custom op {one.op} on {one.runtime}: {'native kernel' if one.native else 'reference'}: "
        f"{one.reason}{f' ({one.measured})' if one.measured else ''}"
        for one in choices
    ]
