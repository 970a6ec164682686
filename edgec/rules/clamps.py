"""Min(Max(x, a), b) -> Clip(x, a, b), and two of Max, Min, Relu and Clip in a row -> one Clip.

Clip(x, a, b) = min(max(x, a), b), also where a > b. Of two clamps, the second is applied to both
bounds of the first: a clamp does not change an order. A bound that Clip is not given is the largest
finite number. An INT8 grid can stand for a Clip behind a convolution, so that the range falls after
the activation; it cannot for Max and Min.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from edgec.graphs import is_constant
from edgec.rules.steps import Steps, given
from edgec.rules.units import alone, made_by, single

NAME = "one-clamp"
CLAMPS = ("Relu", "Clip", "Max", "Min")


class Clamp(NamedTuple):
    """min(max(x, low), high)."""

    x: ir.Value
    low: float
    high: float

    def __call__(self, number: float) -> float:
        """A number, clamped."""
        return min(max(number, self.low), self.high)


def apply(model: ir.Model) -> int:
    """Replace such nodes; returns how many."""
    nodes = [node for node in model.graph if node.op_type in CLAMPS]
    return sum(_replace(model, node) for node in nodes)


def _replace(model: ir.Model, node: ir.Node) -> bool:
    outer = _clamp(node.outputs[0])
    inner = _clamp(outer.x) if outer is not None and alone(outer.x) else None
    if outer is None or inner is None:
        return False
    low, high = outer(min(inner.low, inner.high)), outer(inner.high)
    relu, before = (low, high) == (0, math.inf), outer.x.producer()
    if before is None or not (relu or (math.isfinite(low) and math.isfinite(high))):
        return False
    steps, most = Steps(model, node, NAME), _most(inner.x)
    bounds = [
        None if abs(bound) == most else steps.scalar(name, bound, inner.x.dtype)
        for name, bound in (("low", low), ("high", high))
    ]
    value = steps.add("Relu", [inner.x]) if relu else steps.add("Clip", [inner.x, *bounds])
    steps.put(node, [value])
    model.graph.remove(before, safe=True)
    return True


def _clamp(value: ir.Value) -> Clamp | None:
    """What a value of floats is clamped from, by numbers that are known."""
    node = made_by(value, *CLAMPS)
    operands = [] if node is None else [one for one in node.inputs if one is not None]
    if node is None or not operands or not _most(value):
        return None
    if node.op_type in ("Max", "Min"):
        return _extreme(node, operands, value)
    if node.op_type == "Relu":
        return Clamp(operands[0], 0.0, math.inf)
    most, bounds = _most(value), (given(node, 1), given(node, 2))
    low, high = (
        default if bound is None else single(bound)
        for bound, default in zip(bounds, (-most, most), strict=True)
    )
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return None
    return Clamp(operands[0], low, high)


def _most(value: ir.Value) -> float:
    """The largest finite number of a value's type, where that is one of floats; else 0."""
    if value.dtype not in (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE):
        return 0.0
    return float(np.finfo(value.dtype.numpy()).max)


def _extreme(node: ir.Node, operands: list[ir.Value], value: ir.Value) -> Clamp | None:
    """Of one computed value of the result's rank, and single numbers."""
    computed = [one for one in operands if not is_constant(one)]
    numbers = [single(one) for one in operands if is_constant(one)]
    known = [number for number in numbers if number is not None and math.isfinite(number)]
    if len(computed) != 1 or not known or len(known) != len(numbers):
        return None
    ranks = [None if one.shape is None else len(one.shape) for one in (computed[0], value)]
    if None in ranks or ranks[0] != ranks[1]:
        return None
    if node.op_type == "Max":
        return Clamp(computed[0], max(known), math.inf)
    return Clamp(computed[0], -math.inf, min(known))
