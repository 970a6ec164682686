"""QuantizeLinear(W, s, z) -> its INT8 value, where W, s and z are constants.

Quantization-aware training exports weights as float behind Q/DQ; the model is kept as it is, at a
quarter of the size. Source: ONNX QuantizeLinear, saturate(round_half_even(x / s) + z).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.graphs import constant, initialiser

NAME = "fold-quantized-weights"


def apply(model: ir.Model) -> int:
    """Replace such nodes by initialisers; returns how many."""
    count = 0
    for node in list(model.graph):
        if node.op_type != "QuantizeLinear" or node.outputs[0].is_graph_output():
            continue
        weight, scale = constant(node.inputs[0]), constant(node.inputs[1])
        kind = node.outputs[0].dtype
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            zero = constant(node.inputs[2])
        elif kind in (ir.DataType.INT8, ir.DataType.UINT8):
            zero = np.zeros((), kind.numpy())
        else:
            continue
        if weight is None or scale is None or zero is None or zero.dtype.kind not in "iu":
            continue
        axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
        if scale.ndim > 1 or zero.dtype.itemsize > 2 or node.attributes.get("block_size"):
            continue
        spread = [-1 if i == axis % weight.ndim else 1 for i in range(weight.ndim)]
        if scale.ndim == 1 and scale.size > 1:
            scale, zero = scale.reshape(spread), zero.reshape(spread)
        limits = np.iinfo(zero.dtype)
        data = np.rint(weight / scale) + zero.astype(np.int64)
        array = np.clip(data, limits.min, limits.max).astype(zero.dtype)
        old = node.outputs[0]
        new = initialiser(str(old.name), ir.tensor(array))
        ir.convenience.replace_all_uses_with(old, new)
        model.graph.remove(node, safe=True)
        model.graph.register_initializer(new)
        count += 1
    return count
