"""SkipLayerNormalization(x, s, g, b, c) -> LayerNormalization(x + s + c, g, b).

SkipSimplifiedLayerNormalization(x, s, g, c) -> y / sqrt(mean(y^2) + eps) * g with y = x + s + c.
The sum is the fourth output. ONNX Runtime fuses both again. Source: its ContribOperators.md; Ba et
al. 2016, arXiv:1607.06450; Zhang and Sennrich 2019, arXiv:1910.07467, equation 4.
"""

from __future__ import annotations

import onnx_ir as ir

from edgec.rules.steps import Steps, given, number, read

NAME = "expand-skip-layer-norm"
MICROSOFT = "com.microsoft"
EPSILON = 1e-12
PLAIN, SIMPLE = "SkipLayerNormalization", "SkipSimplifiedLayerNormalization"


def apply(model: ir.Model) -> int:
    """Replace such nodes; returns how many. One whose mean or deviation is read stays."""
    nodes = [node for node in model.graph if node.domain == MICROSOFT]
    return sum(_replace(model, node) for node in nodes if node.op_type in (PLAIN, SIMPLE))


def _replace(model: ir.Model, node: ir.Node) -> bool:
    if read(node, 1) or read(node, 2):
        return False
    simple = node.op_type == SIMPLE
    x, skip, gamma = node.inputs[:3]
    beta, bias = (None, given(node, 3)) if simple else (given(node, 3), given(node, 4))
    epsilon, dtype = number(node, "epsilon", EPSILON), node.outputs[0].dtype
    steps = Steps(model, node, NAME)
    total = steps.add("Add", [x, skip])
    if bias is not None:
        total = steps.add("Add", [total, bias])
    if simple:
        two = steps.scalar("two", 2, dtype)
        power = steps.mean(steps.add("Pow", [total, two]), -1)
        inner = steps.add("Add", [power, steps.scalar("epsilon", epsilon, dtype)])
        unit = steps.add("Div", [total, steps.add("Sqrt", [inner])])
        value = steps.add("Mul", [unit, gamma])
    else:
        inputs = [total, gamma, *([beta] if beta is not None else [])]
        value = steps.add("LayerNormalization", inputs, {"axis": -1, "epsilon": epsilon})
    steps.put(node, [value, None, None, total if read(node, 3) else None])
    return True
