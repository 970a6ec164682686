"""Identity(x) -> x, Dropout(x) -> x, equal initialisers -> one, unused nodes -> nothing."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
from onnx_ir.passes import common

from edgec.graphs import constant

NAME = "remove-identity"


def apply(model: ir.Model) -> int:
    """Remove what computes nothing; returns how many nodes went."""
    before = model.graph.num_nodes()
    for node in list(model.graph):
        if node.op_type == "Dropout" and _does_nothing(node):
            _pass_on(model, node)
    graphs = [model.graph, *model.graph.subgraphs()]
    names = [[str(value.name) for value in graph.outputs] for graph in graphs]
    common.IdentityEliminationPass()(model)
    for graph, own in zip(graphs, names, strict=True):
        _part_outputs(graph, own, body=graph is not model.graph)
    common.DeduplicateInitializersPass(size_limit=1024)(model)
    common.RemoveUnusedNodesPass()(model)
    common.RemoveUnusedOpsetsPass()(model)
    return max(0, before - model.graph.num_nodes())


def _part_outputs(graph: ir.Graph, names: Sequence[str], *, body: bool) -> None:
    """Give outputs that lost their name a value each; in a body, also those that became one."""
    seen = set(graph.inputs)
    for index, (value, name) in enumerate(zip(graph.outputs, names, strict=True)):
        if value.name != name or (body and value in seen):
            same = ir.node("Identity", [value], name=f"{name}/output_{index}")
            same.outputs[0].name = name if value.name != name else same.name
            same.outputs[0].type, same.outputs[0].shape = value.type, value.shape
            graph.append(same)
            graph.outputs[index] = same.outputs[0]
        seen.add(graph.outputs[index])


def _does_nothing(node: ir.Node) -> bool:
    """Dropout outside of training whose mask nobody reads."""
    training = node.inputs[2] if len(node.inputs) > 2 else None
    mask = node.outputs[1] if len(node.outputs) > 1 else None
    read = mask is not None and (mask.uses() or mask.is_graph_output())
    array = constant(training)
    return not read and (training is None or (array is not None and not array.any()))


def _pass_on(model: ir.Model, node: ir.Node) -> None:
    """Replace a node by an Identity, which is then removed wherever it can be."""
    same, old = ir.node("Identity", [node.inputs[0]], name=node.name), node.outputs[0]
    new, name = same.outputs[0], old.name
    new.type, new.shape = old.type, old.shape
    model.graph.insert_before(node, same)
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    model.graph.remove(node, safe=True)
    new.name = name
