"""x / sqrt(mean(x^2) + eps) * g -> RMSNormalization(x, g), over the last axis, from opset 23 on.

Before that there is no such operator, and every way to write it (Mul as the square, Reciprocal, a
product with 1 / sqrt, Pow by -1/2) becomes the one that ONNX Runtime and OpenVINO fuse: Pow,
ReduceMean, Add, Sqrt, Div. onnxscript's rule knows Pow with Reciprocal alone. x may be float16
that is normalised in float32. Source: Zhang and Sennrich 2019, arXiv:1910.07467, equation 4.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.graphs import attribute, opset
from edgec.rules.steps import Steps
from edgec.rules.units import Root, alone, made_by, pairs, per_element, roots, sweep

NAME = "fuse-rms-norm"
FUSED_FROM = 23
WIDE = (ir.DataType.FLOAT, ir.DataType.DOUBLE)
NARROW = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def apply(model: ir.Model) -> int:
    """Replace such forms; returns how many."""
    step = _fuse if opset(model) >= FUSED_FROM else _rewrite
    nodes = [node for node in model.graph if node.op_type in ("Mul", "Div")]
    return sum(step(model, node) for node in nodes if node.graph is not None)


def _unit(value: ir.Value | None) -> Root | None:
    """The root of the mean of the squares of what stands above it."""
    for root in roots(value):
        x, rank = root.top, len(root.top.shape or ())
        if root.squared is x and x.dtype in WIDE and root.axes == (rank - 1,):
            return root
    return None


def _fuse(model: ir.Model, scaled: ir.Node) -> bool:
    if scaled.op_type != "Mul":
        return False
    for unit, factor in pairs(scaled):
        last = made_by(unit, "Cast")
        found = _unit(unit if last is None else last.inputs[0])
        gamma = None if found is None else per_element(factor, found.top)
        if found is None or gamma is None or not alone(unit):
            continue
        x, stash = found.top, found.top.dtype
        first = made_by(x, "Cast")
        if last is not None:
            narrow = None if first is None else first.inputs[0]
            if narrow is None or narrow.dtype not in NARROW or unit is None:
                continue
            if narrow.dtype != attribute(last, "to", 0) or stash != ir.DataType.FLOAT:
                continue
            x = narrow
        steps = Steps(model, scaled, NAME)
        options = {"axis": -1, "epsilon": found.epsilon, "stash_type": int(stash or 1)}
        value = steps.add("RMSNormalization", [x, steps.constant("g", gamma)], options)
        steps.put(scaled, [value])
        sweep(model, [unit.producer() if unit is not None else None])
        return True
    return False


def _rewrite(model: ir.Model, node: ir.Node) -> bool:
    found = _unit(node.outputs[0])
    if found is None or _is_plain(node):
        return False
    x, steps = found.top, Steps(model, node, NAME)
    assert x.dtype is not None
    square = steps.add("Pow", [x, steps.scalar("two", 2, x.dtype)])
    mean = steps.mean(square, -1)
    small = steps.constant("epsilon", np.asarray(found.epsilon, x.dtype.numpy()))
    root = steps.add("Sqrt", [steps.add("Add", [mean, small])])
    before = [value.producer() for value in node.inputs if value is not None]
    steps.put(node, [steps.add("Div", [x, root])])
    sweep(model, before)
    return True


def _is_plain(node: ir.Node) -> bool:
    """Whether a quotient is written as it would be here."""
    root = made_by(node.inputs[1], "Sqrt") if node.op_type == "Div" else None
    raised = None if root is None else made_by(root.inputs[0], "Add")
    mean = None if raised is None else made_by(raised.inputs[0], "ReduceMean")
    return mean is not None and made_by(mean.inputs[0], "Pow") is not None
