"""I(x)' * s + b -> BatchNormalization(I(x)', s, b, 0, 1) per channel; ' a Reshape, I of instances.

The scale and shift behind a group normalisation are one pass over the values instead of two
(onnxruntime 1.32, 256x56x56 on one thread: 0.74 ms beside 1.44; on two threads no difference). With
mean 0, variance 1 and epsilon 0 it computes x s + b. No convolution stands before it that could
take the factors.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.graphs import constant
from edgec.rules.steps import Steps

NAME = "one-pass-affine"


def apply(model: ir.Model) -> int:
    """Replace such pairs; returns how many."""
    return sum(_replace(model, node) for node in list(model.graph) if node.op_type == "Mul")


def _replace(model: ir.Model, scaled: ir.Node) -> bool:
    out = scaled.outputs[0]
    uses = list(out.uses())
    if len(uses) != 1 or out.is_graph_output() or uses[0].node.op_type != "Add":
        return False
    shifted = uses[0].node
    for x, factor in (scaled.inputs, reversed(scaled.inputs)):
        shape = None if x is None else x.shape
        if x is None or shape is None or x.dtype != ir.DataType.FLOAT or not _normalised(x):
            continue
        channels = shape[1] if len(shape) > 2 else None
        if not isinstance(channels, int):
            continue
        gamma = per_channel(factor, channels, len(shape))
        beta = per_channel(shifted.inputs[1 - uses[0].idx], channels, len(shape))
        if gamma is None or beta is None:
            continue
        steps = Steps(model, shifted, NAME)
        numbers = {"s": gamma, "b": beta, "mean": 0 * gamma, "var": np.ones_like(gamma)}
        inputs = [steps.constant(name, array) for name, array in numbers.items()]
        value = steps.add("BatchNormalization", [x, *inputs], {"epsilon": 0.0})
        steps.put(shifted, [value])
        model.graph.remove(scaled, safe=True)
        return True
    return False


def _normalised(value: ir.Value) -> bool:
    """Whether a value is a Reshape of what InstanceNormalization gives."""
    node = value.producer()
    if node is None or node.op_type != "Reshape" or node.inputs[0] is None:
        return False
    before = node.inputs[0].producer()
    return before is not None and before.op_type == "InstanceNormalization"


def per_channel(value: ir.Value | None, channels: int, rank: int) -> np.ndarray | None:
    """A constant as [channels], if it is one number for each."""
    array = constant(value)
    if array is None or array.dtype != np.float32 or array.ndim > rank:
        return None
    padded = (1,) * (rank - array.ndim) + array.shape
    return array.reshape(channels) if padded == (1, channels) + (1,) * (rank - 2) else None
