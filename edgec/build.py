"""The line of stages, from an ONNX file to a verified bundle. Read it from top to bottom."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from types import ModuleType

from edgec import samples as data
from edgec import statistics_file
from edgec.assign import assign
from edgec.binding import bind, near
from edgec.buckets import Proposal, find, parse_wish
from edgec.calibrate import Calibration, Means
from edgec.canonicalise import canonicalise
from edgec.errors import InputError, UnsupportedError
from edgec.fit import fit, room
from edgec.gather import Gathered, gather
from edgec.goals import judge, of_target
from edgec.installed import available, tuned
from edgec.job import Job as Job
from edgec.kernels import stage as kernels
from edgec.kernels.choose import Means as KernelMeans
from edgec.manifest import manifest
from edgec.needs import every_value, needs, union
from edgec.offload import with_offloads
from edgec.outputs import check_folder
from edgec.pack import npz_bytes, write_bundle, write_spares
from edgec.partition import partition, rename
from edgec.policy import check_policy, load_policy, match
from edgec.prove import MOST_SAMPLES, Judge, canonical, lowering, prove
from edgec.recipe import load_recipe
from edgec.report import write_report
from edgec.results import Contender, Report
from edgec.runtime.built import spares_of
from edgec.runtime.conditions import Watch
from edgec.runtime.goals import BUILT, parse
from edgec.settle import Settled, choose, contenders, no_better, plainest, race, settle
from edgec.target import load_target
from edgec.timing import busy
from edgec.trial import Prepared, Trial, Trials
from edgec.types import Graph, KernelChoice, Placement


def build(job: Job) -> Report:
    """Compile `job.model` into a bundle, and a report beside it.

    Raises the errors of `edgec.errors`. The bundle appears only when it is complete. A goal that is
    missed stands in the report; `edgec.goals.first_missed` makes an error of it.
    """
    from edgec import sbom  # its library is large, and `plan` works without it

    output = _output(job)
    goals = [parse(text, BUILT) for text in job.goals]
    if job.statistics is not None and job.data is None:
        raise InputError(
            "statistics are of no use without samples to verify on",
            hint="give --data with samples that were not calibrated on, or no --statistics",
        )
    say = job.say
    with tempfile.TemporaryDirectory(prefix="edgec-build-") as temporary:
        folder = Path(temporary)
        prepared = prepare(job)
        job = _with_source(job, prepared.graph, folder)
        target = prepared.target
        threads = job.threads or os.cpu_count() or 1
        seen = statistics_file.samples(job.statistics) if job.statistics else ()
        inputs = _samples(job, prepared, folder)
        prepared = _proven(job, prepared, inputs, folder)
        prepared = _with_kernels(job, prepared, inputs, folder)
        graph, target = prepared.graph, prepared.target
        gathered = _gather(job, prepared, inputs, seen, folder)
        samples, proposal = gathered.samples, gathered.proposal
        calibration = _observe(job, prepared, gathered)
        measure = job.measure and target.here
        trials = Trials(job.source, prepared, gathered, calibration, folder, threads, measure, say)

        def pack(one: Settled, path: Path, *, force: bool, as_folder: bool) -> list[str]:
            page = manifest(prepared, one.plan, one.trial, samples, proposal, measured=measure)
            files = {**_files(one.trial), **samples.recipe.files}
            write_bundle(page, files, path, force=force, folder=as_folder)
            return list(page["notes"])

        def runnable(one: Settled) -> Path:
            path = folder / f"{one.name}.bundle"
            pack(one, path, force=False, as_folder=True)
            return path

        with_data = job.data is not None
        if measure:
            found, tried = contenders(prepared, trials, data=with_data, say=say)
            say("timing whole models against FP32: " + ", ".join(one.name for one in found))
            feeds = found[0].trial.end.inputs
            raced, marks = _watched(lambda: race(found, job.source, runnable, feeds, threads))
            if reason := no_better(raced):
                ran = any(one.speed is not None for one in raced)
                best = choose(found, raced).plan if ran else prepared.plan
                plain = plainest(prepared, best, reason, data=with_data)
                found = [settle("float", plain, prepared, trials, data=with_data, say=say)]
                tried = [*tried, *raced]
                raced, marks = _watched(lambda: race(found, job.source, runnable, feeds, threads))
            chosen, tried = choose(found, raced), [*raced, *tried]
        else:
            plan = prepared.plan
            chosen = settle("table", plan, prepared, trials, data=with_data, say=say)
            tried, marks = [], []
        say("packing")
        notes = pack(chosen, output, force=job.force, as_folder=output.suffix != ".edgec")
        spares = [path for artifact in chosen.trial.artifacts for path in artifact.spares.values()]
        write_spares(spares, spares_of(output))
        report = Report(
            bundle=output,
            target=target.name,
            stack=target.stack,
            source_bytes=graph.bytes,
            bundle_bytes=_size(output),
            plan=chosen.plan,
            sizes=chosen.trial.sizes,
            gains=chosen.trial.gains,
            effort=calibration.effort,
            artifacts=chosen.trial.artifacts,
            checks=chosen.trial.checks,
            contenders=tuple(tried),
            chosen=chosen.name,
            notes=(*notes, *filter(None, [busy([one.speed for one in tried if one.speed])])),
            kernels=prepared.kernels,
        )
        why = f"the machine was disturbed ({'; '.join(marks)})" if marks else ""
        why = why if measure else "--no-measure was given"
        if not target.here:
            why = f"this machine is not the target {target.name}: edgec bench tells, on the device"
        goals += [*prepared.policy.goals, *of_target(target.goals)]
        verdicts = judge(goals, report, with_data=with_data, unmeasured=why)
        report = replace(report, goals=tuple(verdicts))
        write_report(report)
        sbom.beside(output)
    return report


def prepare(
    job: Job, graph: Graph | None = None, choices: Sequence[KernelChoice] | None = None
) -> Prepared:
    """Load, canonicalise, partition and assign: all that `plan` shows, without a backend.

    `graph`: the canonical one, where it is known already. `choices`: what computes custom ops,
    where that is settled.
    """
    target, notes = available(load_target(job.target, job.stack), job.backend)
    policy = load_policy(job.policy)
    if job.limits is not None:
        policy = replace(policy, limits=job.limits)
    target = tuned(target, {"hint": str(policy.hint), "format": job.form})
    if choices is None:
        choices = kernels.offered(job.kernels, target, native=job.native)
    if graph is None:
        job.say(f"loading {job.model.name}")
        graph = canonicalise(kernels.read(job.model, job.kernels, choices), job.shapes)
    choices, target = kernels.in_use(graph, target, choices)
    parts = rename(partition(graph), policy.names)
    rooms = [found for one in target.runtimes if (found := room(one, target))]
    parts = fit(graph, parts, min(rooms, default=0))
    check_policy(policy, parts, [str(v.name) for node in graph.model.graph for v in node.outputs])
    target = with_offloads(target, parts, policy)
    plan = assign(graph, parts, policy, target, data=job.data is not None)
    default = load_recipe(job.recipe).methods
    stated = {p for p in plan.recovery if (w := match(policy.parts, p)) and w.methods}
    recovery = {
        part: one if part in stated else replace(one, methods=default)
        for part, one in plan.recovery.items()
    }
    job.say("parts: " + ", ".join(f"{part.name} ({part.kind})" for part in parts))
    plan = replace(plan, recovery=recovery)
    known = tuple(choices)
    inputs = data.inputs(graph)
    return Prepared(graph, parts, plan, target, policy, inputs, notes, kernels=known)


def _with_source(job: Job, graph: Graph, folder: Path) -> Job:
    return replace(job, original=kernels.runnable(job.model, job.kernels, graph, folder))


def _with_kernels(job: Job, prepared: Prepared, samples: data.Samples, folder: Path) -> Prepared:
    """The same with native kernels compiled and settled; ops that lost theirs are written out."""
    if not prepared.kernels:
        return prepared
    rows, threads = samples.verification or samples.calibration, job.threads or os.cpu_count() or 1
    graph, target, before = prepared.graph, prepared.target, prepared.kernels
    measure = job.measure and target.here
    means = KernelMeans(rows, prepared.inputs, threads, folder, measure, job.say)
    choices, stays = kernels.settle(graph, target, job.kernels, before, means)
    if stays:
        return replace(prepare(job, graph, choices), lowered=prepared.lowered)
    again = _proven(job, prepare(job, None, choices), samples, folder)
    return replace(again, kernels=tuple(choices))


def calibrate(
    job: Job, *, everything: bool = False, most: int | None = None, every: bool = False
) -> Calibration:
    """Make or extend the file of statistics that the job names, for all that its target may need.

    `everything`: on all samples, so that none is left to verify on; `most`: on this many files;
    `every`: of all float values.
    """
    if job.data is None:
        raise InputError("there is nothing to calibrate on", hint="give --data")
    with tempfile.TemporaryDirectory(prefix="edgec-calibrate-") as temporary:
        prepared, folder = prepare(job), Path(temporary)
        job = _with_source(job, prepared.graph, folder)
        samples = _samples(job, prepared, folder, most)
        # a build proves its graph anew, and uses of the statistics what its graph has; a cache of
        # all values goes to the device as it is
        prepared = _proven(job, prepared, samples, folder, MOST_SAMPLES if every else 1)
        gathered = _gather(job, prepared, samples, (), folder, everything)
        more = every_value(prepared.graph) if every else None
        return _observe(job, prepared, gathered, more)


def _proven(
    job: Job, prepared: Prepared, samples: data.Samples, folder: Path, most: int = MOST_SAMPLES
) -> Prepared:
    """The same with its rewrites proven on verification samples, without those that fail."""
    job.say("proving the rewrites")
    threads = job.threads or os.cpu_count() or 1
    rows = (samples.verification or samples.calibration)[:most]
    judge = cache(partial(Judge, job.source, rows, threads, folder))
    source = cache(partial(kernels.read, job.model, job.kernels, prepared.kernels))
    line = canonical(source, prepared.graph.shapes)
    graph = prove(prepared.graph, line, judge, job.say)
    if graph.model is prepared.graph.model:
        prepared = replace(prepared, graph=graph)
    else:
        prepared = prepare(job, graph, prepared.kernels)
    lowered = []
    for runtime in prepared.target.runtimes:
        line = lowering(graph, runtime)
        try:
            found = prove(line.make((), None), line, judge, job.say).rewrites
        except UnsupportedError as error:  # a part that goes elsewhere may be the cause
            job.say(f"not lowered to {runtime.name} as a whole: {error.message}")
            continue
        lowered += [replace(one, runtime=runtime.name) for one in found]
    return replace(prepared, lowered=tuple(lowered))


def _gather(
    job: Job,
    prepared: Prepared,
    samples: data.Samples,
    seen: Sequence[str],
    folder: Path,
    everything: bool = False,
) -> Gathered:
    found = gather(
        job.source,
        prepared.graph,
        samples,
        prepared.inputs,
        parse_wish(job.buckets),
        seen,
        job.threads or os.cpu_count() or 1,
        folder,
        everything=everything,
    )
    job.say(f"samples: {samples.origin}")
    job.say(found.proposal.reason)
    return found


def _observe(
    job: Job, prepared: Prepared, gathered: Gathered, more: Placement | None = None
) -> Calibration:
    """Statistics for whatever plan the build will come to, and of `more`."""
    threads = job.threads or os.cpu_count() or 1
    means = Means(threads, job.max_ram, job.native, job.checkpoint)
    graph, rows = prepared.graph, gathered.rows
    found = Calibration(graph, rows, means, job.statistics)
    if found.dropped:
        job.say(found.dropped)
    if rows or found.statistics.samples:
        job.say(f"calibrating on {len(rows)} samples")
        need = needs(graph, prepared.parts, prepared.policy, prepared.target)
        found.observe(need if more is None else union([need, more]))
    return found


def propose(job: Job, prepared: Prepared) -> Proposal:
    """For `plan`: shape buckets from the lengths of the data, not proven yet."""
    with tempfile.TemporaryDirectory(prefix="edgec-plan-") as folder:
        samples = data.Samples((), (), "", "no data")
        if job.data is not None:
            samples = _samples(job, prepared, Path(folder))
        return find(prepared.graph, samples, prepared.inputs, parse_wish(job.buckets))


def _watched(measured: Callable[[], list[Contender]]) -> tuple[list[Contender], list[str]]:
    """What was measured, and why it is not to be believed: empty where nothing disturbed it."""
    with Watch() as watch:
        found = measured()
    return found, list(watch.page["marks"])


def _files(trial: Trial) -> dict[str, Path | bytes]:
    files: dict[str, Path | bytes] = {
        "golden/inputs.npz": npz_bytes(trial.end.inputs),
        "golden/outputs.npz": npz_bytes(trial.end.outputs),
    }
    if any(artifact.build for artifact in trial.artifacts):
        files["golden/float.npz"] = npz_bytes(trial.end.exact)
    for artifact in trial.artifacts:
        for file in (artifact.path, *artifact.data_files, *artifact.side_files):
            files[f"engines/{file.name}"] = file
    return files


def _samples(job: Job, prepared: Prepared, folder: Path, most: int | None = None) -> data.Samples:
    chosen, inputs = load_recipe(job.recipe), prepared.inputs
    recipe = bind(chosen, inputs, near(job.data, job.model))
    if job.data is not None:
        return data.open_samples(job.data, inputs, most or chosen.files, recipe, folder / "samples")
    made_up = folder / "synthetic"
    made_up.mkdir()
    return data.synthetic(prepared.graph, made_up, recipe=recipe)


def _output(job: Job) -> Path:
    target = load_target(job.target, job.stack)
    output = job.output or Path(f"{job.model.stem}.{target.name}.edgec")
    if os.path.lexists(output) and not job.force:
        raise InputError(f"{output} exists", hint="give --force to replace it, or another -o")
    check_folder(output)
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
