"""FusedMatMul(A, B) -> MatMul(A', B') * alpha, where ' transposes; FusedGemm -> f(Gemm), f a Relu.

A constant B is transposed here and now, so that it stays a weight, and takes alpha with it. Other
activations of FusedGemm, and transposed batches, stay as they are. Source: ONNX Runtime's
ContribOperators.md.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.graphs import attribute, constant
from edgec.rules.steps import Steps, computes_in, number

NAME = "expand-fused-products"
MICROSOFT = "com.microsoft"
OWN = ("activation", "activation_alpha", "activation_beta", "activation_gamma")


def apply(model: ir.Model) -> int:
    """Replace such nodes; returns how many."""
    nodes = [node for node in model.graph if node.domain == MICROSOFT]
    return sum(
        _matmul(model, node) if node.op_type == "FusedMatMul" else _gemm(model, node)
        for node in nodes
        if node.op_type in ("FusedMatMul", "FusedGemm")
    )


def _matmul(model: ir.Model, node: ir.Node) -> bool:
    a, b = node.inputs[:2]
    alpha = number(node, "alpha", 1)
    if a is None or b is None or a.shape is None or b.shape is None:
        return False
    if attribute(node, "transBatchA", 0) or attribute(node, "transBatchB", 0):
        return False
    left, right = len(a.shape), len(b.shape)
    steps = Steps(model, node, NAME)
    if attribute(node, "transA", 0) and left > 1:
        a = steps.add("Transpose", [a], {"perm": _swapped(left)})
    weight, turned = constant(b), attribute(node, "transB", 0) and right > 1
    if weight is not None and weight.dtype.kind == "f" and (turned or alpha != 1):
        array = weight.swapaxes(-1, -2) if turned else weight
        b = steps.constant("B", np.ascontiguousarray(array * array.dtype.type(alpha)))
        alpha = 1
    elif turned:
        b = steps.add("Transpose", [b], {"perm": _swapped(right)})
    value = steps.add("MatMul", [a, b])
    steps.nodes[-1].name = node.name
    if alpha != 1:
        value = steps.add("Mul", [value, steps.scalar("alpha", alpha, computes_in(node))])
    steps.put(node, [value])
    return True


def _gemm(model: ir.Model, node: ir.Node) -> bool:
    found = node.attributes.get("activation")
    if found is not None and found.as_string() != "Relu":
        return False
    steps = Steps(model, node, NAME)
    value = steps.add("Gemm", node.inputs)
    gemm = steps.nodes[-1]
    gemm.name = node.name
    for attr in node.attributes.values():
        if attr.name not in OWN:
            gemm.attributes.add(attr)
    steps.put(node, [value if found is None else steps.add("Relu", [value])])
    return True


def _swapped(rank: int) -> list[int]:
    return [*range(rank - 2), rank - 1, rank - 2]
