"""Conv(x, W, b) * s -> Conv(x, W s, b s), Conv(x, W, b) + t -> Conv(x, W, b + t), per channel."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.graphs import add_initialiser, constant

NAME = "fold-affine"


def apply(model: ir.Model) -> int:
    """Fold multiplications and additions by constants into the Conv before; returns how many."""
    return sum(_fold(model, node) for node in list(model.graph) if node.op_type in ("Mul", "Add"))


def _fold(model: ir.Model, node: ir.Node) -> bool:
    for value, other in (node.inputs, reversed(node.inputs)):
        conv = None if value is None else value.producer()
        factor = constant(other)
        if value is None or conv is None or factor is None or conv.op_type != "Conv":
            continue
        weight = constant(conv.inputs[1])
        bias = constant(conv.inputs[2]) if len(conv.inputs) > 2 else None
        alone = len(list(value.uses())) == 1 and not value.is_graph_output()
        if weight is None or not alone or (bias is None and len(conv.inputs) > 2):
            continue
        channel = _per_channel(factor, weight.ndim, weight.shape[0])
        if channel is None:
            continue
        old = np.zeros(weight.shape[0], weight.dtype) if bias is None else bias
        if node.op_type == "Mul":
            scaled = weight * channel.reshape([-1] + [1] * (weight.ndim - 1))
            conv.replace_input_with(1, add_initialiser(model, f"{conv.name}/{NAME}/W", scaled))
            new = old * channel
        else:
            new = old + channel
        conv.resize_inputs(3)
        conv.replace_input_with(2, add_initialiser(model, f"{conv.name}/{NAME}/b", new))
        out, name = node.outputs[0], node.outputs[0].name
        ir.convenience.replace_all_uses_with(out, value, replace_graph_outputs=True)
        model.graph.remove(node, safe=True)
        value.name = name
        return True
    return False


def _per_channel(factor: np.ndarray, rank: int, channels: int) -> np.ndarray | None:
    """The factor as [channels], if it is one number per output channel or one for all."""
    if factor.size == 1 and factor.ndim <= rank:
        return np.broadcast_to(factor.reshape(1), (channels,))
    padded = (1,) * (rank - factor.ndim) + factor.shape
    if padded == (1, channels) + (1,) * (rank - 2):
        return factor.reshape(channels)
    return None
