"""RotaryEmbedding(x, p, c, s) -> (x1 c[p] - x2 s[p], x1 s[p] + x2 c[p]), x1 and x2 halves of x.

For backends without ONNX Runtime's fusion (com.microsoft), which ONNX has since opset 23 under the
same name. x: [batch, steps, heads * size] or [batch, heads, steps, size]; p: [batch, steps], or the
place of the first step. Interleaved, x1 and x2 are the even and the odd elements; what is behind
the rotated ones stays. Source: ONNX Runtime's ContribOperators.md; Su et al. 2021,
arXiv:2104.09864, equation 34.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.graphs import attribute
from edgec.rules.steps import Steps, given, number

NAME = "expand-rotary-embedding"
MICROSOFT = "com.microsoft"


def apply(model: ir.Model) -> int:
    """Replace such nodes; returns how many."""
    nodes = [node for node in model.graph if node.op_type == "RotaryEmbedding"]
    return sum(_replace(model, node) for node in nodes if node.domain == MICROSOFT)


def _replace(model: ir.Model, node: ir.Node) -> bool:
    x, places, cosines, sines = (given(node, index) for index in range(4))
    if x is None or places is None or cosines is None or sines is None:
        return False
    if x.shape is None or places.shape is None or cosines.shape is None:
        return False
    rank, half = len(x.shape), cosines.shape[-1]
    packed = attribute(node, "is_packed_batching", 0) or number(node, "scale", 1) != 1
    if packed or rank not in (3, 4) or len(places.shape) not in (1, 2) or not isinstance(half, int):
        return False
    heads, size = _heads(node, x, 2 * half)
    rest = size - 2 * half
    if heads < 1 or half < 1 or rest < 0:
        return False
    steps = Steps(model, node, NAME)
    value, kept = x, None
    if rank == 3:
        value = steps.add("Reshape", [value, steps.constant("heads", [0, 0, heads, size])])
    if len(places.shape) == 1:
        counted = _counted(steps, x, 2 if rank == 4 else 1)
        summed = steps.add("Add", [counted, places])
        places = steps.add("Unsqueeze", [summed, steps.constant("batch", [0])])
    head = steps.constant("head", [1 if rank == 4 else 2])
    cosine, sine = (
        steps.add("Unsqueeze", [steps.add("Gather", [table, places], {"axis": 0}), head])
        for table in (cosines, sines)
    )
    if rest:
        value, kept = steps.split(value, [2 * half, rest], -1)
    interleaved = bool(attribute(node, "interleaved", 0))
    value = _turned(steps, value, half, cosine, sine, interleaved)
    if kept is not None:
        value = steps.add("Concat", [value, kept], {"axis": -1})
    if rank == 3:
        value = steps.add("Reshape", [value, steps.constant("joined", [0, 0, heads * size])])
    steps.put(node, [value])
    return True


def _heads(node: ir.Node, x: ir.Value, rotated: int) -> tuple[int, int]:
    """How many heads x has, and of what size; 0 where that is not known."""
    last = x.shape[-1] if x.shape is not None else None
    if not isinstance(last, int) or x.shape is None:
        return 0, 0
    if len(x.shape) == 4:
        return 1, last
    heads = attribute(node, "num_heads", 0) or last // rotated
    return (heads, last // heads) if heads and last % heads == 0 else (0, 0)


def _counted(steps: Steps, x: ir.Value, axis: int) -> ir.Value:
    """0, 1, … as far as x has steps."""
    size = steps.add("Shape", [x], {"start": axis, "end": axis + 1})
    end = steps.add("Squeeze", [size, steps.constant("first", [0])])
    zero, one = (steps.constant(name, np.asarray(i)) for i, name in enumerate(("zero", "one")))
    return steps.add("Range", [zero, end, one])


def _turned(
    steps: Steps, x: ir.Value, half: int, cosine: ir.Value, sine: ir.Value, interleaved: bool
) -> ir.Value:
    """Each pair of x times its matrix of rotation."""
    if interleaved:
        x = steps.add("Reshape", [x, steps.constant("pairs", [0, 0, 0, half, 2])])
        last = steps.constant("last", [-1])
        cosine, sine = (steps.add("Unsqueeze", [one, last]) for one in (cosine, sine))
    first, second = steps.split(x, [1, 1] if interleaved else [half, half], -1)
    products = [
        steps.add("Mul", [part, factor]) for part in (first, second) for factor in (cosine, sine)
    ]
    real = steps.add("Sub", [products[0], products[3]])
    imaginary = steps.add("Add", [products[1], products[2]])
    value = steps.add("Concat", [real, imaginary], {"axis": -1})
    if interleaved:
        value = steps.add("Reshape", [value, steps.constant("whole", [0, 0, 0, 2 * half])])
    return value
