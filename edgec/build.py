"""The line of stages, from an ONNX file to a verified bundle. Read it from top to bottom."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType

from edgec import samples as data
from edgec.assign import assign, decide
from edgec.canonicalise import canonicalise
from edgec.errors import EmitError, InputError, InternalError, UnsupportedError
from edgec.load import load
from edgec.manifest import manifest
from edgec.pack import npz_bytes, write_bundle
from edgec.partition import partition
from edgec.policy import check_policy, load_policy
from edgec.recipe import DEFAULT, load_recipe
from edgec.report import write_report
from edgec.revise import retreat, revise, worst
from edgec.target import HOST, load_target
from edgec.trial import Prepared, Trial, Trials
from edgec.types import Limits, Plan, Range, Report, Scheme

MAX_REVISIONS = 16


def _silent(_: str) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class Job:
    """One build, as the command line asks for it. `threads` 0: all cores of this machine.

    `shapes`: bounds per dimension of named inputs. `limits`: instead of the policy's.
    `say` hears of each stage.
    """

    model: Path
    target: str = HOST
    stack: str | None = None
    data: Path | None = None
    recipe: str = DEFAULT
    policy: Path | None = None
    backend: str | None = None
    output: Path | None = None
    shapes: Mapping[str, tuple[Range, ...]] = field(default_factory=dict)
    force: bool = False
    measure: bool = True
    threads: int = 0
    limits: Limits | None = None
    say: Callable[[str], None] = _silent


def build(job: Job) -> Report:
    """Compile `job.model` into a bundle, and a report beside it.

    Raises the errors of `edgec.errors`. The bundle appears only when it is complete.
    """
    output = _output(job)
    say = job.say
    with tempfile.TemporaryDirectory(prefix="edgec-build-") as temporary:
        folder = Path(temporary)
        prepared = prepare(job)
        graph, plan, target = prepared.graph, prepared.plan, prepared.target
        threads = job.threads or os.cpu_count() or 1
        samples = _samples(job, prepared, folder)
        say(f"verifying on {samples.origin}")
        measure = job.measure and target.here
        trials = Trials(job.model, prepared, samples, folder, threads, measure, say)
        made = None
        for _ in range(MAX_REVISIONS):
            try:
                made = trials.run(plan)
                better = revise(plan, made.checks, made.artifacts, prepared.policy.limits)
            except EmitError as error:
                better = retreat(plan, [part.name for part in plan.parts], error.message)
                if better == plan:
                    raise
            if better == plan:
                break
            for revision in better.revisions[len(plan.revisions) :]:
                say(f"{revision.part}: {revision.before} -> {revision.after}: {revision.reason}")
            plan = decide(graph, better, prepared.policy, target, data=job.data is not None)
        else:
            made = trials.run(plan)
        if made is None:
            raise InternalError("the loop of revisions ended without a trial")
        _accept(plan, made, prepared.policy.limits)
        say("packing")
        page = manifest(prepared, plan, made, samples, measured=measure)
        files: dict[str, Path | bytes] = {
            "golden/inputs.npz": npz_bytes(made.end.inputs),
            "golden/outputs.npz": npz_bytes(made.end.outputs),
        }
        for artifact in made.artifacts:
            for file in sorted(artifact.path.parent.glob(artifact.path.name + "*")):
                files[f"engines/{file.name}"] = file
        write_bundle(page, files, output, force=job.force, folder=output.suffix != ".edgec")
        report = Report(
            bundle=output,
            target=target.name,
            stack=target.stack.name,
            source_bytes=graph.bytes,
            bundle_bytes=_size(output),
            plan=plan,
            sizes=made.sizes,
            artifacts=made.artifacts,
            checks=made.checks,
            notes=tuple(page["notes"]),
        )
        write_report(report)
    return report


def prepare(job: Job) -> Prepared:
    """Load, canonicalise, partition and assign: all that `plan` shows, without a backend."""
    target = load_target(job.target, job.stack)
    if job.backend is not None and job.backend != target.stack.backend:
        raise UnsupportedError(
            f"target {target.name} with stack {target.stack.name} runs on "
            f"{target.stack.backend}, not on {job.backend}",
            hint="leave --backend out, or choose a target whose table names that backend",
        )
    policy = load_policy(job.policy)
    if job.limits is not None:
        policy = replace(policy, limits=job.limits)
    job.say(f"loading {job.model.name}")
    graph = canonicalise(load(job.model), job.shapes)
    parts = partition(graph)
    check_policy(policy, parts)
    plan = assign(graph, parts, policy, target, data=job.data is not None)
    method = load_recipe(job.recipe).method
    stated = {override.pattern for override in policy.parts if override.method is not None}
    methods = {p: m if p in stated else method for p, m in plan.methods.items()}
    job.say("parts: " + ", ".join(f"{part.name} ({part.kind})" for part in parts))
    return Prepared(
        graph, parts, replace(plan, methods=methods), target, policy, data.inputs(graph)
    )


def _samples(job: Job, prepared: Prepared, folder: Path) -> data.Samples:
    if job.data is not None:
        most = load_recipe(job.recipe).files
        return data.open_samples(job.data, prepared.inputs, most)
    made_up = folder / "synthetic"
    made_up.mkdir()
    return data.synthetic(prepared.graph, made_up)


def _accept(plan: Plan, made: Trial, limits: Limits) -> None:
    """Refuse to ship what the backend did not build as planned, or what is still too far off."""
    for artifact in made.artifacts:
        extra = artifact.optimised.int8 - artifact.planned.int8
        missing = artifact.optimised.float - artifact.planned.float
        kept = [part for part in artifact.parts if plan.schemes[part] is Scheme.KEPT]
        if artifact.misplaced or extra > 0 or (missing > 0 and not kept):
            raise EmitError(
                f"engine {artifact.engine}: planned {artifact.planned.int8} INT8 and "
                f"{artifact.planned.float} float weighted ops, the backend runs "
                f"{artifact.optimised.int8} and {artifact.optimised.float}",
                hint="keep the parts in float by a policy, and report the model",
                log="\n".join(artifact.misplaced),
            )
    for part, sqnr in worst(made.checks.parts).items():
        if limits.part_sqnr_db is not None and sqnr < limits.part_sqnr_db:
            raise EmitError(
                f"part {part}: SQNR {sqnr:.1f} dB is below {limits.part_sqnr_db:g} dB, and no "
                "safer scheme is left",
                hint="the policy may force it; --max-error none ships it anyway",
            )
    for one in made.checks.outputs:
        if limits.cosine is not None and one.cosine < limits.cosine:
            raise EmitError(
                f"output {one.value}: cosine {one.cosine:.4f} to the original is below "
                f"{limits.cosine:g}, and no safer scheme is left",
                hint="report the model: a rewrite may be wrong; --max-error none ships it anyway",
            )


def _output(job: Job) -> Path:
    target = load_target(job.target, job.stack)
    output = job.output or Path(f"{job.model.stem}.{target.name}.edgec")
    if os.path.lexists(output) and not job.force:
        raise InputError(f"{output} exists", hint="give --force to replace it, or another -o")
    if not output.absolute().parent.is_dir():
        raise InputError(f"{output.parent}: no such folder", hint="make it first")
    return output


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def to_stderr(message: str) -> None:
    """Progress for people: one line a stage, nothing where stderr is no terminal."""
    if sys.stderr.isatty():
        print(f"  {message}", file=sys.stderr, flush=True)


class _Line(ModuleType):
    """Once this module is imported, `edgec.build` is the module: it must work as the function."""

    def __call__(self, job: Job) -> Report:
        return build(job)


sys.modules[__name__].__class__ = _Line
