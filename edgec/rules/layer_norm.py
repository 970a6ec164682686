"""(x - m) / sqrt(mean((x - m)^2) + eps) * g + b -> LayerNormalization(x, g, b), m = mean(x).

Over the last axis, with g and b a constant per element of it, or without them. Exporters before
opset 17 and tf2onnx write it out in up to nine nodes: with Pow or Mul as the square, and Div or
Reciprocal as the quotient. Source: Ba et al. 2016, arXiv:1607.06450, equation 3.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.rules.steps import Steps
from edgec.rules.units import alone, averaged, made_by, pairs, per_element, roots, sweep

NAME = "fuse-layer-norm"


def apply(model: ir.Model) -> int:
    """Replace such forms; returns how many. One of whose values others read stays."""
    nodes = [node for node in model.graph if node.op_type in ("Mul", "Div")]
    found = sum(_replace(model, node) for node in nodes if node.op_type == "Mul")
    return found + sum(_plain(model, node) for node in nodes if node.graph is not None)


def _replace(model: ir.Model, scaled: ir.Node) -> bool:
    for unit, factor in pairs(scaled):
        found = _unit(unit)
        gamma = None if found is None else per_element(factor, found[0])
        if found is None or gamma is None or not alone(unit):
            continue
        x, epsilon = found
        last, beta = _shift(scaled, x) or (scaled, np.zeros_like(gamma))
        steps = Steps(model, scaled, NAME)
        inputs = [x, steps.constant("g", gamma), steps.constant("b", beta)]
        value = steps.add("LayerNormalization", inputs, {"axis": -1, "epsilon": epsilon})
        steps.nodes[0].name = f"{scaled.name}/{NAME}"
        steps.put(last, [value])
        sweep(model, [scaled, unit.producer() if unit is not None else None])
        return True
    return False


def _plain(model: ir.Model, node: ir.Node) -> bool:
    """Without a scale: adaptive ones have theirs from another value."""
    found = _unit(node.outputs[0])
    size = None if found is None or found[0].shape is None else found[0].shape[-1]
    if found is None or not isinstance(size, int):
        return False
    x, epsilon = found
    steps = Steps(model, node, NAME)
    assert x.dtype is not None
    ones = steps.filled("g", size, 1, x.dtype.numpy())
    value = steps.add("LayerNormalization", [x, ones], {"axis": -1, "epsilon": epsilon})
    before = [one.producer() for one in node.inputs if one is not None]
    steps.put(node, [value])
    sweep(model, before)
    return True


def _unit(value: ir.Value | None) -> tuple[ir.Value, float] | None:
    """What is normalised over its last axis, and epsilon."""
    for root in roots(value):
        minus = made_by(root.top, "Sub")
        x = None if minus is None else minus.inputs[0]
        if minus is None or x is None or root.squared is not root.top or x.shape is None:
            continue
        over, wide = (len(x.shape) - 1,), x.dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE)
        if wide and root.axes == over and averaged(minus.inputs[1]) == (x, over):
            return x, root.epsilon
    return None


def _shift(scaled: ir.Node, x: ir.Value) -> tuple[ir.Node, np.ndarray] | None:
    """The addition of a constant behind the scale, if there is one and nothing else reads that."""
    out = scaled.outputs[0]
    uses = list(out.uses())
    if not alone(out) or uses[0].node.op_type != "Add":
        return None
    node = uses[0].node
    beta = per_element(node.inputs[1 - uses[0].idx], x)
    return None if beta is None else (node, beta)
