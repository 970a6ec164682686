"""MultiHeadAttention(q, k, v, b, m, a) -> softmax((q + b_q) (k + b_k)' / sqrt d + m + a) (v + b_v).

For backends without ONNX Runtime's fusion (com.microsoft), which itself is the fastest form where
it runs. m: 0 and 1 in [batch, keys]; a: added to the scores. With a past, with keys that come by
head, or with other masks, it stays as it is. Source: ONNX Runtime's ContribOperators.md; Vaswani et
al. 2017, arXiv:1706.03762, equation 1.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from edgec.graphs import attribute
from edgec.rules.packed_attention import attend, by_head
from edgec.rules.steps import Steps, given, number, read

NAME = "expand-multi-head-attention"
MICROSOFT = "com.microsoft"
LAST = 6  # of its inputs; what comes behind is a past


def apply(model: ir.Model) -> int:
    """Replace such nodes; returns how many."""
    nodes = [node for node in model.graph if node.op_type == "MultiHeadAttention"]
    return sum(_replace(model, node) for node in nodes if node.domain == MICROSOFT)


def _replace(model: ir.Model, node: ir.Node) -> bool:
    heads, sizes, qkv = attribute(node, "num_heads", 0), list[int](), list[ir.Value]()
    for index in range(3):
        value = given(node, index)
        shape = [] if value is None or value.shape is None else list(value.shape)
        size = shape[-1] if len(shape) == 3 else None
        if value is None or not isinstance(size, int) or heads < 1 or size % heads:
            return False
        sizes.append(size)
        qkv.append(value)
    bias, mask, extra = (given(node, index) for index in range(3, LAST))
    past = any(given(node, index) is not None for index in range(LAST, len(node.inputs)))
    if past or any(read(node, index) for index in range(1, len(node.outputs))):
        return False
    if mask is not None and (mask.shape is None or len(mask.shape) != 2):
        return False
    if attribute(node, "unidirectional", 0) and not _as_many(*qkv[:2]):
        return False
    steps = Steps(model, node, NAME)
    if bias is not None:
        each = steps.split(bias, sizes, 0)
        qkv = [steps.add("Add", pair) for pair in zip(qkv, each, strict=True)]
    split = [
        by_head(steps, value, heads, size // heads, turned)
        for value, size, turned in zip(qkv, sizes, (False, True, False), strict=True)
    ]
    scale = number(node, "scale", 0) or 1 / math.sqrt(sizes[0] // heads)
    steps.put(node, [attend(steps, node, split, sizes[2], scale, qkv[0], mask, extra)])
    return True


def _as_many(queries: ir.Value, keys: ir.Value) -> bool:
    """Whether there is a key for each query."""
    return (
        queries.shape is not None and keys.shape is not None and queries.shape[1] == keys.shape[1]
    )
