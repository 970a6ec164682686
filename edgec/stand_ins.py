"""Types and shapes of what ONNX Runtime's own operators make, of which ONNX infers nothing.

While ONNX infers, each stands as one of ONNX's that makes something of the same type and shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import onnx_ir as ir

MICROSOFT = "com.microsoft"
LIKE_FIRST = "Relu"  # it makes what its first input is; further inputs are not looked at
SAME = (
    "Gelu",
    "BiasGelu",
    "FastGelu",
    "QuickGelu",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
    "RotaryEmbedding",
)


@contextmanager
def stand_ins(model: ir.Model) -> Iterator[None]:
    """Meanwhile such nodes are nodes of ONNX's."""
    stood = [(node, _other(node), node.domain, node.op_type) for node in model.graph.all_nodes()]
    stood = [one for one in stood if one[1]]
    for node, other, _, _ in stood:
        node.domain, node.op_type = "", other
        if other == "Einsum":
            node.attributes["equation"] = ir.AttrString("equation", _equation(node))
    try:
        yield
    finally:
        for node, other, domain, op_type in stood:
            node.domain, node.op_type = domain, op_type
            if other == "Einsum":
                del node.attributes["equation"]


def _other(node: ir.Node) -> str:
    if node.domain != MICROSOFT:
        return LIKE_FIRST if node.op_type == "SimplifiedLayerNormalization" else ""
    if node.op_type in SAME or (node.op_type == "Attention" and _keeps_its_size(node)):
        return LIKE_FIRST
    if node.op_type == "FusedMatMul":
        return "" if _flag(node, "transBatchA") or _flag(node, "transBatchB") else "Einsum"
    return {"FusedConv": "Conv", "FusedGemm": "Gemm"}.get(node.op_type, "")


def _keeps_its_size(node: ir.Node) -> bool:
    """Whether a weight makes queries, keys and values that are as wide as what they are made of."""
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    sizes = [] if weight is None or weight.shape is None else list(weight.shape)
    whole = len(sizes) == 2 and all(isinstance(size, int) for size in sizes)
    return whole and sizes[1] == 3 * sizes[0] and "qkv_hidden_sizes" not in node.attributes


def _equation(node: ir.Node) -> str:
    left = "...km" if _flag(node, "transA") else "...mk"
    right = "...nk" if _flag(node, "transB") else "...kn"
    return f"{left},{right}->...mn"


def _flag(node: ir.Node, name: str) -> int:
    found = node.attributes.get(name)
    return 0 if found is None else found.as_int()
