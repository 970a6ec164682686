"""What a normalisation divides by, in the forms that exporters write it in.

x / sqrt(m + e) with Div, with Reciprocal, as a product with 1 / sqrt or as Pow by -1/2; the square
as Pow or Mul, as the mean of squares or as a sum over their number. Shared by several rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgec.graphs import attribute, constant
from edgec.rules.steps import MOST_CHANNELS

Axes = tuple[int, ...]


@dataclass(frozen=True)
class Root:
    """`top` over the square root of `mean` + `epsilon`; `mean`: of squares, over `axes` of x."""

    top: ir.Value
    squared: ir.Value
    epsilon: float
    axes: Axes


def roots(value: ir.Value | None) -> Iterator[Root]:
    """The ways in which a value is something over a root of a mean of squares."""
    for top, below in _quotients(value):
        if value is None or not same_rank(value, top):
            continue
        raised = made_by(below, "Add")
        for mean, small in pairs(raised):
            epsilon, found = single(small), averaged(mean)
            square = None if found is None else _squared(found[0])
            if epsilon is not None and found is not None and square is not None:
                yield Root(top, square, epsilon, found[1])


def _quotients(value: ir.Value | None) -> Iterator[tuple[ir.Value, ir.Value]]:
    """Pairs of a and b with value = a / sqrt(b)."""
    node = made_by(value, "Div", "Mul")
    if node is None or node.inputs[0] is None or node.inputs[1] is None:
        return
    if node.op_type == "Div":
        root = made_by(node.inputs[1], "Sqrt")
        if root is not None and root.inputs[0] is not None:
            yield node.inputs[0], root.inputs[0]
        return
    for top, factor in pairs(node):
        below = _inverse_root(factor)
        if top is not None and below is not None:
            yield top, below


def _inverse_root(value: ir.Value | None) -> ir.Value | None:
    """What a value is one over the square root of."""
    node = made_by(value, "Reciprocal", "Div", "Pow")
    if node is None:
        return None
    if node.op_type == "Pow":
        return node.inputs[0] if single(node.inputs[1]) == -0.5 else None
    if node.op_type == "Div" and single(node.inputs[0]) != 1:
        return None
    root = made_by(node.inputs[-1], "Sqrt")
    return None if root is None else root.inputs[0]


def averaged(value: ir.Value | None) -> tuple[ir.Value, Axes] | None:
    """What a value is the mean of, and over which axes, which stay; None where it is no mean."""
    node = made_by(value, "ReduceMean")
    source = None if node is None else node.inputs[0]
    if node is None or source is None or source.shape is None or not attribute(node, "keepdims", 1):
        return None
    listed = node.attributes.get("axes")
    given = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    axes = list(listed.as_ints()) if listed is not None else [] if given is None else given.tolist()
    rank = len(source.shape)
    return (source, tuple(sorted(axis % rank for axis in axes))) if axes and rank else None


def _squared(value: ir.Value | None) -> ir.Value | None:
    node = made_by(value, "Pow", "Mul")
    if node is None:
        return None
    if node.op_type == "Mul":
        return node.inputs[0] if node.inputs[0] is node.inputs[1] else None
    return node.inputs[0] if single(node.inputs[1]) == 2 else None


def single(value: ir.Value | None) -> float | None:
    """The number of a constant that has one."""
    array = constant(value)
    return None if array is None or array.size != 1 else float(array.reshape(()))


def per_element(value: ir.Value | None, x: ir.Value) -> np.ndarray | None:
    """A constant as one number per element of the last axis of x."""
    array = constant(value)
    size = None if x.shape is None else x.shape[-1]
    if array is None or not isinstance(size, int) or array.dtype.kind != "f":
        return None
    if array.size == 1 and array.ndim <= len(x.shape or ()) and size <= MOST_CHANNELS:
        return np.full(size, array.reshape(()), array.dtype)
    fits = array.size == size and array.shape[-1:] == (size,) and array.ndim <= len(x.shape or ())
    return array.reshape(size) if fits else None


def same_rank(one: ir.Value, other: ir.Value) -> bool:
    """Whether no constant between two values adds dimensions, as far as their shapes are known."""
    return one.shape is None or other.shape is None or len(one.shape) == len(other.shape)


def pairs(node: ir.Node | None) -> Iterator[tuple[ir.Value | None, ir.Value | None]]:
    """The two inputs of a node, in both orders."""
    if node is not None:
        first, second = node.inputs
        yield first, second
        yield second, first


def alone(value: ir.Value | None) -> bool:
    """Whether one node reads a value, and nothing else does."""
    return value is not None and len(list(value.uses())) == 1 and not value.is_graph_output()


def made_by(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """The node behind a value, where it is one of ONNX's own of such a type."""
    node = None if value is None else value.producer()
    if node is None or node.domain not in ("", "ai.onnx"):
        return None
    return node if node.op_type in op_types else None


def sweep(model: ir.Model, roots: Sequence[ir.Node | None]) -> None:
    """Remove the nodes that nothing reads any more, and what only they read, from these back."""
    left = [node for node in roots if node is not None]
    while left:
        node = left.pop()
        read = any(value.uses() or value.is_graph_output() for value in node.outputs)
        if node.graph is None or read:
            continue
        before = [value.producer() for value in node.inputs if value is not None]
        model.graph.remove(node, safe=True)
        left += [one for one in before if one is not None]
