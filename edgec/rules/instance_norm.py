"""(x - m) / sqrt(mean((x - m)^2) + eps) -> InstanceNormalization(x, 1, 0), m = mean(x).

Over all axes behind the second. So exporters write out InstanceNormalization, and, between two
Reshapes, GroupNormalization; one node instead of eight, past which shapes are known and around
which INT8 stays. A tensor with one such axis that is no group's row is left to `fuse-layer-norm`.
Source: Ulyanov et al. 2016, arXiv:1607.08022, equation 3; ONNX operator InstanceNormalization.
"""

from __future__ import annotations

import onnx_ir as ir

from edgec.rules.steps import Steps
from edgec.rules.units import averaged, made_by, roots, sweep

NAME = "fuse-instance-norm"


def apply(model: ir.Model) -> int:
    """Replace such forms; returns how many."""
    nodes = [node for node in model.graph if node.op_type in ("Mul", "Div")]
    return sum(_replace(model, node) for node in nodes if node.graph is not None)


def _replace(model: ir.Model, node: ir.Node) -> bool:
    for root in roots(node.outputs[0]):
        minus = made_by(root.top, "Sub")
        x = None if minus is None else minus.inputs[0]
        if minus is None or x is None or root.squared is not root.top or x.shape is None:
            continue
        channels = x.shape[1] if len(x.shape) > 2 else None
        over = tuple(range(2, len(x.shape)))
        if root.axes != over or averaged(minus.inputs[1]) != (x, over):
            continue
        if not isinstance(channels, int) or x.dtype != ir.DataType.FLOAT:
            continue
        if len(x.shape) == 3 and not (made_by(x, "Reshape") and _leads_to_reshape(node)):
            continue
        steps = Steps(model, node, NAME)
        ones = steps.filled("ones", channels, 1, x.dtype.numpy())
        zeros = steps.filled("zeros", channels, 0, x.dtype.numpy())
        options = {"epsilon": root.epsilon}
        value = steps.add("InstanceNormalization", [x, ones, zeros], options)
        before = [one.producer() for one in node.inputs if one is not None]
        steps.put(node, [value])
        sweep(model, before)
        return True
    return False


def _leads_to_reshape(node: ir.Node) -> bool:
    return all(use.node.op_type == "Reshape" for use in node.outputs[0].uses())
