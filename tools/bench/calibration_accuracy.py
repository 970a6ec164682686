"""What each calibration method makes of a model: a build each, judged by the tasks of `peers`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import peers_cache as cache
import peers_cases
import peers_edgec
from calibration_cases import METHODS, Method
from peers_steps import SOURCE, Bench
from peers_types import Build, Case, Fidelity, Model, Row, Scores


@dataclass(frozen=True)
class Judged:
    """A method on a model: per part the SQNR on the build's verification samples, and on held-out
    samples the worst output's SQNR and the task. `problem`: why there is none of it.
    """

    name: str
    parts: Mapping[str, float]
    sqnr_db: float
    task: Scores
    seconds: float
    problem: str = ""


def judge(model: Model, work: Path, packages: Path) -> list[Judged]:
    """FP32 and every method. All but the held-out comparison is kept by `peers_steps`."""
    bench = Bench(model, work, packages)
    bench.make()
    base = peers_cases.cases(model.kind)[0][1]
    reference = bench.evaluate(Row(1, base, SOURCE, None, None))
    if reference.fidelity is None:
        raise SystemExit(f"{model.name}: {base.label} {reference.problem}")
    found = [Judged("fp32", {}, float("inf"), reference.fidelity.task, 0.0)]
    for method in METHODS:
        found.append(_judged(bench, method, work))
    keep(found, model, work)
    return found


def _judged(bench: Bench, method: Method, work: Path) -> Judged:
    build = Build(
        f"method-{method.name}", "edgec", "model.edgec", {"options": options(method, work)}
    )
    built = bench.build(build)
    if built.problem:
        return Judged(method.name, {}, 0.0, {}, built.seconds, built.problem)
    bundle = work / bench.model.name / "builds" / build.name / build.artifact
    other = unlike(method.method, peers_edgec.methods(bundle))
    if other:
        return Judged(method.name, {}, 0.0, {}, built.seconds, other)
    row = Row(2, Case(build.name, method.label, "edgec", "edgec", build), built, None, None)
    row = bench.evaluate(row)
    fidelity = row.fidelity or Fidelity(0.0, 0.0, {})
    parts = peers_edgec.parts(bundle)
    return Judged(method.name, parts, fidelity.sqnr_db, fidelity.task, built.seconds, row.problem)


def unlike(wanted: str, used: Mapping[str, str]) -> str:
    """Why a bundle does not stand for a method: it says that it used another; else empty."""
    others = sorted({one for one in used.values() if one != wanted})
    return f"calibrated by {', '.join(others)}" if others and wanted != "auto" else ""


def options(method: Method, work: Path) -> list[str]:
    """Of `edgec build`: the policy, in a file named by its content; nothing is measured."""
    policy = work / "policies" / f"{cache.digest(method.policy)}.toml"
    policy.parent.mkdir(exist_ok=True)
    policy.write_text(method.policy, encoding="utf-8")
    return [*method.options, "--policy", str(policy), "--no-measure", "--threads", "2"]


def keep(judged: Sequence[Judged], model: Model, work: Path) -> None:
    """Write what `judge` found, for a table that is made later."""
    record = {"key": _key(model), "methods": [asdict(one) for one in judged]}
    cache.store(work / model.name / "methods.json", record)


def kept(model: Model, work: Path) -> list[Judged]:
    """What `judge` found last; empty if it never ran with this edgec and these methods."""
    path = work / model.name / "methods.json"
    record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if record.get("key") != _key(model):
        return []
    return [
        Judged(
            **{
                **one,
                "parts": {name: float(value) for name, value in one["parts"].items()},
                "sqnr_db": float(one["sqnr_db"]),
            }
        )
        for one in record["methods"]
    ]


def _key(model: Model) -> str:
    tools = [cache.tool_key(tool) for tool in ("edgec", "case")]
    return cache.digest(cache.make_key(model), tools, [one.policy for one in METHODS])
