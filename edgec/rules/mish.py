"""x tanh(log(1 + exp(x))) -> x Tanh(Softplus(x)) -> Mish(x) from opset 18 on.

Source: Misra 2019, arXiv:1908.08681, equation 1; ONNX operator Mish.
"""

from __future__ import annotations

import onnx_ir as ir

from edgec.graphs import opset
from edgec.rules.steps import Steps
from edgec.rules.units import alone, made_by, pairs, same_rank, single, sweep

NAME = "fuse-mish"
FUSED_FROM = 18


def apply(model: ir.Model) -> int:
    """Replace such forms; returns how many."""
    nodes = [node for node in model.graph if node.op_type == "Mul"]
    return sum(_replace(model, node) for node in nodes)


def _replace(model: ir.Model, node: ir.Node) -> bool:
    fused = opset(model) >= FUSED_FROM
    for x, gate in pairs(node):
        tanh = made_by(gate, "Tanh")
        if tanh is None or x is None or not alone(gate) or not same_rank(x, node.outputs[0]):
            continue
        soft = made_by(tanh.inputs[0], "Softplus")
        if (soft is not None and not fused) or not _is_softplus(tanh.inputs[0], x):
            continue
        steps = Steps(model, node, NAME)
        if fused:
            value = steps.add("Mish", [x])
        else:
            value = steps.add("Mul", [x, steps.add("Tanh", [steps.add("Softplus", [x])])])
        steps.put(node, [value])
        sweep(model, [tanh])
        return True
    return False


def _is_softplus(value: ir.Value | None, x: ir.Value) -> bool:
    node = made_by(value, "Softplus", "Log")
    if node is None or node.op_type == "Softplus":
        return node is not None and node.inputs[0] is x
    return any(
        single(one) == 1 and exp is not None and exp.inputs[0] is x
        for one, power in pairs(made_by(node.inputs[0], "Add"))
        for exp in [made_by(power, "Exp")]
    )
