"""ConstantOfShape(shape, c) -> full(shape, c): small constants, and the matrices of weights.

A weight must be a constant to be quantized; the array is a view of one element until it is written.
From then on it is real memory, several times over, and a file of fifty bytes can ask for any
amount: so a weight becomes at most what the largest of ONNX's own networks without stored weights
has (light_vgg19: 411 MB in one), or a small multiple of what the model brings along.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from edgec.graphs import WEIGHTED, constant, initialiser, stored_bytes

NAME = "materialise-constants"
MOST_BYTES = 1 << 29  # of a weight
MULTIPLE = 4  # of the bytes of all initialisers, where that is more
FEW_BYTES = 1 << 18  # of any other constant


def apply(model: ir.Model) -> int:
    """Replace such nodes by initialisers; returns how many."""
    count = 0
    held = sum(
        stored_bytes(v.const_value) for v in model.graph.initializers.values() if v.const_value
    )
    for node in list(model.graph):
        shape = constant(node.inputs[0]) if node.op_type == "ConstantOfShape" else None
        old = node.outputs[0]
        if shape is None or old.is_graph_output():
            continue
        attribute = node.attributes.get("value")
        fill = np.zeros(1, np.float32) if attribute is None else attribute.as_tensor().numpy()
        large = shape.size > 1 and _is_weight(old)  # no product has a vector for its weight
        most = max(MOST_BYTES, MULTIPLE * held) if large else FEW_BYTES
        if math.prod(shape.tolist()) * fill.dtype.itemsize > most:
            continue
        tensor = ir.tensor(np.broadcast_to(fill.reshape(()), shape.tolist()))
        new = initialiser(str(old.name), tensor)
        ir.convenience.replace_all_uses_with(old, new)
        model.graph.remove(node, safe=True)
        model.graph.register_initializer(new)
        count += 1
    return count


def _is_weight(value: ir.Value) -> bool:
    return any(use.node.op_type in WEIGHTED and use.idx > 0 for use in value.uses())
