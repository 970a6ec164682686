"""Attention(x, W, b, m) -> softmax(q k' / sqrt d + m) v, with q, k, v = x W + b in one product.

ONNX Runtime's fusion (com.microsoft) is undone, so that its projections can be quantized, and other
backends understand it. m: lengths [batch] or 0 and 1 in [batch, keys]; what it masks gets
`mask_filter_value`. Attention with a past, or with other masks, stays as it is. Source: ONNX
Runtime's ContribOperators.md; Vaswani et al. 2017, arXiv:1706.03762, equation 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgec.graphs import attribute
from edgec.rules.steps import Steps, computes_in, given, number, read

NAME = "expand-packed-attention"
MICROSOFT = "com.microsoft"
MASKED = -10000.0
LOWEST = -3.4028234663852886e38  # what ONNX Runtime adds to what comes later, in float32


def apply(model: ir.Model) -> int:
    """Replace such nodes; returns how many."""
    nodes = [node for node in model.graph if node.op_type == "Attention"]
    return sum(_replace(model, node) for node in nodes if node.domain == MICROSOFT)


def _replace(model: ir.Model, node: ir.Node) -> bool:
    x, weight, bias = node.inputs[:3]
    mask, extra = given(node, 3), given(node, 5)
    heads = attribute(node, "num_heads", 0)
    if weight is None or weight.shape is None or x is None or heads < 1:
        return False
    columns = weight.shape[-1]
    unusual = given(node, 4) is not None or given(node, 6) is not None or read(node, 1)
    if unusual or not isinstance(columns, int) or attribute(node, "do_rotary", 0):
        return False
    if mask is not None and (mask.shape is None or len(mask.shape) not in (1, 2)):
        return False
    if mask is not None and len(mask.shape or ()) == 1 and mask.shape != (x.shape or ("?",))[:1]:
        return False  # lengths alone; begin and end of each row look alike otherwise
    listed = node.attributes.get("qkv_hidden_sizes")
    sizes = [columns // 3] * 3 if listed is None else list(listed.as_ints())
    steps = Steps(model, node, NAME)
    product = steps.add("MatMul", [x, weight])
    steps.nodes[-1].name = node.name
    if bias is not None:
        product = steps.add("Add", [product, bias])
    q, k, v = (
        by_head(steps, piece, heads, size // heads, turned)
        for piece, size, turned in zip(
            steps.split(product, sizes, -1), sizes, (False, True, False), strict=True
        )
    )
    scale = number(node, "scale", 0) or 1 / math.sqrt(sizes[0] // heads)
    steps.put(node, [attend(steps, node, (q, k, v), sizes[2], scale, x, mask, extra)])
    return True


def attend(
    steps: Steps,
    node: ir.Node,
    qkv: Sequence[ir.Value],
    size: int,
    scale: float,
    x: ir.Value,
    mask: ir.Value | None,
    extra: ir.Value | None,
) -> ir.Value:
    """[batch, steps, size] of q [batch, heads, steps, d], k, turned, and v; x: as many steps."""
    (q, k, v), dtype = qkv, computes_in(node)
    scores = steps.add("MatMul", [q, k])
    scores = steps.add("Mul", [scores, steps.scalar("scale", scale, dtype)])
    if attribute(node, "unidirectional", 0):
        scores = steps.add("Add", [scores, _later(steps, x, dtype)])
    if mask is not None:
        scores = steps.add("Add", [scores, _hidden(steps, mask, x, node, dtype)])
    if extra is not None:
        scores = steps.add("Add", [scores, extra])
    mixed = steps.add("MatMul", [steps.add("Softmax", [scores], {"axis": -1}), v])
    side = steps.add("Transpose", [mixed], {"perm": [0, 2, 1, 3]})
    return steps.add("Reshape", [side, steps.constant("joined", [0, 0, size])])


def by_head(steps: Steps, value: ir.Value, heads: int, size: int, turned: bool) -> ir.Value:
    """[batch, steps, heads * size] -> [batch, heads, steps, size], or its last two axes turned."""
    split = steps.add("Reshape", [value, steps.constant("heads", [0, 0, heads, size])])
    return steps.add("Transpose", [split], {"perm": [0, 2, 3, 1] if turned else [0, 2, 1, 3]})


def _length(steps: Steps, x: ir.Value) -> ir.Value:
    """How many steps x has, as a vector of one."""
    return steps.add("Shape", [x], {"start": 1, "end": 2})


def _later(steps: Steps, x: ir.Value, dtype: ir.DataType | None) -> ir.Value:
    """[steps, steps]: what a step must not see of the steps after it."""
    length = _length(steps, x)
    shape = steps.add("Concat", [length, length], {"axis": 0})
    lowest = steps.scalar("lowest", LOWEST if dtype != ir.DataType.FLOAT16 else -65504.0, dtype)
    full = steps.add("Expand", [lowest, shape])
    return steps.add("Trilu", [full, steps.constant("above", np.asarray(1))], {"upper": 1})


def _hidden(
    steps: Steps, mask: ir.Value, x: ir.Value, node: ir.Node, dtype: ir.DataType | None
) -> ir.Value:
    """[batch, 1, 1, keys]: the filter value for each key that the mask hides."""
    if len(mask.shape or ()) == 1:
        zero, one = (steps.constant(n, np.asarray(v)) for n, v in (("zero", 0), ("one", 1)))
        end = steps.add("Squeeze", [_length(steps, x), steps.constant("first", [0])])
        places = steps.add("Range", [zero, end, one])
        wide = steps.add("Cast", [mask], {"to": ir.DataType.INT64})
        column = steps.add("Unsqueeze", [wide, steps.constant("last", [1])])
        mask = steps.add("Less", [places, column])
    kept = steps.add("Cast", [mask], {"to": dtype or ir.DataType.FLOAT})
    gone = steps.add("Sub", [steps.scalar("shown", 1, dtype), kept])
    value = steps.scalar("filter", number(node, "mask_filter_value", MASKED), dtype)
    return steps.add("Unsqueeze", [steps.add("Mul", [gone, value]), steps.constant("axes", [1, 2])])
