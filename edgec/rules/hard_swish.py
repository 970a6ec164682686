"""x Clip(x + 3, 0, 6) / 6 -> HardSwish(x), Clip(x + 3, 0, 6) / 6 -> HardSigmoid(x).

The quotient may be a product with 1/6, at any place; onnxscript's rule knows the division alone.
One range behind the activation instead of four inside it. Source: Howard et al. 2019,
arXiv:1905.02244, section 5.2; ONNX operators HardSwish 14 and HardSigmoid.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from edgec.rules.steps import Steps
from edgec.rules.units import made_by, pairs, same_rank, single, sweep

NAME = "fuse-hard-swish"
ALPHA = 1 / 6
CLOSE = 1e-6  # relative: 1/6 as float32, and as some exporters round it


def apply(model: ir.Model) -> int:
    """Replace such forms; returns how many: the products first, then the gates that are left."""
    found = 0
    for match in (_swish, _gate):
        for node in list(model.graph):
            if node.op_type in ("Mul", "Div") and node.graph is not None:
                found += _replace(model, node, *match(node.outputs[0]))
    return found


def _replace(model: ir.Model, node: ir.Node, x: ir.Value | None, op_type: str) -> int:
    if x is None or not same_rank(x, node.outputs[0]):
        return 0
    steps = Steps(model, node, NAME)
    options = {"alpha": ALPHA, "beta": 0.5} if op_type == "HardSigmoid" else None
    before = [value.producer() for value in node.inputs if value is not None]
    steps.put(node, [steps.add(op_type, [x], options)])
    sweep(model, before)
    return 1


def _swish(value: ir.Value) -> tuple[ir.Value | None, str]:
    """x of its product with a gate, one of the factors over 6."""
    for x, gate in pairs(made_by(value, "Mul")):  # x * gate, x/6 * clamp
        if x is not None and _gate(gate)[0] is x:
            return x, "HardSwish"
        sixth = _sixth(x)
        if sixth is not None and _clamp(gate) is sixth:
            return sixth, "HardSwish"
    for x, clamp in pairs(made_by(_sixth(value), "Mul")):  # (x * clamp) / 6
        if x is not None and _clamp(clamp) is x:
            return x, "HardSwish"
    return None, ""


def _gate(value: ir.Value | None) -> tuple[ir.Value | None, str]:
    """x of Clip(x + 3, 0, 6) / 6, as HardSigmoid or written out."""
    node = made_by(value, "HardSigmoid")
    if node is not None:
        alpha, beta = node.attributes.get("alpha"), node.attributes.get("beta")
        exact = alpha is not None and math.isclose(alpha.as_float(), ALPHA, rel_tol=CLOSE)
        half = beta is None or beta.as_float() == 0.5
        return (node.inputs[0] if exact and half else None), "HardSigmoid"
    return _clamp(_sixth(value)), "HardSigmoid"


def _sixth(value: ir.Value | None) -> ir.Value | None:
    """What a value is a sixth of."""
    node = made_by(value, "Div", "Mul")
    if node is None:
        return None
    if node.op_type == "Div":
        return node.inputs[0] if single(node.inputs[1]) == 6 else None
    for x, factor in pairs(node):
        number = single(factor)
        if number is not None and math.isclose(number, ALPHA, rel_tol=CLOSE):
            return x
    return None


def _clamp(value: ir.Value | None) -> ir.Value | None:
    """x of Clip(x + 3, 0, 6), or of Min(Relu(x + 3), 6)."""
    for x, three in pairs(made_by(_clamped(value), "Add")):
        if single(three) == 3:
            return x
    return None


def _clamped(value: ir.Value | None) -> ir.Value | None:
    """What is clamped to 0 and 6."""
    node = made_by(value, "Clip")
    if node is not None and len(node.inputs) == 3:
        fits = single(node.inputs[1]) == 0 and single(node.inputs[2]) == 6
        return node.inputs[0] if fits else None
    least = made_by(value, "Min")
    for inner, six in pairs(least if least is not None and len(least.inputs) == 2 else None):
        relu = made_by(inner, "Relu")
        if relu is not None and single(six) == 6:
            return relu.inputs[0]
    return None
