"""Sum(a, b, c) -> Add(Add(a, b), c): residual additions have one form."""

from __future__ import annotations

import onnx_ir as ir

NAME = "sum-to-add"


def apply(model: ir.Model) -> int:
    """Replace every Sum of two or more inputs; returns how many."""
    sums = [node for node in model.graph if node.op_type == "Sum" and len(node.inputs) > 1]
    for node in sums:
        *first, last = (value for value in node.inputs if value is not None)
        total = first[0]
        for index, value in enumerate(first[1:]):
            partial = ir.node("Add", [total, value], name=f"{node.name}/add_{index}")
            partial.outputs[0].name = f"{node.outputs[0].name}/partial_{index}"
            partial.outputs[0].type = value.type
            node.prepend(partial)
            total = partial.outputs[0]
        final = ir.node("Add", [total, last], name=f"{node.name}/add")
        out, old = final.outputs[0], node.outputs[0]
        out.type, out.shape = old.type, old.shape
        node.append(final)
        name = old.name
        ir.convenience.replace_all_uses_with(old, out, replace_graph_outputs=True)
        model.graph.remove(node, safe=True)
        out.name = name
    return len(sums)
