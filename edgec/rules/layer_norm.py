"""(x - m) / sqrt(mean((x - m)^2) + eps) * g + b -> LayerNormalization(x, g, b), m = mean(x).

Over the last axis, with g and b a constant per element of it. Exporters before opset 17 and tf2onnx
write it out in up to nine nodes: with Pow or Mul as the square, and Div or Reciprocal as the
quotient. Source: Ba et al. 2016, arXiv:1607.06450, equation 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgec.graphs import add_initialiser, attribute, constant

NAME = "fuse-layer-norm"


@dataclass(frozen=True)
class Unit:
    """What is normalised, and how: the numerator of the quotient is x - m."""

    x: ir.Value
    epsilon: float


def apply(model: ir.Model) -> int:
    """Replace such forms; returns how many. One of whose values others read stays."""
    return sum(_replace(model, node) for node in list(model.graph) if node.op_type == "Mul")


def _replace(model: ir.Model, scaled: ir.Node) -> bool:
    for unit, factor in (scaled.inputs, reversed(scaled.inputs)):
        found = _unit(unit)
        gamma = None if found is None else _per_element(factor, found.x)
        if found is None or gamma is None or not _alone(unit):
            continue
        last, beta = scaled, np.zeros_like(gamma)
        shifted = _shift(scaled, found.x)
        if shifted is not None:
            last, beta = shifted
        inputs = [
            found.x,
            add_initialiser(model, f"{scaled.name}/{NAME}/g", gamma),
            add_initialiser(model, f"{scaled.name}/{NAME}/b", beta),
        ]
        options = {"axis": -1, "epsilon": found.epsilon}
        node = ir.node("LayerNormalization", inputs, options, name=f"{scaled.name}/{NAME}")
        old, new = last.outputs[0], node.outputs[0]
        new.type, new.shape, name = old.type, old.shape, old.name
        last.prepend(node)
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        model.graph.remove(last, safe=True)
        new.name = name
        _sweep(model, [scaled, *_chain(unit)])
        return True
    return False


def _unit(value: ir.Value | None) -> Unit | None:
    """(x - m) / sqrt(v + eps), or the same by a reciprocal."""
    node = _made_by(value, "Div", "Mul")
    if node is None:
        return None
    pairs = [(node.inputs[0], node.inputs[1])]
    if node.op_type == "Mul":
        pairs.append((node.inputs[1], node.inputs[0]))
    for centred, divisor in pairs:
        if node.op_type == "Mul":
            inverse = _made_by(divisor, "Reciprocal")
            divisor = None if inverse is None else inverse.inputs[0]
        root = _made_by(divisor, "Sqrt")
        raised = None if root is None else _made_by(root.inputs[0], "Add")
        minus = _made_by(centred, "Sub")
        if raised is None or minus is None:
            continue
        for variance, small in (raised.inputs, reversed(raised.inputs)):
            epsilon, square = constant(small), _averaged(variance)
            if epsilon is None or epsilon.size != 1 or square is None:
                continue
            if _is_square(square, centred) and _averaged(minus.inputs[1]) is minus.inputs[0]:
                x = minus.inputs[0]
                if x is not None and x.dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
                    return Unit(x, float(epsilon.reshape(())))
    return None


def _averaged(value: ir.Value | None) -> ir.Value | None:
    """What a value is the mean of, over the last axis, which stays."""
    node = _made_by(value, "ReduceMean")
    source = None if node is None else node.inputs[0]
    if node is None or source is None or source.shape is None or not attribute(node, "keepdims", 1):
        return None
    listed = node.attributes.get("axes")
    given = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    axes = list(listed.as_ints()) if listed is not None else [] if given is None else given.tolist()
    return source if axes in ([-1], [len(source.shape) - 1]) else None


def _is_square(value: ir.Value, of: ir.Value | None) -> bool:
    node = _made_by(value, "Pow", "Mul")
    if node is None or node.inputs[0] is not of:
        return False
    if node.op_type == "Mul":
        return node.inputs[1] is of
    power = constant(node.inputs[1])
    return power is not None and power.size == 1 and float(power.reshape(())) == 2


def _shift(scaled: ir.Node, x: ir.Value) -> tuple[ir.Node, np.ndarray] | None:
    """The addition of a constant behind the scale, if there is one and nothing else reads that."""
    out = scaled.outputs[0]
    uses = list(out.uses())
    if len(uses) != 1 or out.is_graph_output() or uses[0].node.op_type != "Add":
        return None
    node = uses[0].node
    beta = _per_element(node.inputs[1 - uses[0].idx], x)
    return None if beta is None else (node, beta)


def _per_element(value: ir.Value | None, x: ir.Value) -> np.ndarray | None:
    """A constant as one number per element of the last axis of x."""
    array = constant(value)
    size = None if x.shape is None else x.shape[-1]
    if array is None or not isinstance(size, int) or array.dtype.kind != "f":
        return None
    if array.size == 1 and array.ndim <= len(x.shape or ()):
        return np.full(size, array.reshape(()), array.dtype)
    fits = array.size == size and array.shape[-1:] == (size,) and array.ndim <= len(x.shape or ())
    return array.reshape(size) if fits else None


def _alone(value: ir.Value | None) -> bool:
    return value is not None and len(list(value.uses())) == 1 and not value.is_graph_output()


def _made_by(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type in op_types else None


def _chain(value: ir.Value | None) -> list[ir.Node]:
    """The nodes behind a quotient, the last first."""
    found: list[ir.Node] = []
    stack = [value]
    kinds = {"Div", "Mul", "Reciprocal", "Sqrt", "Add", "ReduceMean", "Pow", "Sub"}
    while stack and len(found) < 16:
        node = _made_by(stack.pop(), *kinds)
        if node is not None and node not in found:
            found.append(node)
            stack += [] if node.op_type == "Sub" else list(node.inputs)
            stack += [node.inputs[1]] if node.op_type == "Sub" else []
    return found


def _sweep(model: ir.Model, nodes: list[ir.Node]) -> None:
    """Remove those of the nodes that nothing reads any more."""
    left = list(nodes)
    for _ in nodes:
        for node in list(left):
            out = node.outputs[0]
            if node.graph is not None and not out.uses() and not out.is_graph_output():
                model.graph.remove(node, safe=True)
                left.remove(node)
