"""Gather(DequantizeLinear(T, s, z), i) -> (Cast(Gather(T, i)) - z) * s, for a scale per column.

The rows that are looked up are scaled, not the whole table; all values stay the same to the bit.
And it is right on OpenVINO 2026.4.1, which scales the rows of such a table instead of its columns,
and reads or writes beyond its memory while it does.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.graphs import add_initialiser, attribute, constant, is_constant, replace

NAME = "scale-looked-up-rows"
SMALL = (ir.DataType.INT8, ir.DataType.UINT8)


def apply(model: ir.Model) -> int:
    """Replace such lookups; returns how many. A table with other readers stays for them."""
    count = 0
    for node in list(model.graph):
        if node.op_type != "Gather" or attribute(node, "axis", 0) != 0 or node.inputs[0] is None:
            continue
        scaled = node.inputs[0].producer()
        if scaled is None or not _by_column(scaled):
            continue
        table, scale = scaled.inputs[0], constant(scaled.inputs[1])
        zero = constant(scaled.inputs[2]) if len(scaled.inputs) > 2 else np.zeros(())
        if table is None or scale is None or zero is None:
            continue
        rows = ir.node("Gather", [table, node.inputs[1]], {"axis": 0}, name=f"{node.name}/rows")
        rows.outputs[0].type = table.type
        cast = ir.node("Cast", rows.outputs, {"to": ir.DataType.FLOAT}, name=f"{node.name}/cast")
        steps = [rows, cast]
        if zero.any():
            name = f"{node.name}/zeros"
            zeros = add_initialiser(model, name, zero.astype(np.float32))
            steps.append(ir.node("Sub", [cast.outputs[0], zeros], name=f"{node.name}/shifted"))
        scales = add_initialiser(model, f"{node.name}/scales", scale)
        last = [steps[-1].outputs[0], scales]
        steps.append(ir.node("Mul", last, name=f"{node.name}/scaled"))
        replace(model, node, steps, node.outputs[0])
        if not scaled.outputs[0].uses() and not scaled.outputs[0].is_graph_output():
            model.graph.remove(scaled, safe=True)
        count += 1
    return count


def _by_column(node: ir.Node) -> bool:
    """DequantizeLinear of a constant INT8 matrix to float32, with a scale per column."""
    if node.op_type != "DequantizeLinear" or node.attributes.get("block_size"):
        return False
    table, scale = node.inputs[:2]
    if table is None or scale is None or not is_constant(table) or table.dtype not in SMALL:
        return False
    if table.shape is None or len(table.shape) != 2 or attribute(node, "axis", 1) % 2 != 1:
        return False
    same = scale.shape is not None and list(scale.shape) == [table.shape[1]]
    return same and scale.dtype == ir.DataType.FLOAT and table.shape[1] != 1
