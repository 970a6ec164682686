"""Where(IsNaN(s), c, s) -> s, where s = Softmax(z) and no row of z can be minus infinity alone.

The dynamo exporter guards every attention against rows that a mask hides as a whole. What is added
to the scores here is bounded: its constants, the largest of each sum put together, stay within
float32, so that a row has finite numbers wherever the activations are finite.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from edgec.graphs import constant

NAME = "drop-nan-guards"
LARGEST = float(np.finfo(np.float32).max)
MOVES = frozenset({"Reshape", "Transpose", "Slice", "Unsqueeze", "Squeeze", "Expand", "Identity"})
MIXES = frozenset({"MatMul", "Gemm", "Conv", "LayerNormalization"})  # what makes activations
DEEPEST = 32


def apply(model: ir.Model) -> int:
    """Remove such guards; returns how many."""
    count = 0
    for node in list(model.graph):
        if node.op_type != "Where" or len(node.inputs) != 3:
            continue
        test, shares = node.inputs[0], node.inputs[2]
        asked = None if test is None else test.producer()
        softmax = None if shares is None else shares.producer()
        if asked is None or softmax is None or shares is None or asked.op_type != "IsNaN":
            continue
        if asked.inputs[0] is not shares or softmax.op_type != "Softmax":
            continue
        if _bound(softmax.inputs[0]) > LARGEST or node.outputs[0].is_graph_output():
            continue
        ir.convenience.replace_all_uses_with(node.outputs[0], shares)
        model.graph.remove(node, safe=True)
        if not asked.outputs[0].uses() and not asked.outputs[0].is_graph_output():
            model.graph.remove(asked, safe=True)
        count += 1
    return count


def _bound(value: ir.Value | None, depth: int = 0) -> float:
    """The largest that constants alone add to a value; infinite where that is not known."""
    array = constant(value)
    if array is not None:
        finite = array.size == 0 or bool(np.isfinite(array.astype(np.float64)).all())
        return float(np.abs(array.astype(np.float64)).max(initial=0)) if finite else math.inf
    node = None if value is None else value.producer()
    if node is None or depth > DEEPEST:  # an input may be a mask of its own making
        return math.inf
    if node.op_type in MIXES:
        return 0.0
    if node.op_type == "Cast":
        source = node.inputs[0]
        small = (
            source is not None and source.dtype is not None and not source.dtype.is_floating_point()
        )
        return 1.0 if small else _bound(source, depth + 1)
    below = [_bound(one, depth + 1) for one in node.inputs if one is not None]
    if node.op_type in MOVES:
        return below[0]
    if node.op_type == "Where":
        return max(below[1:])
    if node.op_type in ("Add", "Sub"):
        return math.fsum(below)
    if node.op_type == "Mul":
        return (
            math.prod(max(1.0, one) for one in below) if 0.0 not in below else _scaled(node, below)
        )
    if node.op_type == "Div":
        return _divided(node, below)
    return math.inf


def _scaled(node: ir.Node, below: list[float]) -> float:
    """A product with activations: these stay activations, whatever a finite factor does."""
    return 0.0 if all(math.isfinite(one) for one in below) else math.inf


def _divided(node: ir.Node, below: list[float]) -> float:
    """Division by a constant that is not zero."""
    array = constant(node.inputs[1])
    if array is None or not np.all(np.abs(array) > 0):
        return math.inf
    return below[0] / float(np.abs(array).min())
