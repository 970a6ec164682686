"""A bundle's manifest: all that was decided and checked, and nothing that differs by the run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import onnx_ir as ir

import edgec
from edgec import picked
from edgec.binding import NAME as RECIPE
from edgec.buckets import Proposal
from edgec.doubts import doubts
from edgec.results import Comparison
from edgec.runtime.buckets import as_json
from edgec.runtime.tensorrt_build import digest
from edgec.samples import Samples
from edgec.trial import Prepared, Trial
from edgec.types import (
    Decision,
    Gain,
    KernelChoice,
    Ladder,
    Part,
    Plan,
    Rewrite,
    Scheme,
    Statistics,
    Target,
)

SCHEMA = 1
TOLERANCE = 0.02  # of the largest golden output, for the self-test on the device
TOOLCHAIN = ("numpy", "onnx", "onnx-ir", "onnxscript", "onnxruntime")


def manifest(
    prepared: Prepared,
    plan: Plan,
    trial: Trial,
    samples: Samples,
    proposal: Proposal,
    *,
    measured: bool,
) -> dict[str, Any]:
    """The manifest as JSON values; `files` is left to the writer."""
    graph, target = prepared.graph, prepared.target
    model = graph.model.graph
    weights = set(model.initializers)
    return {
        "schema": SCHEMA,
        "tool": {"name": "edgec", "version": edgec.__version__},
        "toolchain": {
            name: found
            for name in (*TOOLCHAIN, *sorted(_builders(trial)))
            if (found := _version(name))
        },
        "source": {"name": graph.source, "sha256": graph.sha256, "bytes": graph.bytes},
        "target": {
            "name": target.name,
            "stack": target.stack,
            "arch": target.arch,
            "summary": target.summary,
            "verified": target.verified,
        },
        "inputs": [
            _value(v) | _range(prepared, str(v.name)) for v in model.inputs if v.name not in weights
        ],
        "outputs": [_value(value) for value in model.outputs],
        **({} if proposal.buckets is None else {"buckets": as_json(proposal.buckets)}),
        "engines": [
            {
                "name": a.engine,
                "backend": a.backend,
                "device": a.device,
                "artifact": f"engines/{a.path.name}",
                "data_files": [f"engines/{file.name}" for file in a.data_files],
                "inputs": list(a.inputs),
                "outputs": list(a.outputs),
                "parts": list(a.parts),
                "settings": dict(a.settings),
                "planned": vars(a.planned),
                "emitted": vars(a.emitted),
                "optimised": vars(a.optimised),
                **({"build": dict(a.build)} if a.build else {}),
            }
            for a in trial.artifacts
        ],
        "parts": [_part(part, plan, trial.sizes) for part in plan.parts],
        "decisions": group(plan.decisions.values()),
        "revisions": [
            {
                "part": r.part,
                "before": str(r.before),
                "after": str(r.after),
                "reason": r.reason,
                "nodes": list(r.nodes),
                **({"runtime": r.runtime} if r.runtime else {}),
            }
            for r in plan.revisions
        ],
        "rewrites": [rewrite(one) for one in _rewrites(prepared, plan)],
        "calibration": {
            "samples": len(trial.statistics.samples),
            "fingerprint": samples.fingerprint,
            "methods": {part: str(one.method) for part, one in trial.recovery.items()},
            "recovery": [recovered(one) for one in trial.gains],
        },
        **({"kernels": custom_ops} if (custom_ops := kernels(prepared.kernels)) else {}),
        **({"recipe": RECIPE} if RECIPE in samples.recipe.files else {}),
        "golden": {
            "inputs": "golden/inputs.npz",
            "outputs": "golden/outputs.npz",
            **({"float": "golden/float.npz"} if any(a.build for a in trial.artifacts) else {}),
            "tolerance": {"relative": TOLERANCE},
        },
        **({"spares": spares} if (spares := _spares(trial)) else {}),
        "checks": [comparison(one) for one in (*trial.checks.parts, *trial.checks.outputs)],
        "check_data": samples.origin,
        "limits": vars(prepared.policy.limits),
        "notes": [
            *notes(prepared, plan, samples, trial.statistics, measured=measured),
            *([proposal.reason] if proposal.notable else []),
            *trial.notes,
            *picked.doubts(trial.checks.outputs),
            *(note for artifact in trial.artifacts for note in artifact.notes),
        ],
    }


def comparison(one: Comparison) -> dict[str, Any]:
    """A comparison as JSON values; what is not finite becomes null."""
    found = {"max_abs": one.max_abs, "cosine": one.cosine, "sqnr_db": one.sqnr_db}
    found["agreement"] = one.agreement
    return {
        "part": one.part,
        "value": one.value,
        **{key: round(x, 6) if math.isfinite(x) else None for key, x in found.items()},
        "agreement_kind": one.agreement_kind,
        "samples": one.samples,
    }


def group(decisions: Sequence[Decision] | Any) -> list[dict[str, Any]]:
    """Decisions with those that are alike put together, in the order of their first node."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for d in decisions:
        key = (d.part, d.op_type, str(d.scheme), d.backend, d.device, d.reason, d.evidence)
        groups.setdefault(key, []).append(d.node)
    names = ("part", "op_type", "scheme", "backend", "device", "reason", "evidence")
    return [{**dict(zip(names, key, strict=True)), "nodes": nodes} for key, nodes in groups.items()]


def notes(
    prepared: Prepared, plan: Plan, samples: Samples, statistics: Statistics, *, measured: bool
) -> tuple[str, ...]:
    """What a user should know about this build, beyond the figures."""
    found = list(prepared.notes)
    target = prepared.target
    if not samples.calibration:
        found.append(
            "built without data: the checks ran on synthetic inputs and show breakage, not accuracy"
        )
        gains = [
            part.name
            for part in plan.parts
            if Scheme.INT8_STATIC in _row(plan, part, target).with_data
            and plan.schemes[part.name] is not Scheme.KEPT
        ]
        if gains:
            found.append(f"with --data FOLDER, {', '.join(gains)} could run in static INT8")
    if not measured:
        why = "--no-measure was given" if target.here else "this machine is not the target"
        found.append(f"speed is unmeasured ({why}): schemes follow the table's priors")
    if "not verified" in target.verified:
        found.append(f"target {target.name}: {target.verified}")
    found += [
        f"rewrite {one.rule} was switched off {_where(one)}: {one.failure}"
        for one in _rewrites(prepared, plan)
        if one.failure
    ]
    kept = [part.name for part in plan.parts if plan.schemes[part.name] is Scheme.KEPT]
    if kept:
        found.append(f"{', '.join(kept)}: already quantized in the source model, kept as it is")
        wishes = prepared.policy.parts + prepared.policy.ops + prepared.policy.nodes
        if any(wish.scheme is not None for wish in wishes):
            found.append(f"the policy's schemes do not reach {', '.join(kept)}")
    found += [f"calibration: {doubt}" for doubt in doubts(statistics)]
    return tuple(found)


def rewrite(one: Rewrite) -> dict[str, Any]:
    """A rewrite as JSON values; what proves it, or why and where it was switched off."""
    more = {
        "evidence": one.evidence,
        "failure": one.failure,
        "nodes": list(one.nodes),
        "runtime": one.runtime,
    }
    return {"rule": one.rule, "count": one.count, **{key: v for key, v in more.items() if v}}


def _rewrites(prepared: Prepared, plan: Plan) -> list[Rewrite]:
    """The canonical ones, and those of the runtimes that a plan uses."""
    used = plan.runtimes.values()
    return [*prepared.graph.rewrites, *(one for one in prepared.lowered if one.runtime in used)]


def kernels(choices: Sequence[KernelChoice]) -> list[dict[str, Any]]:
    """What computes custom ops, as JSON values."""
    return [
        {"op": one.op, "runtime": one.runtime, "native": one.native, "reason": one.reason}
        for one in choices
    ]


def _where(one: Rewrite) -> str:
    """On this model, or at some of its nodes."""
    if not one.nodes:
        return "for this model, because it failed on it"
    more = f" and {len(one.nodes) - 3} more" if len(one.nodes) > 3 else ""
    return f"at {', '.join(one.nodes[:3])}{more}, because it failed there"


def _row(plan: Plan, part: Part, target: Target) -> Ladder:
    return target.runtime(plan.runtimes[part.name]).ladders[part.kind]


def _value(value: ir.Value) -> dict[str, Any]:
    dtype = None if value.dtype is None else str(value.dtype.numpy())
    shape = [
        dim if isinstance(dim, int) else str(dim.value or f"{value.name}_{axis}")
        for axis, dim in enumerate(value.shape or ())
    ]
    return {"name": str(value.name), "dtype": dtype or "float32", "shape": shape}


def _range(prepared: Prepared, name: str) -> dict[str, Any]:
    bounds = prepared.graph.shapes.get(name)
    return {"range": [[one.low, one.high] for one in bounds]} if bounds else {}


def _part(part: Part, plan: Plan, sizes: Mapping[str, int]) -> dict[str, Any]:
    return {
        "name": part.name,
        "kind": str(part.kind),
        "modality": str(part.modality),
        "scheme": str(plan.schemes[part.name]),
        "inputs": list(part.inputs),
        "outputs": list(part.outputs),
        "nodes": len(part.nodes),
        "macs": part.macs,
        "source_bytes": part.weight_bytes,
        "built_bytes": sizes.get(part.name, part.weight_bytes),
        "reason": part.reason,
    }


def recovered(gain: Gain) -> dict[str, Any]:
    """What a stage of recovery did; what is not finite becomes null."""
    return {
        "part": gain.part,
        "stage": gain.stage,
        "before_db": round(gain.before_db, 2) if math.isfinite(gain.before_db) else None,
        "after_db": round(gain.after_db, 2) if math.isfinite(gain.after_db) else None,
        "kept": gain.kept,
    }


def _builders(trial: Trial) -> set[str]:
    """The packages that made engines here."""
    made = {a.backend for a in trial.artifacts}
    return made | {"tensorrt-rtx-cu12" for a in trial.artifacts if a.build.get("ready")}


def _spares(trial: Trial) -> dict[str, Any]:
    return {
        name: {"sha256": digest(path), "bytes": path.stat().st_size}
        for a in trial.artifacts
        for name, path in sorted(a.spares.items())
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
