"""One node as a model of its own: its weights, and inputs of the types and shapes that it has."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

import onnx
import onnx_ir as ir

from edgec.errors import UnsupportedError
from edgec.graphs import EXTERNAL_FROM, extract, is_constant, reads, save, weight_bytes

Signature = tuple[object, ...]


def signature(node: ir.Node) -> Signature:
    """What a backend tells nodes apart by: operator, attributes, types, ranks, what is constant."""
    values = [
        None
        if value is None
        else (value.dtype, None if value.shape is None else len(value.shape), is_constant(value))
        for value in node.inputs
    ]
    attributes = sorted((name, _text(one)) for name, one in node.attributes.items())
    return (node.domain, node.op_type, tuple(attributes), tuple(values), len(node.outputs))


def distinct(nodes: Iterable[ir.Node]) -> dict[Signature, list[ir.Node]]:
    """Nodes by signature, those with the fewest weights first."""
    found: dict[Signature, list[ir.Node]] = {}
    for node in nodes:
        found.setdefault(signature(node), []).append(node)
    for same in found.values():
        same.sort(key=lambda node: weight_bytes([node]))
    return found


def minimal(model: ir.Model, node: ir.Node) -> ir.Model:
    """A model of `node` alone. Raises UnsupportedError where the type of an input is not known.

    An output of no known type, of a custom operator that is, is said to have an input's.
    """
    inputs = list(dict.fromkeys(value for value in reads(node) if not is_constant(value)))
    untyped = next((value for value in inputs if value.type is None), None)
    if untyped is not None:
        raise UnsupportedError(
            f"node {node.name!r} cannot stand alone: the type of its input {untyped.name!r} is not "
            "known",
            hint="export the model with value types, or give --shape for its inputs",
        )
    outputs = [str(value.name) for value in node.outputs if value.name]
    alone = extract(model, [str(value.name) for value in inputs], outputs)
    types = [value.type for value in inputs] or [ir.TensorType(ir.DataType.FLOAT)]
    for value in alone.graph.outputs:
        value.type = value.type or types[0]
    used = {key for one in alone.graph for key in (one.domain, *_domains(one))}
    for key in [key for key in alone.opset_imports if key and key not in used]:
        del alone.opset_imports[key]
    alone.graph.name = "node"
    return alone


def save_minimal(model: ir.Model, node: ir.Node, path: Path) -> list[Path]:
    """Write the model of `node`, and prove it with onnx's own checker; returns its files.

    Raises UnsupportedError for a node that cannot be told alone.
    """
    alone = minimal(model, node)
    partial = path.with_name(f".{path.name}.partial")
    large = weight_bytes([node]) >= EXTERNAL_FROM
    files = save(alone, path if large else partial)
    try:
        onnx.checker.check_model(os.fspath(files[0]))
    except onnx.checker.ValidationError as error:
        for file in files:
            file.unlink()
        raise UnsupportedError(
            f"node {node.name!r} does not make a valid model: {str(error).splitlines()[0]}",
            hint="report it: the node came through edgec's checks",
        ) from error
    if not large:
        os.replace(partial, path)
    return files if large else [path]


def file_name(index: int, node: ir.Node) -> str:
    """A name that no hostile name can lead astray: `003-Conv.onnx`."""
    return f"{index:03}-{re.sub(r'[^A-Za-z0-9_]', '', node.op_type)[:40] or 'node'}.onnx"


def _domains(node: ir.Node) -> set[str]:
    inner = [
        one
        for attribute in node.attributes.values()
        if attribute.type == ir.AttributeType.GRAPH
        for one in ir.traversal.RecursiveGraphIterator(attribute.as_graph())
    ]
    return {one.domain for one in inner}


def _text(attribute: ir.Attr) -> str:
    if attribute.type == ir.AttributeType.TENSOR:
        tensor = attribute.as_tensor()
        return f"{tensor.dtype} {tensor.shape}"
    return str(attribute.value)
