"""Stages 5 to 11 for one plan: what it becomes, and what the checks say of it.

Trials of one build share statistics; parts whose decisions did not change are not checked again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from edgec import samples as data
from edgec.backends import backend
from edgec.blame import Broken, guilty
from edgec.calibrate import Calibration
from edgec.crossing import float_name, narrowed, widened
from edgec.errors import EmitError
from edgec.extents import extents
from edgec.gather import Gathered
from edgec.graphs import extract, save, weight_bytes
from edgec.join import join
from edgec.kernels.marks import op
from edgec.lower import lower
from edgec.moments import Stored, second_moments
from edgec.needs import union
from edgec.placement import place
from edgec.quantize import quantize
from edgec.results import Artifact, Checks, Engine, Speed
from edgec.timing import time_part
from edgec.tune import plain, round_by_moments, split, tune
from edgec.types import (
    Gain,
    Graph,
    KernelChoice,
    Part,
    Plan,
    Policy,
    Recovery,
    Rewrite,
    Scheme,
    Statistics,
    Target,
)
from edgec.verify import EndToEnd, PartFiles, PartResult, cut, verify_outputs, verify_parts


@dataclass(frozen=True)
class Prepared:
    """What the first stages make of a job, before any backend is needed.

    `notes`: what the user should know of the choice of runtimes; `lowered`: what lowering to each
    runtime does, as it was proven. `kernels`: what computes the custom ops of the model.
    """

    graph: Graph
    parts: tuple[Part, ...]
    plan: Plan
    target: Target
    policy: Policy
    inputs: tuple[data.Input, ...]
    notes: tuple[str, ...] = ()
    lowered: tuple[Rewrite, ...] = ()
    kernels: tuple[KernelChoice, ...] = ()


@dataclass(frozen=True)
class Trial:
    """What a plan became, and what the checks found.

    `sizes`: bytes of weights per built part; `recovery`: by part; `notes`: what failed on the way
    and was done without.
    """

    sizes: Mapping[str, int]
    artifacts: tuple[Artifact, ...]
    statistics: Statistics
    recovery: Mapping[str, Recovery]
    gains: tuple[Gain, ...]
    checks: Checks
    end: EndToEnd
    notes: tuple[str, ...] = ()


class Trials:
    """Quantize, emit, verify and time the plans of one build."""

    def __init__(
        self,
        original: Path,
        prepared: Prepared,
        gathered: Gathered,
        calibration: Calibration,
        folder: Path,
        threads: int,
        measure: bool,
        say: Callable[[str], None],
    ) -> None:
        self._original, self._prepared = original, prepared
        # engines see trimmed samples; end to end they come as they were fed
        self._fed, self._samples = gathered.samples, gathered.trimmed
        self._buckets, self._calibration = gathered.proposal.buckets, calibration
        self._folder, self._threads, self._measure, self._say = folder, threads, measure, say
        self._rows, self._moments = gathered.rows, Stored(folder / "moments")
        self._recovered: dict[tuple[str, ...], tuple[Recovery, tuple[Gain, ...]]] = {}
        self._untried: dict[tuple[str, ...], str] = {}
        self._asked: set[str] = set()  # nodes whose moments were asked for, or could not be had
        self._checked: dict[tuple[str, ...], tuple[PartResult, Speed | None]] = {}
        self._rounds = 0
        fed = (*self._fed.files, *self._samples.files)
        self._extents = extents(prepared.graph, fed, prepared.inputs)

    def run(self, plan: Plan) -> Trial:
        """Everything between a plan and its verdict. Raises Broken where a backend fails."""
        self._rounds += 1
        folder = self._folder / f"round_{self._rounds}"
        folder.mkdir()
        known = self._observe(plan)
        recovered, gains, notes = self._recover(plan, known, folder)
        engines, artifacts = self._emit(plan, known, recovered, folder)
        halved = {name for made in artifacts if made.half for name in made.parts}
        built = {
            part.name: weight_bytes(
                extract(widened(engine.model.clone()), part.inputs, part.outputs).graph,
                half=part.name in halved and plan.schemes[part.name] is not Scheme.FLOAT32,
            )
            for part, engine in _located(plan.parts, engines)
        }
        if any(artifact.misplaced for artifact in artifacts):
            nothing = Checks((), (), (), self._samples.origin)
            end = EndToEnd((), {}, {})
            return Trial(built, artifacts, known, recovered, gains, nothing, end, notes)
        checked = self._check_parts(plan, engines, artifacts)
        end = self._check_whole(plan, engines, artifacts)
        checks = Checks(
            parts=tuple(one for result, _ in checked for one in result.comparisons),
            outputs=end.comparisons,
            speeds=tuple(speed for _, speed in checked if speed is not None),
            data=self._samples.origin,
        )
        return Trial(built, artifacts, known, recovered, gains, checks, end, notes)

    def _observe(self, plan: Plan) -> Statistics:
        """Statistics for a plan; what they lack is calibrated now."""
        model = self._prepared.graph.model
        return self._calibration.observe(
            union(
                place(model, plan.decisions, runtime)
                for runtime in self._prepared.target.runtimes
                if runtime.name in plan.runtimes.values()
            )
        )

    def _recover(
        self, plan: Plan, known: Statistics, folder: Path
    ) -> tuple[dict[str, Recovery], tuple[Gain, ...], tuple[str, ...]]:
        """What wins accuracy back, by part; tried once for the schemes that a part has.

        Where nothing can be tried the build goes on without, and a note says why.
        """
        graph, (_, fresh, seen) = self._prepared.graph, split(self._rows)
        self._gather_moments(plan)
        keys = {part.name: _key(plan, part, graph) for part in plan.parts}
        for index, part in enumerate(plan.parts):
            key = keys[part.name]
            if key in self._recovered:
                continue
            self._say(f"trying what keeps {part.name} close to float")
            runtime = self._prepared.target.runtime(plan.runtimes[part.name])
            place, threads = folder / f"tune_{index}", self._threads
            try:
                self._recovered[key] = tune(
                    graph, part, plan, runtime, known, self._moments, fresh, seen, place, threads
                )
            except EmitError as error:
                self._recovered[key] = plain(plan.recovery[part.name]), ()
                why = f"{part.name}: what keeps INT8 close to float was not tried: {error.message}"
                self._untried[key] = why
                self._say(why)
        found = {name: self._recovered[key] for name, key in keys.items()}
        gains = tuple(gain for _, own in found.values() for gain in own)
        notes = [
            self._untried[key] for key in (("moments",), *keys.values()) if key in self._untried
        ]
        return {name: recovery for name, (recovery, _) in found.items()}, gains, tuple(notes)

    def _gather_moments(self, plan: Plan) -> None:
        """Those of inputs that no plan before has asked for."""
        graph, (fit, _, _), inputs = self._prepared.graph, split(self._rows), self._prepared.inputs
        wanted = [name for name in round_by_moments(graph, plan) if name not in self._asked]
        if not fit or not wanted:
            return
        self._asked.update(wanted)
        self._say(f"second moments of {len(wanted)} inputs of weights")
        files, threads = [row.path for row in fit], self._threads
        try:
            found = second_moments(graph, wanted, files, inputs, threads)
            self._moments.add(found)
        except EmitError as error:
            why = f"some weights are rounded to nearest, not by second moments: {error.message}"
            self._untried["moments",] = why
            self._say(why)

    def _emit(
        self, plan: Plan, known: Statistics, recovered: Mapping[str, Recovery], folder: Path
    ) -> tuple[tuple[Engine, ...], tuple[Artifact, ...]]:
        engines, artifacts = [], []
        for joined in join(self._prepared.graph, plan, self._prepared.target):
            model = quantize(
                joined.source, plan.decisions, known, recovered, joined.runtime, self._moments
            )
            off = tuple(
                one
                for one in self._prepared.lowered
                if one.failure and one.runtime == joined.runtime.name
            )
            runtime, plugged = joined.runtime, None
            if runtime.backend == "tensorrt" and any(map(op, model.graph)):
                plugged, runtime = lower(model, runtime, off), replace(runtime, natives={})
            model = lower(model, runtime, off)
            made = replace(joined, model=model, off=off, extents=self._extents, plugged=plugged)
            engines.append(made)
        given = [str(value.name) for value in self._prepared.graph.model.graph.outputs]
        engines = list(narrowed(engines, given))
        for engine in engines:
            self._say(f"emitting engine {engine.name} for {engine.runtime.name}")
            try:
                artifacts.append(self._emit_one(engine, plan, folder))
            except EmitError as error:
                raise Broken(self._culprits(engine, plan, folder), error) from error
        return tuple(engines), tuple(artifacts)

    def _emit_one(self, engine: Engine, plan: Plan, folder: Path) -> Artifact:
        maker = backend(engine.runtime.backend)
        if told := getattr(maker, "forecast", lambda _: "")(engine):
            self._say(told)
        return maker.emit(engine, plan.decisions, folder, self._threads)

    def _culprits(self, engine: Engine, plan: Plan, folder: Path) -> tuple[str, ...]:
        """The parts of a broken engine that break an engine of their own."""
        parts = [part for part in plan.parts if part.name in engine.parts and part.outputs]
        if len(parts) < 2:
            return engine.parts
        self._say(f"engine {engine.name} failed: trying its parts")

        def attempt(part: Part) -> None:
            model = extract(widened(engine.model.clone()), part.inputs, part.outputs)
            alone = replace(
                engine,
                name=f"{part.name}_alone",
                parts=(part.name,),
                inputs=tuple(str(value.name) for value in model.graph.inputs),
                outputs=part.outputs,
                source=extract(engine.source, part.inputs, part.outputs),
                model=model,
            )
            self._emit_one(alone, plan, folder)

        return guilty({(part.name,): partial(attempt, part) for part in parts})

    def _check_parts(
        self, plan: Plan, engines: Sequence[Engine], artifacts: Sequence[Artifact]
    ) -> list[tuple[PartResult, Speed | None]]:
        keys = {
            part.name: _key(plan, part, self._prepared.graph) for part in plan.parts if part.outputs
        }
        graph, by_engine = self._prepared.graph, {a.engine: a for a in artifacts}
        files = []
        for part, engine in _located(plan.parts, engines):
            if keys[part.name] not in self._checked:
                with _blaming(part.name):
                    files.append(cut(graph, part, by_engine[engine.name], self._folder))
        if files:
            self._say("verifying " + ", ".join(f.part.name for f in files))
            try:
                results = self._compare(files)
            except EmitError as error:
                parts = [(f.part.name,) for f in files]
                raise self._accuse(files, parts, error) from error
            for f in files:
                result, speed = results[f.part.name], None
                if self._measure and f.part.macs:
                    self._say(f"timing {f.part.name}")
                    with _blaming(f.part.name):
                        speed = time_part(f, result.milliseconds, self._threads)
                self._checked[keys[f.part.name]] = (result, speed)
        return [self._checked[key] for key in keys.values()]

    def _compare(self, files: Sequence[PartFiles], *, built: bool = True) -> dict[str, PartResult]:
        return verify_parts(
            self._prepared.graph,
            files,
            self._samples.verification,
            self._prepared.inputs,
            self._folder,
            self._threads,
            built=built,
        )

    def _accuse(
        self, files: Sequence[PartFiles], parts: Sequence[tuple[str, ...]], error: EmitError
    ) -> Broken:
        """The guilty among files that hold such parts. Raises EmitError if the float forms fail."""
        self._say("verification failed: trying " + ", ".join(f.part.name for f in files))
        self._compare(files, built=False)
        pairs = zip(parts, files, strict=True)
        return Broken(guilty({held: partial(self._compare, [f]) for held, f in pairs}), error)

    def _check_whole(
        self, plan: Plan, engines: Sequence[Engine], artifacts: Sequence[Artifact]
    ) -> EndToEnd:
        self._say("verifying end to end")
        try:
            return verify_outputs(
                self._original,
                artifacts,
                self._fed.verification,
                self._prepared.inputs,
                self._threads,
                self._buckets,
            )
        except EmitError as error:
            pairs = zip(engines, artifacts, strict=True)
            files = [self._whole(plan.parts[0], *pair) for pair in pairs]
            raise self._accuse(files, [one.parts for one in engines], error) from error

    def _whole(self, any_part: Part, engine: Engine, artifact: Artifact) -> PartFiles:
        """An engine to be compared as if it were one part."""
        inputs, outputs = (
            tuple(map(float_name, names)) for names in (engine.inputs, engine.outputs)
        )
        as_part = replace(any_part, name=engine.name, inputs=inputs, outputs=outputs)
        source, feeds = (self._folder / f"{engine.name}.whole.{end}" for end in ("onnx", "npz"))
        save(engine.source, source)
        runs, built = artifact.opened, artifact.opened.path
        if (inputs, outputs) != (engine.inputs, engine.outputs):
            built = backend(artifact.backend).cut(artifact, as_part, self._folder)
        return PartFiles(as_part, source, built, feeds, runs.backend, runs.settings)


def _located(parts: Sequence[Part], engines: Sequence[Engine]) -> list[tuple[Part, Engine]]:
    """The parts that give something to the outside, each with the engine that holds it."""
    return [
        (part, engine)
        for part in parts
        for engine in engines
        if part.name in engine.parts and part.outputs
    ]


@contextmanager
def _blaming(part: str) -> Iterator[None]:
    """What fails here is the fault of one part."""
    try:
        yield
    except EmitError as error:
        raise Broken((part,), error) from error


def _key(plan: Plan, part: Part, graph: Graph) -> tuple[str, ...]:
    """What a part's check depends on: its runtime, its nodes' schemes, those of its inputs."""
    makers = [
        str(node.name)
        for node in graph.model.graph
        if any(value.name in part.inputs for value in node.outputs)
    ]
    home = plan.runtimes[part.name]
    return (part.name, home, *(str(plan.decisions[node].scheme) for node in (*part.nodes, *makers)))
