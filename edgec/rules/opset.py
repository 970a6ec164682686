"""Operators before opset 17 -> opset 17, the oldest with the forms that the other rules expect.

Weights stay where they are: the converter sees their types and shapes alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from edgec.convert import convert
from edgec.errors import UnsupportedError
from edgec.graphs import add_initialiser
from edgec.kernels.marks import aside

NAME = "lift-opset"
WHOLE = True
LIFTED = 17


def apply(model: ir.Model) -> int:
    """Lift an older model to opset 17; returns 1 if it was older."""
    before = model.opset_imports.get("", LIFTED)
    if before >= LIFTED:
        return 0
    shapes = {str(v.name): v.shape for v in (*model.graph.inputs, *model.graph.outputs)}
    with aside(model):
        convert(model, LIFTED)
    if model.opset_imports.get("", 1) != LIFTED:
        raise UnsupportedError(
            f"the model's opset {before} could not be lifted to {LIFTED}",
            hint=f"export it again with opset {LIFTED} or newer",
        )
    _keep_interface(model, shapes)
    return 1


def _keep_interface(model: ir.Model, shapes: Mapping[str, ir.Shape | None]) -> None:
    """Put back the batch of 1 that the converter takes from the model for Scan of opset 8."""
    graph = model.graph
    for index, value in enumerate(graph.inputs):
        if not _lost_batch(value, shapes):
            continue
        name, given = str(value.name), shapes[str(value.name)]
        outer = ir.Value(name=name, type=value.type, shape=given)
        zero = add_initialiser(model, f"{name}/batch", np.zeros(1, np.int64))
        squeeze = ir.node("Squeeze", [outer, zero], name=f"{name}/without_batch")
        inner = squeeze.outputs[0]
        inner.name, inner.type, inner.shape = f"{name}/without_batch", value.type, value.shape
        ir.convenience.replace_all_uses_with(value, inner)
        graph.inputs[index] = outer
        graph.insert_before(graph[0], [squeeze])
    for index, value in enumerate(graph.outputs):
        if not _lost_batch(value, shapes):
            continue
        name, given = str(value.name), shapes[str(value.name)]
        value.name = f"{name}/without_batch"
        zero = add_initialiser(model, f"{name}/batch", np.zeros(1, np.int64))
        unsqueeze = ir.node("Unsqueeze", [value, zero], name=f"{name}/with_batch")
        outer = unsqueeze.outputs[0]
        outer.name, outer.type, outer.shape = name, value.type, given
        graph.append(unsqueeze)
        graph.outputs[index] = outer


def _lost_batch(value: ir.Value, shapes: Mapping[str, ir.Shape | None]) -> bool:
    before, after = shapes.get(str(value.name)), value.shape
    return before is not None and after is not None and len(before) == len(after) + 1
