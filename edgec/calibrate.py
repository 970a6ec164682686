"""Stage 6: observe the canonical values that some grid needs, streaming, in constant memory.

Extremes and means, of a whole value or per channel, are reduced inside the graph, so that a sample
costs little more than its inference and memory does not depend on their number. Methods that work
on histograms need a second pass, which counts.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgec.errors import InputError
from edgec.graphs import add_initialiser, opset, save
from edgec.histogram import EMPTY, count, merge
from edgec.isolate import call
from edgec.reference import Reference
from edgec.samples import Input, Samples, stream
from edgec.types import Graph, Histogram, Placement, Statistics, ValueStatistics

AXES_AS_INPUT = 18  # the opset from which the axes of a reduction are an input


class What(StrEnum):
    """What is reduced inside the graph, per value: numbers, or vectors per channel."""

    LOW = "low"
    HIGH = "high"
    MEAN_LOW = "mean_low"
    MEAN_HIGH = "mean_high"
    MEAN = "mean"
    CHANNEL_LOW = "channel_low"
    CHANNEL_HIGH = "channel_high"


MEANS = {What.LOW: What.MEAN_LOW, What.HIGH: What.MEAN_HIGH}
Seen = dict[tuple[str, What], np.ndarray]


def calibrate(
    graph: Graph,
    placement: Placement,
    histograms: frozenset[str],
    samples: Samples,
    inputs: Sequence[Input],
    threads: int,
) -> Statistics:
    """Statistics of the values that `placement` needs; `histograms` is a subset of its values.

    Raises InputError where the model turns a sample into NaN or infinity.
    """
    model = graph.model.clone()
    wanted = _add_reductions(model, placement)
    if not samples.calibration or not wanted:
        return Statistics({}, 0, samples.fingerprint)
    with tempfile.TemporaryDirectory(prefix="edgec-calibrate-") as folder:
        path = Path(folder) / "reduced.onnx"
        save(model, path)
        files, needs = list(samples.calibration), list(inputs)
        seen: Seen = call(_reduce, path, files, needs, wanted, threads)
        counts: Mapping[str, Histogram] = {}
        if histograms:
            whole = graph.model.clone()
            _add_outputs(whole, sorted(histograms))
            save(whole, path)
            counts = call(_count, path, files, needs, sorted(histograms), threads)
    values = {
        name: ValueStatistics(
            low=float(seen.get((name, What.LOW), np.inf)),
            high=float(seen.get((name, What.HIGH), -np.inf)),
            samples=len(files),
            mean_low=float(seen.get((name, What.MEAN_LOW), np.nan)),
            mean_high=float(seen.get((name, What.MEAN_HIGH), np.nan)),
            channel_mean=seen.get((name, What.MEAN)),
            channel_low=seen.get((name, What.CHANNEL_LOW)),
            channel_high=seen.get((name, What.CHANNEL_HIGH)),
            histogram=counts.get(name),
        )
        for name in sorted({name for name, _ in wanted})
    }
    return Statistics(values, len(files), samples.fingerprint)


def _reduce(
    path: Path,
    files: Sequence[Path],
    inputs: Sequence[Input],
    wanted: Sequence[tuple[str, What]],
    threads: int,
) -> Seen:
    """One pass: the extremes over all samples, and the mean of the samples' means."""
    reference = Reference(path, threads)
    combine = {
        What.LOW: np.minimum,
        What.HIGH: np.maximum,
        What.CHANNEL_LOW: np.minimum,
        What.CHANNEL_HIGH: np.maximum,
        What.MEAN: np.add,
    }
    seen: Seen = {}
    for file, feeds in zip(files, stream(files, inputs), strict=True):
        found = reference.run(feeds, [_name(*key) for key in wanted])
        for name, what in wanted:
            array = found[_name(name, what)].astype(np.float64)
            if not np.isfinite(array).all():
                raise InputError(
                    f"{file}: the model turns it into NaN or infinity at value {name!r}",
                    hint="leave the sample out, or keep that node's part in float",
                )
            if what in MEANS:
                key, share = (name, MEANS[what]), array / len(files)
                seen[key] = seen[key] + share if key in seen else share
            if what is What.MEAN:
                array = array / len(files)
            seen[name, what] = (
                combine[what](seen[name, what], array) if (name, what) in seen else array
            )
    return seen


def _count(
    path: Path,
    files: Sequence[Path],
    inputs: Sequence[Input],
    names: Sequence[str],
    threads: int,
) -> dict[str, Histogram]:
    """A second pass: histograms."""
    reference = Reference(path, threads)
    counts = dict.fromkeys(names, EMPTY)
    for feeds in stream(files, inputs):
        for name, array in reference.run(feeds, list(names)).items():
            counts[name] = merge(counts[name], count(array))
    return counts


def _add_reductions(model: ir.Model, placement: Placement) -> list[tuple[str, What]]:
    """Append the reductions as outputs of the graph; which ones there are."""
    values = ir.convenience.create_value_mapping(model.graph, include_subgraphs=False)
    wanted: list[tuple[str, What]] = []
    for name in sorted(placement.values):
        _reduction(model, "ReduceMin", values[name], _name(name, What.LOW), None)
        _reduction(model, "ReduceMax", values[name], _name(name, What.HIGH), None)
        wanted += [(name, What.LOW), (name, What.HIGH)]
    for name in sorted(placement.means):
        if rank := _rank(values[name]):
            axes = [axis for axis in range(rank) if axis != 1]
            _reduction(model, "ReduceMean", values[name], _name(name, What.MEAN), axes)
            wanted.append((name, What.MEAN))
    for name in sorted(placement.extents):
        if rank := _rank(values[name]):
            axes = list(range(rank - 1))
            for op_type, what in (
                ("ReduceMin", What.CHANNEL_LOW),
                ("ReduceMax", What.CHANNEL_HIGH),
            ):
                _reduction(model, op_type, values[name], _name(name, what), axes)
                wanted.append((name, what))
    return wanted


def _name(value: str, what: What) -> str:
    return f"{value}/edgec_{what}"


def _reduction(
    model: ir.Model, op_type: str, value: ir.Value, name: str, axes: list[int] | None
) -> None:
    attributes: dict[str, int | list[int]] = {"keepdims": 0}
    inputs: list[ir.Value | None] = [value]
    if axes is not None and opset(model) >= AXES_AS_INPUT:
        inputs.append(add_initialiser(model, f"{name}/axes", np.array(axes, np.int64)))
    elif axes:
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


def _rank(value: ir.Value) -> int:
    """The rank of a value, if need be from the weight that reads it; 0 where it is not known."""
    if value.shape is not None:
        return len(value.shape)
    for use in value.uses():
        if use.idx == 0 and use.node.op_type == "Conv":
            shape = use.node.inputs[1].shape  # type: ignore[union-attr]
            return 0 if shape is None else len(shape)
        if use.idx == 0 and use.node.op_type == "Gemm":
            return 2
    return 0
