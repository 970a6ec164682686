"""EmbedLayerNormalization(i, s, ...) -> LayerNormalization(W[i] + P[0 .. n - 1] + S[s], g, b).

The second output counts the ones of the mask in each row, or is 0 without a mask. ONNX Runtime's
fusion (com.microsoft) is undone, so that the tables can be quantized and other backends understand
it. Source: ONNX Runtime's ContribOperators.md.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.graphs import attribute
from edgec.rules.steps import Steps, given, number, read

NAME = "expand-embed-layer-norm"
MICROSOFT = "com.microsoft"
EPSILON = 1e-12


def apply(model: ir.Model) -> int:
    """Replace such nodes; returns how many. One whose count of the mask is read by others stays."""
    nodes = [node for node in model.graph if node.op_type == "EmbedLayerNormalization"]
    return sum(_replace(model, node) for node in nodes if node.domain == MICROSOFT)


def _replace(model: ir.Model, node: ir.Node) -> bool:
    ids, segments, words, positions, kinds, gamma, beta = node.inputs[:7]
    if ids is None or (read(node, 1) and attribute(node, "mask_index_type", 1) == 0):
        return False
    mask, order = given(node, 7), given(node, 8)
    steps = Steps(model, node, NAME)
    value = steps.add("Gather", [words, ids], {"axis": 0})
    if order is None:
        zero, one = (steps.constant(n, np.asarray(v)) for n, v in (("zero", 0), ("one", 1)))
        length = steps.add("Shape", [ids], {"start": 1, "end": 2})
        end = steps.add("Squeeze", [length, steps.constant("first", [0])])
        order = steps.add("Range", [zero, end, one])
    total = steps.add("Add", [value, steps.add("Gather", [positions, order], {"axis": 0})])
    if segments is not None and kinds is not None:
        total = steps.add("Add", [total, steps.add("Gather", [kinds, segments], {"axis": 0})])
    options = {"axis": -1, "epsilon": number(node, "epsilon", EPSILON)}
    value = steps.add("LayerNormalization", [total, gamma, beta], options)
    count = _count(steps, ids, mask) if read(node, 1) else None
    steps.put(node, [value, count, total if read(node, 2) else None])
    return True


def _count(steps: Steps, ids: ir.Value, mask: ir.Value | None) -> ir.Value:
    """[batch], int32: how many ones a row of the mask has."""
    if mask is None:
        rows = steps.add("Shape", [ids], {"start": 0, "end": 1})
        return steps.add("Expand", [steps.constant("none", np.zeros(1, np.int32)), rows])
    axis = steps.constant("row", [1])
    return steps.add("ReduceSum", [mask, axis], {"keepdims": 0})
