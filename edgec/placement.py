"""Stage 5: where Q/DQ go. Computed from the decisions, shared by calibration and quantization.

Three rules, each measured on trained networks:
- a range belongs after the fused activation, never between a Conv and its Clip;
- a value that an INT8 op produced reaches every consumer through the same Q/DQ pair;
- an op that can give float from INT8 inputs (MatMul) does so, unless INT8 ops read its output or
  the grid stands for its activation.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from edgec.graphs import RECURRENT, WEIGHTED, is_constant, weight
from edgec.types import Decision, Placement, Scheme, Target

CORRECTED = frozenset({"Conv", "Gemm"})  # ops whose bias can take a correction


def place(model: ir.Model, decisions: Mapping[str, Decision], target: Target) -> Placement:
    """The placement for all nodes of `model` that have a decision."""
    static = {n for n in model.graph if _scheme(n, decisions) is Scheme.INT8_STATIC}
    absorbed = {n for n in static if n.op_type in ("Relu", "Clip")}
    follows: dict[str, str] = {}
    values: set[str] = set()
    for node in model.graph:
        if node not in static or node in absorbed:
            continue
        rule = target.ops[node.op_type]
        output = _after_activation(node.outputs[0], absorbed)
        if rule.follows:
            follows[str(output.name)] = str(node.inputs[0].name)  # type: ignore[union-attr]
            continue
        values.update(str(value.name) for value in activations(node))
        read_by_int8 = any(use.node in static for use in output.uses())
        clamped = output is not node.outputs[0]
        if not rule.float_output or read_by_int8 or clamped:
            values.add(str(output.name))
    return Placement(
        values=frozenset(values - set(follows)),
        follows=follows,
        absorbed=frozenset(str(node.name) for node in absorbed),
        means=frozenset(
            str(node.inputs[0].name)  # type: ignore[union-attr]
            for node in model.graph
            if node.op_type in CORRECTED
            and weight(node) is not None
            and _scheme(node, decisions) in (Scheme.INT8_STATIC, Scheme.INT8_WEIGHT_ONLY)
        ),
        peaks=frozenset(
            str(node.inputs[0].name)  # type: ignore[union-attr]
            for node in model.graph
            if _scheme(node, decisions) is Scheme.INT8_DYNAMIC
        ),
    )


def activations(node: ir.Node) -> list[ir.Value]:
    """The computed inputs of a node that INT8 would quantize."""
    inputs = node.inputs[:1] if node.op_type in WEIGHTED - RECURRENT else node.inputs
    return [value for value in inputs if value is not None and not is_constant(value)]


def _after_activation(value: ir.Value, absorbed: set[ir.Node]) -> ir.Value:
    uses = list(value.uses())
    if len(uses) == 1 and uses[0].node in absorbed:
        return uses[0].node.outputs[0]
    return value


def _scheme(node: ir.Node, decisions: Mapping[str, Decision]) -> Scheme | None:
    found = decisions.get(str(node.name))
    return None if found is None else found.scheme
