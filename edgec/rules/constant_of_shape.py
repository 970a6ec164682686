"""ConstantOfShape(shape, c) -> full(shape, c): small constants, and weights of any size.

A weight must be a constant to be quantized; the array is a view of one element until it is written.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from edgec.graphs import WEIGHTED, constant, initialiser

NAME = "materialise-constants"
MOST_ELEMENTS = 2**29
FEW_ELEMENTS = 2**16


def apply(model: ir.Model) -> int:
    """Replace such nodes by initialisers; returns how many."""
    count = 0
    for node in list(model.graph):
        shape = constant(node.inputs[0]) if node.op_type == "ConstantOfShape" else None
        old = node.outputs[0]
        if shape is None or old.is_graph_output():
            continue
        most = MOST_ELEMENTS if _is_weight(old) else FEW_ELEMENTS
        if math.prod(shape.tolist()) > most:
            continue
        attribute = node.attributes.get("value")
        fill = np.zeros(1, np.float32) if attribute is None else attribute.as_tensor().numpy()
        tensor = ir.tensor(np.broadcast_to(fill.reshape(()), shape.tolist()))
        new = initialiser(str(old.name), tensor)
        ir.convenience.replace_all_uses_with(old, new)
        model.graph.remove(node, safe=True)
        model.graph.register_initializer(new)
        count += 1
    return count


def _is_weight(value: ir.Value) -> bool:
    return any(use.node.op_type in WEIGHTED and use.idx > 0 for use in value.uses())
