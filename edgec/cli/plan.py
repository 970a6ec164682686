"""`edgec plan`: the first plan, provisional until a build has checked it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgec.cli.common import Page, job_options, json_option, megabytes, parse_shapes, write_json

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
    from edgec.manifest import group
    from edgec.runtime.buckets import as_json

    job = Job(model=model, shapes=parse_shapes(shapes), **options)
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
    page.table(["part", "kind", "scheme", "then", "nodes", "MB", "nodes by scheme"], rows)
    for part in plan.parts:
        page.line(f"{part.name}: {part.reason}; {_reason(prepared, part)}")
    if proposal.notable:
        page.line(f"{proposal.reason}{', not proven yet' if proposal.buckets else ''}")
    write_json(
        json_file,
        {
            "provisional": True,
            "target": target.name,
            "stack": target.stack,
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
