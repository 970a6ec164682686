"""The extremes of every observed value in every sample, reduced inside the graph.

low[s, v] = min over all elements of value v in sample s, high[s, v] the maximum. A sample costs its
inference; what is kept of it is three numbers for each value.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgec.graphs import save
from edgec.inputs import Input
from edgec.isolate import call
from edgec.placement import place
from edgec.reference import Reference
from edgec.samples import stream
from edgec.trial import Prepared
from edgec.types import Graph

# ONNX Runtime's extremes pass over a NaN between numbers; a mean does not.
OPS = ("ReduceMin", "ReduceMax", "ReduceMean")


@dataclass(frozen=True)
class Extremes:
    """`low` and `high` float64 [samples, values]; both NaN where a value is not finite."""

    values: tuple[str, ...]
    low: np.ndarray
    high: np.ndarray


def observed(prepared: Prepared) -> tuple[str, ...]:
    """The values whose ranges the first plan calibrates, over all its runtimes."""
    plan, found = prepared.plan, set[str]()
    for runtime in prepared.target.runtimes:
        if runtime.name in plan.runtimes.values():
            found |= place(prepared.graph.model, plan.decisions, runtime).values
    return tuple(sorted(found))


def extremes(
    graph: Graph,
    values: Sequence[str],
    files: Sequence[Path],
    inputs: Sequence[Input],
    threads: int,
) -> Extremes:
    """Run the float model on `files` in a process of its own. Raises EmitError where it breaks."""
    empty = np.empty((len(files), len(values)))
    if not values or not files:
        return Extremes(tuple(values), empty, empty.copy())
    model = graph.model.clone()
    names = _add_reductions(model, values)
    with tempfile.TemporaryDirectory(prefix="edgec-audit-") as folder:
        path = Path(folder) / "extremes.onnx"
        save(model, path)
        found = call(_run, path, list(files), list(inputs), names, threads)
    low, high, mean = np.split(found, len(OPS), axis=1)
    sound = np.isfinite(low) & np.isfinite(high) & np.isfinite(mean)
    return Extremes(tuple(values), np.where(sound, low, np.nan), np.where(sound, high, np.nan))


def _add_reductions(model: ir.Model, values: Sequence[str]) -> list[str]:
    """Append the reductions of all values, one op after the other, as outputs; their names."""
    known = ir.convenience.create_value_mapping(model.graph, include_subgraphs=False)
    names = []
    for op_type in OPS:
        for value in values:
            name = f"{value}/edgec_{op_type}"
            node = ir.node(op_type, [known[value]], {"keepdims": 0}, name=name)
            node.outputs[0].name = name
            node.outputs[0].dtype = known[value].dtype or ir.DataType.FLOAT
            model.graph.append(node)
            model.graph.outputs.append(node.outputs[0])
            names.append(name)
    return names


def _run(
    path: Path, files: Sequence[Path], inputs: Sequence[Input], names: Sequence[str], threads: int
) -> np.ndarray:
    reference = Reference(path, threads)
    found = np.empty((len(files), len(names)))
    for row, feeds in zip(found, stream(files, inputs), strict=True):
        made = reference.run(feeds, names)
        row[:] = [float(made[name]) for name in names]
    return found
