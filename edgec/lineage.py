"""What a value depends on, as one hash: ops, attributes, weights and graph inputs, but no names.

    lineage(value) = sha256(op, attributes, lineages of the node's inputs, place among its outputs)

So statistics find their value again after a pass has renamed it, and a changed weight invalidates
just what depends on it. The names of graph inputs count, since data are given by them; inside the
bodies of control-flow nodes names count too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import onnx_ir as ir

from edgec.graphs import reads, subgraphs
from edgec.types import Graph


def lineages(graph: Graph) -> dict[str, str]:
    """The hash, in hex, of every value of the top-level graph, by its name."""
    found: dict[ir.Value, str] = {}
    for value in graph.model.graph.initializers.values():
        found[value] = _tensor(value.const_value)
    for value in graph.model.graph.inputs:
        found.setdefault(value, _hash("input", value.name, value.dtype))
    for node in graph.model.graph:
        base = _hash(
            node.domain,
            node.op_type,
            graph.model.opset_imports.get(node.domain),
            *(part for key in sorted(node.attributes) for part in (key, _text(node, key))),
            *_inner_weights(node),
            *("" if value is None else found[value] for value in node.inputs),
            *(found[value] for value in reads(node) if value not in node.inputs),
        )
        for index, value in enumerate(node.outputs):
            found[value] = _hash(base, index)
    return {str(value.name): digest for value, digest in found.items()}


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
