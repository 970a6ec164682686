"""What a build tells: a file beside the bundle, with the times that the bundle leaves out."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgec.manifest import comparison, group, recovered
from edgec.results import Report, Speed
from edgec.runtime.npz import write_bytes

SUFFIX = ".report.json"


def report_path(bundle: Path) -> Path:
    """The report's place: model.host.edgec -> model.host.report.json."""
    return bundle.with_name(bundle.name.removesuffix(".edgec") + SUFFIX)


def write_report(report: Report) -> Path:
    """Write the report beside the bundle; it appears when it is complete."""
    path = report_path(report.bundle)
    write_bytes(path, (json.dumps(as_json(report), indent=1) + "\n").encode())
    for artifact in report.artifacts:
        if artifact.log is not None and artifact.log.is_file():
            place = path.with_name(f"{path.name.removesuffix(SUFFIX)}.{artifact.log.name}")
            shutil.copyfile(artifact.log, place)
    return path


def as_json(report: Report) -> dict[str, Any]:
    """A report as JSON values; what is not finite becomes null."""
    return {
        "bundle": str(report.bundle),
        "target": report.target,
        "stack": report.stack,
        "source_bytes": report.source_bytes,
        "bundle_bytes": report.bundle_bytes,
        "parts": [
            {
                "name": part.name,
                "kind": str(part.kind),
                "scheme": str(report.plan.schemes[part.name]),
                "nodes": len(part.nodes),
                "macs": part.macs,
                "source_bytes": part.weight_bytes,
                "built_bytes": report.sizes.get(part.name, part.weight_bytes),
            }
            for part in report.plan.parts
        ],
        "engines": [
            {
                "name": artifact.engine,
                "backend": artifact.backend,
                "device": artifact.device,
                "parts": list(artifact.parts),
                "planned": vars(artifact.planned),
                "emitted": vars(artifact.emitted),
                "optimised": vars(artifact.optimised),
                **({"build": dict(artifact.build)} if artifact.build else {}),
                "layers": [one._asdict() for one in artifact.layers],
            }
            for artifact in report.artifacts
        ],
        "decisions": group(report.plan.decisions.values()),
        "revisions": [
            {**asdict(one), "before": str(one.before), "after": str(one.after)}
            for one in report.plan.revisions
        ],
        "checks": {
            "data": report.checks.data,
            "parts": [comparison(one) for one in report.checks.parts],
            "outputs": [comparison(one) for one in report.checks.outputs],
            "speeds": [speed_json(one) for one in report.checks.speeds],
        },
        "calibration": asdict(report.effort),
        "recovery": [recovered(one) for one in report.gains],
        "chosen": report.chosen,
        "contenders": [
            {
                "name": one.name,
                "runtimes": dict(one.runtimes),
                "sqnr_db": one.sqnr_db if math.isfinite(one.sqnr_db) else None,
                "speed": None if one.speed is None else speed_json(one.speed),
                "failure": one.failure,
            }
            for one in report.contenders
        ],
        "kernels": [
            {key: getattr(one, key) for key in ("op", "runtime", "native", "reason", "measured")}
            for one in report.kernels
        ],
        "notes": list(report.notes),
        "goals": [
            {
                **one._asdict(),
                "value": one.value if one.value is not None and math.isfinite(one.value) else None,
            }
            for one in report.goals
        ],
    }


def speed_json(speed: Speed) -> dict[str, Any]:
    """A measurement as JSON values; times in milliseconds."""
    return {
        "part": speed.part,
        "float": speed.float_form._asdict(),
        "built": speed.built._asdict(),
        "gain": speed.gain._asdict(),
    }


def finite(number: float, form: str = "{:.1f}") -> str:
    """A number for people; an infinite SQNR means equal."""
    if math.isinf(number):
        return "equal" if number > 0 else "broken"
    return "-" if math.isnan(number) else form.format(number)
