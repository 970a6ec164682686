"""f(Cast(x, wide)) -> Cast(f(x), wide), and Cast(x op y, own) -> x op y in x's own type.

The first where f moves or selects numbers, which no type rounds; comparisons need no Cast at all.
The second for + - * / and sqrt of float32 that are computed in float64 and rounded once: the same
bit by bit, since 53 >= 2 * 24 + 2. Constants take part where the narrow type holds them. What the
TorchScript exporter computes in float64 and int64 beside float32 and int32 goes; a chain of such
operations stays, as it rounds less than float32 would. Source: Figueroa 1995, "When is double
rounding innocuous?", theorem for p >= 2q + 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgec.graphs import attribute, constant
from edgec.rules.steps import Steps
from edgec.rules.units import made_by, sweep

NAME = "narrow-exactly"
F = ir.DataType
PAIRS = {F.DOUBLE: (F.FLOAT,), F.INT64: (F.INT32,)}  # a wide type, and what it is narrowed to
MOVES = frozenset(
    {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Gather", "Expand", "Tile"}
)  # of their first input
SELECTS = frozenset({"Concat", "Max", "Min"})  # of all inputs
COMPARES = frozenset({"Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"})
ROUNDS = frozenset({"Add", "Sub", "Mul", "Div", "Sqrt"})


def apply(model: ir.Model) -> int:
    """Rewrite such nodes, in the graph's order; returns how many."""
    return sum(_narrow(model, node) for node in list(model.graph) if node.graph is not None)


def _narrow(model: ir.Model, node: ir.Node) -> int:
    if node.domain not in ("", "ai.onnx") or not node.inputs or len(node.outputs) != 1:
        return 0
    if node.op_type == "Cast":
        return _round_once(model, node)
    if node.op_type in MOVES:
        return _push(model, node, node.inputs[:1], node.inputs[1:])
    if node.op_type in SELECTS | COMPARES:
        return _push(model, node, node.inputs, ())
    return 0


def _push(
    model: ir.Model,
    node: ir.Node,
    data: Sequence[ir.Value | None],
    rest: Sequence[ir.Value | None],
) -> int:
    """Compute a node in the narrow type, and widen what it makes."""
    wide, own = _types(data)
    if wide is None or own is None:
        return 0
    steps = Steps(model, node, NAME)
    inputs = _narrowed(steps, data, own)
    if inputs is None:
        return 0
    value = steps.add(node.op_type, [*inputs, *rest])
    steps.nodes[-1].attributes.update(node.attributes)
    if node.op_type not in COMPARES:
        value.dtype, value.shape = own, node.outputs[0].shape
        value = steps.add("Cast", [value], {"to": wide})
    steps.put(node, [value])
    sweep(model, [value.producer() for value in data if value is not None])
    return 1


def _round_once(model: ir.Model, cast: ir.Node) -> int:
    """A Cast to float32 of one operation in float64."""
    inner = made_by(cast.inputs[0], *ROUNDS)
    if inner is None or attribute(cast, "to", 0) != F.FLOAT:
        return 0
    wide, own = _types(inner.inputs)
    if wide != F.DOUBLE or own is None:
        return 0
    steps = Steps(model, cast, NAME)
    inputs = _narrowed(steps, inner.inputs, own)
    if inputs is None:
        return 0
    steps.put(cast, [steps.add(inner.op_type, inputs)])
    sweep(model, [inner])
    return 1


def _types(data: Sequence[ir.Value | None]) -> tuple[ir.DataType | None, ir.DataType | None]:
    """The wide type of values, and the narrow one that some are cast from."""
    for value in data:
        source = _source(value)
        if source is not None and value is not None and value.dtype is not None:
            return value.dtype, source.dtype
    return None, None


def _source(value: ir.Value | None) -> ir.Value | None:
    """What is widened into a value."""
    cast = made_by(value, "Cast")
    x = None if cast is None else cast.inputs[0]
    if cast is None or x is None or x.dtype is None:
        return None
    wide = F(attribute(cast, "to", 0))
    return x if x.dtype in PAIRS.get(wide, ()) else None


def _narrowed(
    steps: Steps, data: Sequence[ir.Value | None], own: ir.DataType
) -> list[ir.Value] | None:
    """The values in the narrow type, or None where one of them does not fit into it."""
    found: list[ir.Value] = []
    for index, value in enumerate(data):
        source, array = _source(value), constant(value)
        if source is not None and source.dtype == own:
            found.append(source)
        elif array is not None and array.size <= 1 << 16:
            with np.errstate(over="ignore"):
                small = array.astype(own.numpy())
            if not np.array_equal(
                small.astype(array.dtype), array, equal_nan=array.dtype.kind == "f"
            ):
                return None
            found.append(steps.constant(f"c{index}", small))
        else:
            return None
    return found
