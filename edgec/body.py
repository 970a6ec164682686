"""A node into the body that ONNX gives its operator: of any type, in subgraphs too.

For opsets that lack it. What a runtime lacks, or has wrong, is `edgec.expand`'s.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir
from onnx import defs, inliner

IR = 10  # the newest that onnx's inliner is asked to read


def write_out(model: ir.Model, node: ir.Node) -> list[ir.Node]:
    """Replace `node` by its body and return that; nothing is replaced where there is no body.

    Types of its inputs must be known where the body depends on them.
    """
    copy = alone(node, model.opset_imports)
    _fill_in(model, copy.graph[0])
    try:
        found = inliner.inline_selected_functions(
            ir.to_proto(copy), [(node.domain, node.op_type)], inline_schema_functions=True
        )
    except Exception:  # the checker's own error: the types are not those that the body is for
        return []
    body = ir.from_proto(found).graph
    if any(one.op_type == node.op_type and one.domain == node.domain for one in body):
        return []
    given = [value for value in node.inputs if value is not None]
    return splice(node, dict(zip(copy.graph.inputs, given, strict=True)), body)


def alone(node: ir.Node, opsets: Mapping[str, int]) -> ir.Model:
    """A model of a copy of a node, whose inputs and outputs are those that the node has."""
    inputs = [
        None if value is None else ir.Value(name=f"i{index}", type=value.type, shape=value.shape)
        for index, value in enumerate(node.inputs)
    ]
    copy = ir.Node(
        node.domain,
        node.op_type,
        inputs,
        attributes=list(node.attributes.values()),
        num_outputs=len(node.outputs),
        name="node",
    )
    for index, (new, old) in enumerate(zip(copy.outputs, node.outputs, strict=True)):
        new.name = f"o{index}" if old.name else ""
        new.type, new.shape = old.type, old.shape
    graph = ir.Graph(
        [value for value in inputs if value is not None],
        [value for value in copy.outputs if value.name],
        nodes=[copy],
        opset_imports=dict(opsets),
        name="body",
    )
    return ir.Model(graph, ir_version=IR)


def _fill_in(model: ir.Model, node: ir.Node) -> None:
    """Attributes that are left out, with their defaults: a body does not know these."""
    version = model.opset_imports.get(node.domain, 1)
    if defs.has(node.op_type, version, node.domain):
        for name, known in defs.get_schema(node.op_type, version, node.domain).attributes.items():
            if name not in node.attributes and known.default_value.name:
                node.attributes.add(ir.serde.deserialize_attribute(known.default_value))


def splice(node: ir.Node, inputs: dict[ir.Value, ir.Value], body: ir.Graph) -> list[ir.Node]:
    """Move the nodes of a body to where `node` is; they are named after it.

    `inputs`: what stands for each input of the body. What the node made keeps its name and its id.
    """
    by_name = {str(stand.name): value for stand, value in inputs.items()}
    for value in list(body.inputs):
        ir.convenience.replace_all_uses_with(
            value, by_name[str(value.name)], replace_graph_outputs=True
        )
    made = {str(value.name): value for one in body for value in one.outputs}
    results = {f"o{index}": value for index, value in enumerate(node.outputs) if value.name}
    given = dict(zip(results, body.outputs, strict=True))
    nodes = list(body)
    body.outputs.clear()
    body.remove(nodes)
    for index, one in enumerate(nodes):
        one.name = f"{node.name}/{index}_{one.op_type}"
        for place, value in enumerate(one.outputs):
            if value.name:
                value.name = f"{one.name}/out_{place}" if place else f"{one.name}/out"
    graph = node.graph
    assert graph is not None
    for name in results:
        new = made.get(name, given[name])
        if new.producer() not in nodes:  # an input that is handed through
            nodes.append(ir.node("Identity", [new], name=f"{node.name}/{name}"))
            new = nodes[-1].outputs[0]
        given[name] = new
    graph.insert_before(node, nodes)
    for name, old in results.items():
        new, known = given[name], old.name
        new.type, new.shape = old.type, old.shape
        new.metadata_props.update(old.metadata_props)
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        old.name, new.name = None, known
    graph.remove(node, safe=True)
    return nodes
