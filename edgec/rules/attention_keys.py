"""Reshape(Transpose(Reshape(x, [-1, c, d]), 0 2 1), [a, b, d, c]) -> Transpose(x, 0 1 3 2).

x is [a, b, c, d]. The dynamo exporter turns the keys of scaled dot product attention this way, with
shapes that are computed at run time, so that no backend sees the plain transpose.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from edgec.graphs import attribute, constant

NAME = "plain-key-transpose"
FAR = 2**31  # what exporters write for "to the end"

Dim = int | tuple[ir.Value, int]  # a number, or an axis of a value


def apply(model: ir.Model) -> int:
    """Replace such chains; returns how many."""
    return sum(_replace(model, node) for node in list(model.graph) if node.op_type == "Reshape")


def _replace(model: ir.Model, last: ir.Node) -> bool:
    turn = _producer(last.inputs[0], "Transpose")
    first = None if turn is None else _producer(turn.inputs[0], "Reshape")
    perm = None if turn is None else turn.attributes.get("perm")
    if first is None or perm is None or perm.as_ints() != (0, 2, 1):
        return False
    x = first.inputs[0]
    if x is None or x.shape is None or len(x.shape) != 4:
        return False
    axes: list[Dim] = [_known(x, axis) for axis in range(4)]
    inner, outer = dims(first.inputs[1]), dims(last.inputs[1])
    if inner is None or outer is None or len(inner) != 3 or inner[0] != -1:
        return False
    if list(inner[1:]) != axes[2:] or list(outer) != [axes[0], axes[1], axes[3], axes[2]]:
        return False
    node = ir.node("Transpose", [x], {"perm": [0, 1, 3, 2]}, name=f"{last.name}/transpose")
    new, old = node.outputs[0], last.outputs[0]
    new.type, new.shape, name = old.type, old.shape, old.name
    last.prepend(node)
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    model.graph.remove(last, safe=True)
    new.name = name
    return True


def dims(value: ir.Value | None) -> Sequence[Dim] | None:
    """What a vector of sizes is made of, as far as Shape, Slice and Concat tell; else None."""
    array = constant(value)
    if array is not None:
        return [int(number) for number in array.reshape(-1)]
    node = None if value is None else value.producer()
    if node is None:
        return None
    if node.op_type == "Shape":
        source = node.inputs[0]
        if source is None or source.shape is None:
            return None
        rank = len(source.shape)
        low, high = attribute(node, "start", 0), attribute(node, "end", rank)
        return [_known(source, axis) for axis in range(rank)][low:high]
    if node.op_type == "Concat":
        pieces = [dims(one) for one in node.inputs]
        if any(piece is None for piece in pieces):
            return None
        return [dim for piece in pieces if piece is not None for dim in piece]
    if node.op_type == "Slice" and len(node.inputs) in (3, 4):
        whole, begin, end = dims(node.inputs[0]), constant(node.inputs[1]), constant(node.inputs[2])
        if whole is None or begin is None or end is None or begin.size != 1:
            return None
        low, high = (max(-FAR, min(FAR, int(edge.reshape(-1)[0]))) for edge in (begin, end))
        return whole[low:high]
    return None


def _known(value: ir.Value, axis: int) -> Dim:
    size = value.shape[axis] if value.shape is not None else None
    return size if isinstance(size, int) else (value, axis)


def _producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    node = None if value is None else value.producer()
    if node is None or node.op_type != op_type or len(list(node.outputs[0].uses())) != 1:
        return None
    return None if node.outputs[0].is_graph_output() else node
