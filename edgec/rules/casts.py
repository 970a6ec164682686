"""Cast(Cast(x, wide), own) -> x, where `wide` holds every number of x's own type.

float64 and int64 that exporters put around an operator that is gone: what stands between the two
casts computes nothing. float32 is exact in float64, 32-bit integers are in int64 and in float64.
"""

from __future__ import annotations

import onnx_ir as ir

from edgec.graphs import attribute

NAME = "drop-cast-round-trips"
F = ir.DataType
WIDER = {
    F.FLOAT: {F.DOUBLE},
    F.FLOAT16: {F.FLOAT, F.DOUBLE},
    F.BFLOAT16: {F.FLOAT, F.DOUBLE},
    F.INT32: {F.INT64, F.DOUBLE},
    F.INT16: {F.INT32, F.INT64, F.FLOAT, F.DOUBLE},
    F.INT8: {F.INT16, F.INT32, F.INT64, F.FLOAT, F.DOUBLE, F.FLOAT16},
    F.UINT8: {F.INT16, F.INT32, F.INT64, F.FLOAT, F.DOUBLE, F.FLOAT16},
    F.BOOL: {F.INT8, F.UINT8, F.INT32, F.INT64, F.FLOAT16, F.FLOAT, F.DOUBLE},
}


def apply(model: ir.Model) -> int:
    """Remove such pairs; returns how many second casts went."""
    count = 0
    for node in list(model.graph):
        value = node.inputs[0] if node.op_type == "Cast" else None
        first = None if value is None else value.producer()
        if first is None or first.op_type != "Cast" or first.inputs[0] is None:
            continue
        x, wide, own = first.inputs[0], attribute(first, "to", 0), attribute(node, "to", 0)
        if x.dtype is None or x.dtype != own or ir.DataType(wide) not in WIDER.get(x.dtype, ()):
            continue
        out = node.outputs[0]
        if out.is_graph_output():
            node.replace_input_with(0, x)
            node.op_type = "Identity"
            node.attributes.clear()
        else:
            ir.convenience.replace_all_uses_with(out, x)
            model.graph.remove(node, safe=True)
        if not first.outputs[0].uses() and not first.outputs[0].is_graph_output():
            model.graph.remove(first, safe=True)
        count += 1
    return count
