"""SkipLayerNormalization(x, s, g, b, c) -> LayerNormalization(x + s + c, g, b).

SkipSimplifiedLayerNormalization(x, s, g, c) -> y / sqrt(mean(y^2) + eps) * g with y = x + s + c;
SimplifiedLayerNormalization(x, g) of x itself. The sum is the fourth output. ONNX Runtime fuses all
of these again. Source: its ContribOperators.md; Ba et al. 2016, arXiv:1607.06450; Zhang and
Sennrich 2019, arXiv:1910.07467, equation 4.
"""

from __future__ import annotations

import onnx_ir as ir

from edgec.graphs import attribute
from edgec.rules.steps import Steps, computes_in, given, number, read

NAME = "expand-skip-layer-norm"
MICROSOFT = "com.microsoft"
EPSILON = 1e-12
PLAIN, SIMPLE = "SkipLayerNormalization", "SkipSimplifiedLayerNormalization"
ALONE, ALONE_EPSILON = "SimplifiedLayerNormalization", 1e-5  # in ONNX's domain, and unknown to it


def apply(model: ir.Model) -> int:
    """Replace such nodes; returns how many. One whose mean or deviation is read stays."""
    known = {(MICROSOFT, PLAIN): _summed, (MICROSOFT, SIMPLE): _summed, ("", ALONE): _alone}
    nodes = [(node, known.get((node.domain, node.op_type))) for node in model.graph]
    return sum(replaced(model, node) for node, replaced in nodes if replaced is not None)


def _alone(model: ir.Model, node: ir.Node) -> bool:
    x, gamma = node.inputs[:2]
    axis, rank = attribute(node, "axis", -1), -1 if x is None or x.shape is None else len(x.shape)
    if x is None or read(node, 1) or axis not in (-1, rank - 1):
        return False
    steps = Steps(model, node, NAME)
    epsilon = number(node, "epsilon", ALONE_EPSILON)
    steps.put(node, [_over_root(steps, x, gamma, epsilon, computes_in(node))])
    return True


def _summed(model: ir.Model, node: ir.Node) -> bool:
    if read(node, 1) or read(node, 2):
        return False
    simple = node.op_type == SIMPLE
    x, skip, gamma = node.inputs[:3]
    beta, bias = (None, given(node, 3)) if simple else (given(node, 3), given(node, 4))
    epsilon, dtype = number(node, "epsilon", EPSILON), computes_in(node)
    steps = Steps(model, node, NAME)
    total = steps.add("Add", [x, skip])
    if bias is not None:
        total = steps.add("Add", [total, bias])
    if simple:
        value = _over_root(steps, total, gamma, epsilon, dtype)
    else:
        inputs = [total, gamma, *([beta] if beta is not None else [])]
        value = steps.add("LayerNormalization", inputs, {"axis": -1, "epsilon": epsilon})
    steps.put(node, [value, None, None, total if read(node, 3) else None])
    return True


def _over_root(
    steps: Steps, x: ir.Value, gamma: ir.Value | None, epsilon: float, dtype: ir.DataType | None
) -> ir.Value:
    """x / sqrt(mean(x^2) + epsilon) * gamma."""
    power = steps.mean(steps.add("Pow", [x, steps.scalar("two", 2, dtype)]), -1)
    inner = steps.add("Add", [power, steps.scalar("epsilon", epsilon, dtype)])
    unit = steps.add("Div", [x, steps.add("Sqrt", [inner])])
    return steps.add("Mul", [unit, gamma])
