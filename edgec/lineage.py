"""What a value depends on, as one hash: ops, attributes, weights and graph inputs, but no names.

    lineage(value) = sha256(op, attributes, lineages of the node's inputs, place among its outputs)

So statistics find their value again after a pass has renamed it, and a changed weight invalidates
just what depends on it. The names of graph inputs count, since data are given by them; inside the
bodies of control-flow nodes names count too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import onnx_ir as ir

from edgec.graphs import reads, subgraphs
from edgec.kernels.marks import MARK, PLAIN
from edgec.types import Graph


def of_plain(model: ir.Model, last: ir.Node, given: ir.Value) -> str:
    """What makes the one output of `last` out of `given`: for the metadata of what replaces it.

    Its lineage then is what it was. Empty where something else is read that is not constant.
    """
    chain: set[ir.Node] = set()
    stack = [last]
    while stack:
        node = stack.pop()
        if node in chain:
            continue
        chain.add(node)
        for value in node.inputs:
            if value is None or value is given or value.const_value is not None:
                continue
            maker = value.producer()
            if maker is None or list(subgraphs(maker)):
                return ""
            stack.append(maker)
    places: dict[ir.Value, list[object]] = {given: []}
    steps: list[list[object]] = []
    for node in (one for one in model.graph if one in chain):
        reads_of = [
            None if v is None else places.get(v, _tensor(v.const_value)) for v in node.inputs
        ]
        version = model.opset_imports.get(node.domain)
        steps.append([[node.domain, node.op_type, version, *_attributes(node)], reads_of])
        for index, value in enumerate(node.outputs):
            places[value] = [len(steps) - 1, index]
    return json.dumps(steps)


def _replayed(text: str, given: str) -> str:
    """The lineage that `of_plain` has kept."""
    made: list[str] = []
    for head, inputs in json.loads(text):
        parts = []
        for one in inputs:
            if one is None or isinstance(one, str):
                parts.append(one or "")
            else:
                parts.append(_hash(made[one[0]], one[1]) if one else given)
        made.append(_hash(*head, *parts))
    return _hash(made[-1], 0)


def lineages(graph: Graph) -> dict[str, str]:
    """The hash, in hex, of every value of the top-level graph, by its name."""
    found: dict[ir.Value, str] = {}
    for value in graph.model.graph.initializers.values():
        found[value] = _tensor(value.const_value)
    for value in graph.model.graph.inputs:
        found.setdefault(value, _hash("input", value.name, value.dtype))
    for node in graph.model.graph:
        if plain := node.metadata_props.get(PLAIN):
            given = node.inputs[0]
            found[node.outputs[0]] = _replayed(plain, "" if given is None else found[given])
            continue
        base = _hash(
            node.domain,
            node.op_type,
            graph.model.opset_imports.get(node.domain),
            *filter(None, [node.metadata_props.get(MARK)]),
            *_attributes(node),
            *_inner_weights(node),
            *("" if value is None else found[value] for value in node.inputs),
            *(found[value] for value in reads(node) if value not in node.inputs),
        )
        for index, value in enumerate(node.outputs):
            found[value] = _hash(base, index)
    return {str(value.name): digest for value, digest in found.items()}


def _attributes(node: ir.Node) -> list[str]:
    return [part for key in sorted(node.attributes) for part in (key, _text(node, key))]


def _text(node: ir.Node, key: str) -> str:
    attribute = node.attributes[key]
    if attribute.type == ir.AttributeType.TENSOR:
        return _tensor(attribute.as_tensor())
    return hashlib.sha256(ir.to_proto(attribute).SerializeToString(deterministic=True)).hexdigest()


def _inner_weights(node: ir.Node) -> Iterator[str]:
    """Weights in the bodies of a node, of which the text of a body may only name a file."""
    for body in subgraphs(node):
        for graph in (body, *body.subgraphs()):
            yield from (_tensor(value.const_value) for value in graph.initializers.values())


def _tensor(tensor: ir.TensorProtocol | None) -> str:
    if tensor is None:
        return _hash("none")
    digest = hashlib.sha256(f"{tensor.dtype}{list(tensor.shape)}".encode())
    digest.update(tensor.tobytes())
    return digest.hexdigest()


def _hash(*parts: object) -> str:
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()
