"""1 / (1 + exp(-x)) -> Sigmoid(x), x / (1 + exp(-x)) -> x Sigmoid(x): Swish, or SiLU.

The product is what backends fuse, also behind a convolution; the operator Swish, from opset 24 on,
ONNX Runtime takes in models of opset 24 alone. Source: Ramachandran et al. 2017, arXiv:1710.05941.
"""

from __future__ import annotations

import onnx_ir as ir

from edgec.rules.steps import Steps
from edgec.rules.units import made_by, pairs, same_rank, single, sweep

NAME = "plain-swish"


def apply(model: ir.Model) -> int:
    """Replace such forms; returns how many."""
    nodes = [node for node in model.graph if node.op_type in ("Div", "Reciprocal")]
    return sum(_sigmoid(model, node) for node in nodes)


def _sigmoid(model: ir.Model, node: ir.Node) -> int:
    """A quotient whose divisor is 1 + exp(-x)."""
    top, below = node.inputs[0], node.inputs[-1]
    x = _exponent(below)
    if x is None or not same_rank(x, node.outputs[0]):
        return 0
    if node.op_type == "Div" and single(top) != 1 and top is not x:
        return 0
    steps = Steps(model, node, NAME)
    value = steps.add("Sigmoid", [x])
    if top is x and node.op_type == "Div":
        value.type, value.shape = x.type, x.shape
        value = steps.add("Mul", [x, value])
    steps.put(node, [value])
    sweep(model, [below.producer() if below is not None else None])
    return 1


def _exponent(value: ir.Value | None) -> ir.Value | None:
    """x of 1 + exp(-x)."""
    for one, power in pairs(made_by(value, "Add")):
        exp = made_by(power, "Exp")
        minus = None if exp is None else made_by(exp.inputs[0], "Neg", "Mul")
        if minus is None or single(one) != 1:
            continue
        if minus.op_type == "Neg":
            return minus.inputs[0]
        for x, factor in pairs(minus):
            if single(factor) == -1:
                return x
    return None
