"""`edgec plan`: the first plan, provisional until a build has checked it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgec.cli.common import (
    Page,
    job_options,
    json_option,
    megabytes,
    name_stack,
    parse_shapes,
    write_json,
)

if TYPE_CHECKING:
    from edgec.trial import Prepared
    from edgec.types import Part


@click.command("plan")
@job_options
@json_option
def command(model: Path, shapes: tuple[str, ...], json_file: str | None, **options: Any) -> None:
    """Show the parts of MODEL.onnx and a provisional decision for each, with its reason.

    Nothing is measured and no backend is needed; a build may revise what it cannot confirm.
    """
    from edgec.build import Job, prepare, propose
    from edgec.manifest import group, kernels
    from edgec.report.page import kernels as kernel_lines
    from edgec.runtime.buckets import as_json

    job = Job(model=model, shapes=parse_shapes(shapes), **options)
    name_stack(job.target, job.stack)
    prepared = prepare(job)
    proposal = propose(job, prepared)
    plan, target = prepared.plan, prepared.target
    page = Page(json_file)
    page.line(f"{model.name} for {target.name} ({target.stack}): provisional plan")
    for rewrite in prepared.graph.rewrites:
        page.line(f"  rewrite {rewrite.rule}: {rewrite.count}")
    rows = []
    for part in plan.parts:
        counts = Counter(str(plan.decisions[node].scheme) for node in part.nodes)
        rows.append(
            [
                part.name,
                str(part.kind),
                str(plan.schemes[part.name]),
                ", ".join(map(str, plan.ladders[part.name])) or "-",
                str(len(part.nodes)),
                megabytes(part.weight_bytes),
                ", ".join(f"{count} {scheme}" for scheme, count in counts.most_common()),
            ]
        )
    told = {part.name: _beside(prepared, part) for part in plan.parts}
    page.table(["part", "kind", "scheme", "then", "nodes", "MB", "nodes by scheme"], rows)
    for part in plan.parts:
        page.line(f"{part.name}: {part.reason}; {_reason(prepared, part)}")
        for line in told[part.name]:
            page.line(f"  {line}")
    for line in (*_grids(prepared), *kernel_lines(prepared.kernels), *prepared.notes):
        page.line(line)
    if target.software.note:
        page.line(f"stack {target.stack}: {target.software.note}")
    page.line(f"{target.name}: {target.verified}")
    if proposal.notable:
        page.line(f"{proposal.reason}{', not proven yet' if proposal.buckets else ''}")
    write_json(
        json_file,
        {
            "provisional": True,
            "target": target.name,
            "stack": target.stack,
            "verified": target.verified,
            "notes": [*_grids(prepared), *prepared.notes],
            "kernels": kernels(prepared.kernels),
            "parts": [
                {
                    "name": part.name,
                    "kind": str(part.kind),
                    "modality": str(part.modality),
                    "inputs": list(part.inputs),
                    "outputs": list(part.outputs),
                    "scheme": str(plan.schemes[part.name]),
                    "then": list(map(str, plan.ladders[part.name])),
                    "nodes": len(part.nodes),
                    "macs": part.macs,
                    "weight_bytes": part.weight_bytes,
                    "reason": part.reason,
                    "runtime": plan.runtimes[part.name],
                    "ladder_reason": _reason(prepared, part),
                    "elsewhere": told[part.name],
                }
                for part in plan.parts
            ],
            "decisions": group(plan.decisions.values()),
            "buckets": None if proposal.buckets is None else as_json(proposal.buckets),
            "buckets_reason": proposal.reason,
        },
    )


def _reason(prepared: Prepared, part: Part) -> str:
    runtime = prepared.target.runtime(prepared.plan.runtimes[part.name])
    return f"{runtime.name}: {runtime.ladders[part.kind].reason}"


def _beside(prepared: Prepared, part: Part) -> list[str]:
    """What is said of a part besides: why its other runtimes cannot, what an accelerator could."""
    from edgec.offload import offers
    from edgec.route import unsuitable

    plan, graph = prepared.plan, prepared.graph
    found = [
        f"not on {one.name}: {why}"
        for one in prepared.target.runtimes
        if one.name != plan.runtimes[part.name]
        and (why := unsuitable(part, graph, prepared.policy, prepared.target, one))
    ]
    decided = {plan.decisions[node].reason: None for node in part.nodes}
    found += [reason for reason in decided if "written out" in reason or " instead" in reason]
    return [*found, *offers(part, graph, prepared.target)]


def _grids(prepared: Prepared) -> list[str]:
    """Of the runtimes that INT8 is planned for: weights of 7 bits, and why."""
    from edgec.types import Scheme

    plan, found = prepared.plan, []
    int8 = (Scheme.INT8_STATIC, Scheme.INT8_DYNAMIC)
    used = {plan.runtimes[name] for name, scheme in plan.schemes.items() if scheme in int8}
    for runtime in prepared.target.runtimes:
        grid = runtime.grid
        if runtime.name in used and grid.reduce_range:
            found.append(
                f"{runtime.name}: INT8 weights get 7 bits, because {grid.activations} times "
                f"{grid.weights} would saturate ({grid.confidence}: {grid.source})"
            )
    return found
