"""Stage 6: observe the canonical values that some grid needs, streaming, in constant memory.

Minimum, maximum and mean per channel are reduced inside the graph, so that a sample costs little
more than its inference and memory does not depend on their number. A percentile needs a second
pass, which fills histograms over the known ranges.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgec.errors import InputError
from edgec.graphs import add_initialiser, opset, save
from edgec.isolate import call
from edgec.reference import Reference
from edgec.samples import Input, Samples, stream
from edgec.types import Graph, Histogram, Statistics, ValueStatistics

BINS = 2048
AXES_AS_INPUT = 18  # the opset from which the axes of a reduction are an input


@dataclass(frozen=True)
class Observed:
    """What one pass over the samples saw, by value."""

    low: Mapping[str, float]
    high: Mapping[str, float]
    mean: Mapping[str, np.ndarray]


def calibrate(
    graph: Graph,
    ranges: frozenset[str],
    means: frozenset[str],
    histograms: frozenset[str],
    samples: Samples,
    inputs: Sequence[Input],
    threads: int,
) -> Statistics:
    """Statistics of the values in `ranges` (all), `means` and `histograms` (subsets of values).

    Raises InputError where the model turns a sample into NaN or infinity.
    """
    if not samples.calibration or not ranges | means:
        return Statistics({}, 0, samples.fingerprint)
    with tempfile.TemporaryDirectory(prefix="edgec-calibrate-") as folder:
        model = graph.model.clone()
        means = frozenset(name for name in means if _rank(model, name))
        _add_reductions(model, sorted(ranges), sorted(means))
        path = Path(folder) / "reduced.onnx"
        save(model, path)
        files, needs = list(samples.calibration), list(inputs)
        seen: Observed = call(_reduce, path, files, needs, sorted(ranges), sorted(means), threads)
        counts: Mapping[str, np.ndarray] = {}
        if histograms:
            whole = graph.model.clone()
            _add_outputs(whole, sorted(histograms))
            save(whole, path)
            spans = {name: (seen.low[name], seen.high[name]) for name in histograms}
            counts = call(_count, path, files, needs, spans, threads)
    total = len(files)
    values = {
        name: ValueStatistics(
            low=seen.low.get(name, 0.0),
            high=seen.high.get(name, 0.0),
            samples=total,
            channel_mean=seen.mean.get(name),
            histogram=Histogram(seen.low[name], seen.high[name], counts[name])
            if name in counts
            else None,
        )
        for name in sorted(ranges | means)
    }
    return Statistics(values, total, samples.fingerprint)


def _reduce(
    path: Path,
    files: Sequence[Path],
    inputs: Sequence[Input],
    ranges: Sequence[str],
    means: Sequence[str],
    threads: int,
) -> Observed:
    reference = Reference(path, threads)
    wanted = [f"{name}/edgec_{what}" for name in ranges for what in ("low", "high")]
    wanted += [f"{name}/edgec_mean" for name in means]
    low = dict.fromkeys(ranges, np.inf)
    high = dict.fromkeys(ranges, -np.inf)
    mean: dict[str, np.ndarray] = {}
    for file, feeds in zip(files, stream(files, inputs), strict=True):
        found = reference.run(feeds, wanted)
        for name in ranges:
            least, most = float(found[f"{name}/edgec_low"]), float(found[f"{name}/edgec_high"])
            if not np.isfinite([least, most]).all():
                raise InputError(
                    f"{file}: the model turns it into NaN or infinity at value {name!r}",
                    hint="leave the sample out, or keep that node's part in float",
                )
            low[name], high[name] = min(low[name], least), max(high[name], most)
        for name in means:
            part = found[f"{name}/edgec_mean"].astype(np.float64) / len(files)
            mean[name] = mean[name] + part if name in mean else part
    return Observed(low, high, mean)


def _count(
    path: Path,
    files: Sequence[Path],
    inputs: Sequence[Input],
    spans: Mapping[str, tuple[float, float]],
    threads: int,
) -> dict[str, np.ndarray]:
    reference = Reference(path, threads)
    counts = {name: np.zeros(BINS, np.int64) for name in spans}
    for feeds in stream(files, inputs):
        for name, array in reference.run(feeds, list(spans)).items():
            low, high = spans[name]
            if high > low:
                counts[name] += np.histogram(array, bins=BINS, range=(low, high))[0]
    return counts


def _add_reductions(model: ir.Model, ranges: Sequence[str], means: Sequence[str]) -> None:
    values = ir.convenience.create_value_mapping(model.graph, include_subgraphs=False)
    for name in ranges:
        for op_type, what in (("ReduceMin", "low"), ("ReduceMax", "high")):
            _reduction(model, op_type, values[name], f"{name}/edgec_{what}", None)
    for name in means:
        rank = _rank(model, name)
        axes = [axis for axis in range(rank) if axis != 1]
        _reduction(model, "ReduceMean", values[name], f"{name}/edgec_mean", axes)


def _reduction(
    model: ir.Model, op_type: str, value: ir.Value, name: str, axes: list[int] | None
) -> None:
    attributes: dict[str, int | list[int]] = {"keepdims": 0}
    inputs: list[ir.Value | None] = [value]
    if axes is not None and opset(model) >= AXES_AS_INPUT:
        inputs.append(add_initialiser(model, f"{name}/axes", np.array(axes, np.int64)))
    elif axes is not None:
        attributes["axes"] = axes
    node = ir.node(op_type, inputs, attributes, name=name)
    node.outputs[0].name = name
    node.outputs[0].dtype = ir.DataType.FLOAT
    model.graph.append(node)
    model.graph.outputs.append(node.outputs[0])


def _add_outputs(model: ir.Model, names: Sequence[str]) -> None:
    values = ir.convenience.create_value_mapping(model.graph, include_subgraphs=False)
    for name in names:
        if not values[name].is_graph_output() and not values[name].is_graph_input():
            model.graph.outputs.append(values[name])


def _rank(model: ir.Model, name: str) -> int:
    """The rank of a value whose mean per channel is wanted: that of the weight that reads it."""
    value = ir.convenience.create_value_mapping(model.graph, include_subgraphs=False)[name]
    for use in value.uses():
        if use.node.op_type == "Conv" and use.idx == 0:
            shape = use.node.inputs[1].shape  # type: ignore[union-attr]
            return 0 if shape is None else len(shape)
        if use.node.op_type == "Gemm" and use.idx == 0:
            return 2
    return 0
