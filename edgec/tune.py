"""Stage 7: what wins accuracy back on a part is tried, one stage after the other, and reported.

    mask-aware ranges, smoothing, bias correction, GPTQ rounding, calibration methods

A stage is judged by its effect on the outputs of the part, which is quantized in the target's grid
and run on calibration samples behind float parts: the error of a single value says little of it
(min-max beats KL on both towers of the demonstration, whatever the histograms say). A stage stays
if it helps; another method or strength than the preferred one has to help by MARGIN, so that noise
does not choose. Rounding is judged by samples that it has not seen, all else by more of them.
Nothing here looks at the samples that verify.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.compare import Running
from edgec.graphs import elements, extract, save
from edgec.isolate import call
from edgec.moments import Moments, unfolding
from edgec.placement import place
from edgec.quantize import quantize
from edgec.reference import Reference
from edgec.rows import Row, spread, stream
from edgec.runtime.openers import opener
from edgec.types import (
    Decision,
    Feeds,
    Gain,
    Graph,
    Part,
    Plan,
    Recovery,
    RecoveryPlan,
    Runtime,
    Scheme,
    Statistics,
)

MOST_SAMPLES = 64  # to round by, and of either kind to judge by
FEW, APART = 16, 4  # from so many samples on, every fourth judges and is not rounded by
MARGIN = 0.4  # dB
MOST = 200_000_000  # weights of a part, beyond which GPTQ would take too long
INT8 = (Scheme.INT8_STATIC, Scheme.INT8_DYNAMIC, Scheme.INT8_WEIGHT_ONLY)


@dataclass(frozen=True)
class Task:
    """A part to tune: its float model, from the graph's inputs on, and what it is quantized by."""

    part: str
    model: Path
    decisions: Mapping[str, Decision]
    statistics: Statistics
    plan: RecoveryPlan
    runtime: Runtime
    moments: Moments
    fresh: tuple[Row, ...]
    seen: tuple[Row, ...]
    folder: Path
    threads: int


def round_by_moments(graph: Graph, plan: Plan) -> list[str]:
    """The nodes whose second moments the plan needs: INT8 weights of parts that GPTQ may round."""
    found = []
    for part in plan.parts:
        own = set(part.nodes)
        int8 = [
            node
            for node in graph.model.graph
            if node.name in own
            and plan.decisions[str(node.name)].scheme in INT8
            and unfolding(node) is not None
        ]
        if (
            plan.recovery[part.name].gptq
            and sum(elements(n.inputs[1]) for n in int8 if n.inputs[1]) <= MOST
        ):
            found += [str(node.name) for node in int8]
    return found


def split(rows: Sequence[Row]) -> tuple[list[Row], list[Row], list[Row]]:
    """Samples that weights are rounded by; others, fresh, to judge by; the first, to judge by too.

    Few serve for both, and are judged by once.
    """
    if len(rows) < FEW:
        return list(rows), list(rows), []
    fit = spread([row for index, row in enumerate(rows) if index % APART], MOST_SAMPLES)
    return fit, spread(rows[::APART], MOST_SAMPLES), fit


def plain(plan: RecoveryPlan) -> Recovery:
    """What is done where nothing can be tried: the preferred choice of everything but GPTQ."""
    return Recovery(
        method=plan.methods[0],
        values=plan.values,
        bias=plan.bias,
        smoothing=plan.strengths[0] if plan.strengths else 0.0,
        mask_aware=plan.mask_aware,
    )


def tune(
    graph: Graph,
    part: Part,
    plan: Plan,
    runtime: Runtime,
    statistics: Statistics,
    moments: Moments,
    fresh: Sequence[Row],
    seen: Sequence[Row],
    folder: Path,
    threads: int,
) -> tuple[Recovery, tuple[Gain, ...]]:
    """How a part's accuracy is best kept, and what each stage gained; in a process of its own.

    `fresh`, `seen`: what judges, without and with the samples that weights are rounded by, see
    `split`. `folder`: a new folder for the trials. Raises EmitError where ONNX Runtime cannot run
    the part.
    """
    wish = plan.recovery[part.name]
    decisions = {name: plan.decisions[name] for name in part.nodes}
    if not fresh or not part.outputs or all(d.scheme not in INT8 for d in decisions.values()):
        return plain(wish), ()
    folder.mkdir()
    inputs = [str(v.name) for v in graph.model.graph.inputs]
    path = folder / "float.onnx"
    save(extract(graph.model, inputs, part.outputs), path)
    task = Task(
        part.name,
        path,
        decisions,
        statistics,
        wish,
        runtime,
        moments,
        tuple(fresh),
        tuple(seen),
        folder,
        threads,
    )
    found: tuple[Recovery, tuple[Gain, ...]] = call(search, task)
    return found


def search(task: Task) -> tuple[Recovery, tuple[Gain, ...]]:
    """Greedy, from nothing but the preferred method on."""
    judge, plan = _Judge(task), task.plan
    now = Recovery(plan.methods[0], plan.values, False, 0.0, False, False)
    scores, gains = judge(now), list[Gain]()
    for stage in _stages(task, judge.model):
        tried = [(label, other, judge(other)) for label, other in stage.candidates(now)]
        best, best_scores, before = now, scores, scores.of(stage)
        for index, (_, other, reached) in enumerate(tried):
            margin = MARGIN if index or stage.margin else 0.0
            if reached.of(stage) > best_scores.of(stage) + margin:
                best, best_scores = other, reached
        gains += [
            Gain(task.part, label, before, reached.of(stage), other is best)
            for label, other, reached in tried
        ]
        now, scores = best, best_scores
    return now, tuple(gains)


@dataclass(frozen=True)
class _Stage:
    """Settings of one field of `Recovery`; `margin`: whether the first, too, has to help by it.

    `fits`: whether it depends on the samples that weights are rounded by.
    """

    field: str
    label: str
    settings: tuple[Any, ...]
    margin: bool = False
    fits: bool = False

    def candidates(self, now: Recovery) -> list[tuple[str, Recovery]]:
        """Each setting with its label."""
        return [
            (self.label.format(one), replace(now, **{self.field: one})) for one in self.settings
        ]


def _stages(task: Task, model: ir.Model) -> list[_Stage]:
    """The stages that can change something, in their order."""
    plan, need = task.plan, place(model, task.decisions, task.runtime)
    stages = []
    if need.masked and plan.mask_aware:
        stages.append(_Stage("mask_aware", "mask-aware ranges", (True,)))
    if need.extents and plan.strengths:
        stages.append(_Stage("smoothing", "smoothing {}", plan.strengths))
    if need.means and plan.bias:
        stages.append(_Stage("bias", "bias correction", (True,)))
    if any(name in task.moments for name in task.decisions) and plan.gptq:
        stages.append(_Stage("gptq", "GPTQ rounding", (True,), fits=True))
    if need.values and plan.methods[1:]:
        stages.append(_Stage("method", "ranges by {}", plan.methods[1:], margin=True))
    return stages


@dataclass(frozen=True)
class _Scores:
    """The SQNR in dB on samples that weights are not rounded by, and on all that judge."""

    fresh: float
    every: float

    def of(self, stage: _Stage) -> float:
        """What a stage is judged by."""
        return self.fresh if stage.fits else self.every


class _Judge:
    """The SQNR of a part's worst output, quantized in some way, against its float form."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self.model = ir.load(task.model)
        reference = Reference(task.model, task.threads)
        names = {str(value.name) for value in self.model.graph.inputs}
        rows = (*task.fresh, *task.seen)
        self._samples: list[Feeds] = [{n: feeds[n] for n in names} for _, feeds in stream(rows)]
        self._expected = [reference.run(one) for one in self._samples]

    def __call__(self, recovery: Recovery) -> _Scores:
        """Minus infinity where an output is broken."""
        task = self._task
        model = quantize(
            self.model,
            task.decisions,
            task.statistics,
            {task.part: recovery},
            task.runtime,
            task.moments,
        )
        path = task.folder / "trial.onnx"
        save(model, path)
        session = opener("onnxruntime")(path, {"threads": task.threads})
        outputs = [session.run(feeds) for feeds in self._samples]
        session.close()
        return _Scores(self._score(outputs[: len(task.fresh)]), self._score(outputs))

    def _score(self, outputs: Sequence[Mapping[str, np.ndarray]]) -> float:
        running = {name: Running(self._task.part, name) for name in self._expected[0]}
        for made, expected in zip(outputs, self._expected, strict=False):
            for name, array in made.items():
                running[name].add(expected[name], np.asarray(array))
        found = min(one.result().sqnr_db for one in running.values())
        return -math.inf if math.isnan(found) else found
