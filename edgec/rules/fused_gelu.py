"""BiasGelu(x, b) -> g(x + b), FastGelu(x, b) -> t(x + b), QuickGelu(x) -> x sigmoid(a x).

g(x) = x (1 + erf(x / sqrt 2)) / 2 and t(x) = x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2.
ONNX Runtime's own fusions (com.microsoft, Gelu among them) are undone, since other backends do not
know them; it fuses g and QuickGelu again. Source: ONNX Runtime's ContribOperators.md; Hendrycks and
Gimpel 2016, equations 1 and 2.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from edgec.rules.steps import Steps, computes_in, given, number

NAME = "expand-fused-gelu"
MICROSOFT = "com.microsoft"
CUBIC, ALPHA = 0.044715, 1.702


def apply(model: ir.Model) -> int:
    """Replace such nodes; returns how many."""
    nodes = [node for node in model.graph if node.domain == MICROSOFT and node.op_type in FORMS]
    for node in nodes:
        steps = Steps(model, node, NAME)
        x, bias = node.inputs[0], given(node, 1)
        assert x is not None
        if bias is not None:
            x = steps.add("Add", [x, bias])
        steps.put(node, [FORMS[node.op_type](steps, x, node)])
    return len(nodes)


def _erf(steps: Steps, x: ir.Value, node: ir.Node) -> ir.Value:
    dtype = computes_in(node)
    unit = steps.add("Div", [x, steps.scalar("root_2", math.sqrt(2), dtype)])
    return _half(steps, x, steps.add("Erf", [unit]), dtype)


def _tanh(steps: Steps, x: ir.Value, node: ir.Node) -> ir.Value:
    dtype = computes_in(node)
    square = steps.add("Mul", [x, x])
    bent = steps.add("Mul", [square, steps.scalar("cubic", CUBIC, dtype)])
    inner = steps.add("Mul", [x, steps.add("Add", [bent, steps.scalar("one", 1, dtype)])])
    unit = steps.add("Mul", [inner, steps.scalar("scale", math.sqrt(2 / math.pi), dtype)])
    return _half(steps, x, steps.add("Tanh", [unit]), dtype)


def _half(steps: Steps, x: ir.Value, gate: ir.Value, dtype: ir.DataType | None) -> ir.Value:
    """x (1 + gate) / 2, in the order that `reorder-gelu` ends with."""
    raised = steps.add("Add", [gate, steps.scalar("one", 1, dtype)])
    return steps.add("Mul", [steps.add("Mul", [x, raised]), steps.scalar("half", 0.5, dtype)])


def _sigmoid(steps: Steps, x: ir.Value, node: ir.Node) -> ir.Value:
    alpha = number(node, "alpha", ALPHA)
    inner = steps.add("Mul", [x, steps.scalar("alpha", alpha, computes_in(node))])
    return steps.add("Mul", [x, steps.add("Sigmoid", [inner])])


FORMS = {"Gelu": _erf, "BiasGelu": _erf, "FastGelu": _tanh, "QuickGelu": _sigmoid}
