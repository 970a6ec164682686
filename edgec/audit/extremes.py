"""The extremes of every observed value in every sample, reduced inside the graph.

low[s, v] = min over all elements of value v in sample s, high[s, v] the maximum. A sample costs its
inference; what is kept of it is three numbers for each value.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgec.graphs import save
from edgec.inputs import Input
from edgec.isolate import call
from edgec.placement import place
from edgec.reference import Reference, RunError
from edgec.samples import stream
from edgec.trial import Prepared
from edgec.types import Graph

LOW, HIGH, ODD = "edgec_low", "edgec_high", "edgec_odd"


@dataclass(frozen=True)
class Extremes:
    """`low`, `high` float64 [samples, values], in the order of the graph and of the samples that
    the model runs on; both NaN where a value is not finite, inf and -inf where it is empty.

    `refused`: the files that the model does not run on.
    """

    values: tuple[str, ...]
    low: np.ndarray
    high: np.ndarray
    refused: Mapping[Path, RunError]

    @property
    def seen(self) -> np.ndarray:
        """bool [samples, values]: where a value gave numbers, all of them finite."""
        return np.asarray(np.isfinite(self.low) & np.isfinite(self.high))

    @property
    def bad(self) -> np.ndarray:
        """bool [samples, values]: where a value gave NaN or infinity."""
        return np.asarray(np.isnan(self.low))


def observed(prepared: Prepared) -> tuple[str, ...]:
    """The values whose ranges the first plan calibrates, over all its runtimes, as in the graph."""
    plan, found = prepared.plan, set[str]()
    for runtime in prepared.target.runtimes:
        if runtime.name in plan.runtimes.values():
            found |= place(prepared.graph.model, plan.decisions, runtime).values
    order = ir.convenience.create_value_mapping(prepared.graph.model.graph, include_subgraphs=False)
    return tuple(name for name in order if name in found)


def extremes(
    graph: Graph,
    values: Sequence[str],
    files: Sequence[Path],
    inputs: Sequence[Input],
    threads: int,
) -> Extremes:
    """Run the float model on `files` in a process of its own. Raises EmitError where it breaks."""
    if not files:
        empty = np.empty((0, len(values)))
        return Extremes(tuple(values), empty, empty, {})
    model = graph.model.clone()
    names = _add_reductions(model, values)
    with tempfile.TemporaryDirectory(prefix="edgec-audit-") as folder:
        path = Path(folder) / "extremes.onnx"
        save(model, path)
        found, refused = call(_run, path, list(files), list(inputs), names, threads)
    low, high, odd = found.reshape(len(found), 3, len(values)).swapaxes(0, 1)
    return Extremes(tuple(values), low + odd, high + odd, refused)


def _add_reductions(model: ir.Model, values: Sequence[str]) -> list[str]:
    """Append the reductions of all values, one after the other, as outputs; their names.

    ONNX Runtime's extremes pass over a NaN between numbers, and a mean of large ones overflows. The
    sum of x - x is 0, and NaN where x holds NaN or infinity.
    """
    known = ir.convenience.create_value_mapping(model.graph, include_subgraphs=False)

    def add(op_type: str, inputs: Sequence[ir.Value], name: str, **attributes: int) -> ir.Value:
        node = ir.node(op_type, inputs, attributes, name=name)
        made = node.outputs[0]
        made.name, made.dtype = name, inputs[0].dtype or ir.DataType.FLOAT
        model.graph.append(node)
        return made

    for op_type, what in (("ReduceMin", LOW), ("ReduceMax", HIGH), ("ReduceSum", ODD)):
        for name in values:
            value = known[name]
            if what == ODD:
                value = add("Sub", [value, value], f"{name}/{what}/of")
            model.graph.outputs.append(add(op_type, [value], f"{name}/{what}", keepdims=0))
    return [f"{name}/{what}" for what in (LOW, HIGH, ODD) for name in values]


def _run(
    path: Path, files: Sequence[Path], inputs: Sequence[Input], names: Sequence[str], threads: int
) -> tuple[np.ndarray, dict[Path, RunError]]:
    """The reductions [samples that the model runs on, names], and what it said of the others."""
    reference = Reference(path, threads)
    found, refused = [], {}
    for file, feeds in zip(files, stream(files, inputs), strict=True):
        try:
            made = reference.run_sample(feeds, names)
        except RunError as error:
            refused[file] = error
        else:
            found.append([float(made[name]) for name in names])
    return np.array(found).reshape(len(found), len(names)), refused
