"""1 / (1 + exp(-x)) -> Sigmoid(x); x / (1 + exp(-x)) -> x Sigmoid(x) -> Swish(x) from opset 24 on.

Below opset 24 the product is the form that backends fuse behind a convolution. Source: Ramachandran
et al. 2017, arXiv:1710.05941; ONNX operator Swish.
"""

from __future__ import annotations

import onnx_ir as ir

from edgec.graphs import opset
from edgec.rules.steps import Steps
from edgec.rules.units import alone, made_by, pairs, single, sweep

NAME = "fuse-swish"
FUSED_FROM = 24


def apply(model: ir.Model) -> int:
    """Replace such forms; returns how many."""
    count = 0
    for node in list(model.graph):
        if node.op_type in ("Div", "Reciprocal"):
            count += _sigmoid(model, node)
        if node.op_type == "Mul" and opset(model) >= FUSED_FROM:
            count += _fuse(model, node)
    return count


def _sigmoid(model: ir.Model, node: ir.Node) -> int:
    """A quotient whose divisor is 1 + exp(-x)."""
    top, below = node.inputs[0], node.inputs[-1]
    x = _exponent(below)
    if x is None or (node.op_type == "Div" and single(top) != 1 and top is not x):
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


def _fuse(model: ir.Model, node: ir.Node) -> int:
    for x, gate in pairs(node):
        sigmoid = made_by(gate, "Sigmoid")
        if sigmoid is None or x is None or sigmoid.inputs[0] is not x or not alone(gate):
            continue
        steps = Steps(model, node, NAME)
        steps.put(node, [steps.add("Swish", [x])])
        sweep(model, [sigmoid])
        return 1
    return 0
