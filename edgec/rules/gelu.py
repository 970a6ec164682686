"""x * (c * y) -> (x * y) * c, with y = 1 + erf(x / sqrt 2) and c = 1/2: the form of GELU to fuse.

A factor of a power of two is exact, so the result is the same bit by bit. Exporters write GELU in
several orders; ONNX Runtime fuses this one. Source: Hendrycks and Gimpel 2016, "Gaussian Error
Linear Units", equation 1.
"""

from __future__ import annotations

import onnx_ir as ir

from edgec.graphs import constant

NAME = "reorder-gelu"
HALF = 0.5


def apply(model: ir.Model) -> int:
    """Reorder such products; returns how many."""
    return sum(_reorder(model, node) for node in list(model.graph) if node.op_type == "Mul")


def _reorder(model: ir.Model, node: ir.Node) -> bool:
    for x, scaled in (node.inputs, reversed(node.inputs)):
        inner = None if scaled is None else scaled.producer()
        if x is None or scaled is None or inner is None or inner.op_type != "Mul":
            continue
        for half, y in (inner.inputs, reversed(inner.inputs)):
            if half is None or y is None or not _is_half(half) or not _is_gate(y, x):
                continue
            if len(list(scaled.uses())) != 1 or scaled.is_graph_output():
                continue
            product = ir.node("Mul", [x, y], name=f"{node.name}/gate")
            out = product.outputs[0]
            out.name, out.type, out.shape = f"{node.outputs[0].name}/gate", x.type, x.shape
            node.prepend(product)
            node.replace_input_with(0, out)
            node.replace_input_with(1, half)
            model.graph.remove(inner, safe=True)
            return True
    return False


def _is_half(value: ir.Value) -> bool:
    array = constant(value)
    return array is not None and array.size == 1 and float(array.reshape(())) == HALF


def _is_gate(y: ir.Value, x: ir.Value) -> bool:
    """Whether y is 1 + erf(x / sqrt 2), by its operators."""
    add = y.producer()
    if add is None or add.op_type != "Add":
        return False
    erf = next((p for v in add.inputs if v and (p := v.producer()) and p.op_type == "Erf"), None)
    if erf is None or erf.inputs[0] is None:
        return False
    scale = erf.inputs[0].producer()
    return scale is not None and scale.op_type in ("Div", "Mul") and x in scale.inputs
