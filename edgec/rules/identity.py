"""Identity(x) -> x, Dropout(x) -> x, equal initialisers -> one, unused nodes -> nothing."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from edgec.graphs import constant

NAME = "remove-identity"


def apply(model: ir.Model) -> int:
    """Remove what computes nothing, in bodies too; returns how many nodes went."""
    before = _count(model)
    for node in list(model.graph.all_nodes()):
        if node.op_type == "Dropout" and _does_nothing(node):
            _pass_on(node)
    for node in list(model.graph.all_nodes()):
        if node.op_type == "Identity" and node.domain in ("", "ai.onnx"):
            _remove(node)
    common.DeduplicateInitializersPass(size_limit=1024)(model)
    common.RemoveUnusedNodesPass()(model)
    common.RemoveUnusedOpsetsPass()(model)
    return max(0, before - _count(model))


def _count(model: ir.Model) -> int:
    return sum(1 for _ in model.graph.all_nodes())


def _remove(node: ir.Node) -> None:
    """What a graph hands on under its own name must be made in it, and is one value alone."""
    value, out = node.inputs[0], node.outputs[0]
    if value is None:
        return
    maker, is_output = value.producer(), out.is_graph_output()
    if is_output and (maker is None or maker.graph is not node.graph or value.is_graph_output()):
        return
    if value.type is None:
        value.type = out.type
    if value.shape is None:
        value.shape = out.shape
    name = out.name if is_output else value.name
    ir.convenience.replace_all_uses_with(out, value, replace_graph_outputs=True)
    assert node.graph is not None
    node.graph.remove(node, safe=True)
    value.name = name


def _does_nothing(node: ir.Node) -> bool:
    """Dropout outside of training whose mask nobody reads."""
    training = node.inputs[2] if len(node.inputs) > 2 else None
    mask = node.outputs[1] if len(node.outputs) > 1 else None
    read = mask is not None and (mask.uses() or mask.is_graph_output())
    array = constant(training)
    return not read and (training is None or (array is not None and not array.any()))


def _pass_on(node: ir.Node) -> None:
    """Replace a node by an Identity, which is then removed wherever it can be."""
    same, old = ir.node("Identity", [node.inputs[0]], name=node.name), node.outputs[0]
    new, name = same.outputs[0], old.name
    new.type, new.shape = old.type, old.shape
    assert node.graph is not None
    node.graph.insert_before(node, same)
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    node.graph.remove(node, safe=True)
    new.name = name
