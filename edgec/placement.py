"""Stage 5: where Q/DQ go. Computed from the decisions, shared by calibration and quantization.

Three rules, each measured on trained networks:
- a range belongs after the fused activation, never between a Conv and its Clip or its Swish;
- a value that an INT8 op produced reaches every consumer through the same Q/DQ pair;
- an op that can give float from INT8 inputs (MatMul) does so, unless INT8 ops read its output or
  the grid stands for its activation.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from edgec.activations import fused
from edgec.graphs import RECURRENT, WEIGHTED, is_constant, weight
from edgec.masked import masked_scores
from edgec.types import Decision, Placement, Runtime, Scheme

CORRECTED = frozenset({"Conv", "Gemm"})  # ops whose bias can take a correction


def place(model: ir.Model, decisions: Mapping[str, Decision], runtime: Runtime) -> Placement:
    """The placement for all nodes of `model` that are decided for `runtime`."""
    static = {n for n in model.graph if _scheme(n, decisions, runtime) is Scheme.INT8_STATIC}
    absorbed = {n for n in static if n.op_type in ("Relu", "Clip")}
    follows: dict[str, str] = {}
    values: set[str] = set()
    for node in model.graph:
        if node not in static or node in absorbed:
            continue
        rule = runtime.ops[node.op_type]
        output = _after_activation(node.outputs[0], absorbed)
        if rule.follows:
            follows[str(output.name)] = str(node.inputs[0].name)  # type: ignore[union-attr]
            continue
        values.update(str(value.name) for value in activations(node))
        read_by_int8 = any(use.node in static for use in output.uses())
        clamped = output is not node.outputs[0]
        behind = fused(output, runtime) if node.op_type == "Conv" and not clamped else None
        if behind is not None and static.isdisjoint(behind.nodes):
            continue  # its readers give the activation's output a grid, where they are INT8
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
            and _scheme(node, decisions, runtime) in (Scheme.INT8_STATIC, Scheme.INT8_WEIGHT_ONLY)
        ),
        extents=_smoothed(model, decisions, runtime, static, frozenset(values)),
        masked={k: v for k, v in masked_scores(model).items() if {k, v} <= values - set(follows)},
    )


def _smoothed(
    model: ir.Model,
    decisions: Mapping[str, Decision],
    runtime: Runtime,
    static: set[ir.Node],
    values: frozenset[str],
) -> frozenset[str]:
    """Inputs of matrix products that are smoothed.

    For static INT8: a float op makes them, and all their INT8 readers are smoothed.
    """
    found = set()
    for node in model.graph:
        decision = decisions.get(str(node.name))
        x = node.inputs[0] if node.inputs else None
        if decision is None or not decision.smooth or x is None or weight(node) is None:
            continue
        scheme = _scheme(node, decisions, runtime)
        if scheme is Scheme.INT8_DYNAMIC and not runtime.compressed_dynamic:
            found.add(str(x.name))
        if scheme is Scheme.INT8_STATIC and str(x.name) in values and x.producer() not in static:
            readers = (decisions[str(use.node.name)] for use in x.uses() if use.node in static)
            if all(reader.smooth for reader in readers):
                found.add(str(x.name))
    return frozenset(found)


def activations(node: ir.Node) -> list[ir.Value]:
    """The computed inputs of a node that INT8 would quantize."""
    inputs = node.inputs[:1] if node.op_type in WEIGHTED - RECURRENT else node.inputs
    return [value for value in inputs if value is not None and not is_constant(value)]


def _after_activation(value: ir.Value, absorbed: set[ir.Node]) -> ir.Value:
    uses = list(value.uses())
    if len(uses) == 1 and uses[0].node in absorbed:
        return uses[0].node.outputs[0]
    return value


def _scheme(node: ir.Node, decisions: Mapping[str, Decision], runtime: Runtime) -> Scheme | None:
    found = decisions.get(str(node.name))
    if found is None or (found.backend, found.device) != (runtime.backend, runtime.device):
        return None
    return found.scheme
