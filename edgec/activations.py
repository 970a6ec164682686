"""Activations that cost nothing behind an INT8 op: in its kernel, or in the clamp of its grid.

The range of a convolution belongs behind the activation that its kernel computes as well, also
where that is written out: a grid between them is a rounding more, and keeps backends from fusing
the two.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from edgec.graphs import constant
from edgec.types import Runtime

STANDARD = ("", "ai.onnx")
SWISH, MISH = "Swish", "Mish"


@dataclass(frozen=True)
class Activation:
    """An activation by the name of its operator, the nodes that write it, and its result."""

    op_type: str
    nodes: tuple[ir.Node, ...]
    output: ir.Value


def fused(value: ir.Value | None, runtime: Runtime) -> Activation | None:
    """The activation behind a value, if it alone reads that and the runtime fuses it."""
    found = None if value is None else _behind(value)
    rule = None if found is None else runtime.ops.get(found.op_type)
    return found if rule is not None and rule.fused else None


def computes(node: ir.Node, runtime: Runtime) -> ir.Node | None:
    """The convolution whose kernel computes a node, as part of a written-out activation."""
    for value in node.inputs if node.op_type in ("Sigmoid", "Mul") else ():
        conv = None if value is None else value.producer()
        if conv is not None and conv.op_type == "Conv":
            found = fused(value, runtime)
            if found is not None and node in found.nodes:
                return conv
    return None


def absorbable(node: ir.Node, runtime: Runtime) -> bool:
    """Whether the clamp of a grid can stand for this Relu or Clip, whose input has no other use.

    The grid's range is that of the node's own output and includes zero. Behind an op that follows
    its input's grid there is no such range.
    """
    value = node.inputs[0]
    if value is None or len(list(value.uses())) != 1 or value.is_graph_output():
        return False
    producer = value.producer()
    if producer is None or producer.op_type not in runtime.ops:
        return False
    if runtime.ops[producer.op_type].follows:
        return False
    if node.op_type == "Relu":
        return True
    low = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    high = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if (len(node.inputs) > 1 and node.inputs[1] is not None and low is None) or (
        len(node.inputs) > 2 and node.inputs[2] is not None and high is None
    ):
        return False
    if any(bound is not None and bound.size != 1 for bound in (low, high)):
        return False
    return (low is None or low.item() <= 0) and (high is None or high.item() >= 0)


def _behind(value: ir.Value) -> Activation | None:
    uses = list(dict.fromkeys(use.node for use in value.uses()))
    if value.is_graph_output() or any(node.domain not in STANDARD for node in uses):
        return None
    if len(uses) == 1:
        return Activation(uses[0].op_type, (uses[0],), uses[0].outputs[0])
    kinds = {node.op_type: node for node in uses}
    product = kinds.get("Mul")
    if product is None or len(uses) != 2:
        return None
    for first, rest, name in (("Sigmoid", (), SWISH), ("Softplus", ("Tanh",), MISH)):
        chain = _chain(kinds.get(first), rest)
        if chain and _only_reader(chain[-1].outputs[0]) is product:
            return Activation(name, (*chain, product), product.outputs[0])
    return None


def _chain(node: ir.Node | None, rest: tuple[str, ...]) -> tuple[ir.Node, ...]:
    """A node and those of these types that alone read it, one after the other; else nothing."""
    if node is None:
        return ()
    found = [node]
    for op_type in rest:
        after = _only_reader(found[-1].outputs[0])
        if after is None or after.op_type != op_type:
            return ()
        found.append(after)
    return tuple(found)


def _only_reader(value: ir.Value) -> ir.Node | None:
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None
