"""Stage 1: read an ONNX file, check that it can be trusted, leave its weights on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir

from edgec.errors import InputError, UnsupportedError
from edgec.types import Graph

OLDEST_OPSET = 9
KNOWN_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc"})
# ONNX Runtime knows these in ONNX's own domain before, or without, ONNX having them.
BORROWED = frozenset({"LayerNormalization", "SimplifiedLayerNormalization"})
MOST_BYTES = 2**31  # a protobuf cannot be larger; weights beyond it are external


def load(path: Path) -> Graph:
    """Read `path`; external data is checked and memory-mapped, never copied through protobuf.

    Raises InputError for a file that is missing, truncated, not ONNX or not a sound graph, and
    UnsupportedError for operators of an unknown domain.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file", hint="give the path of an .onnx file")
    size = path.stat().st_size
    if size == 0 or size > MOST_BYTES:
        raise InputError(
            f"{path}: {size} bytes cannot be an ONNX file",
            hint="export again; weights above 2 GB belong into external data files",
        )
    try:
        model = ir.load(path)
        _check_names(model)
        model.graph.sort()
    except Exception as error:  # the parsers raise types of their own
        raise InputError(
            f"{path}: not a readable ONNX model: {_first_line(error)}",
            hint="the file may be truncated, or of another format; export or copy it again",
        ) from error
    _forget_sizes(model)
    _check_graph(path, model)
    _check_embedded(path, model)
    data = _check_external(path, model)
    _check_domains(path, model)
    total = size + sum(os.stat(file).st_size for file in data)
    return Graph(model=model, source=path.name, sha256=_hash([path, *data]), bytes=total)


def _forget_sizes(model: ir.Model) -> None:
    """Old exporters write -1 for a dimension that varies; it gets a name of its own."""
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.shape is not None and any(isinstance(d, int) and d < 0 for d in value.shape):
            value.shape = ir.Shape(
                [
                    f"{value.name}_{axis}" if isinstance(dim, int) and dim < 0 else dim
                    for axis, dim in enumerate(value.shape)
                ]
            )


def _check_names(model: ir.Model) -> None:
    """Protobuf hands over text that is not UTF-8 as bytes, on which later stages would trip."""
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        values += node.outputs
        if not all(isinstance(t, str) for t in (node.name or "", node.op_type, node.domain)):
            raise ValueError(f"node {node.name!r} has a name that is not UTF-8")
    for value in values:
        if value.name is not None and not isinstance(value.name, str):
            raise ValueError(f"value {value.name!r} has a name that is not UTF-8")


def _check_graph(path: Path, model: ir.Model) -> None:
    graph = model.graph
    hint = "run onnx.checker.check_model on it, and export it again"
    if not graph.outputs:
        raise InputError(f"{path}: the graph has no outputs", hint=hint)
    opset = model.opset_imports.get("", OLDEST_OPSET)
    if opset < OLDEST_OPSET:
        raise InputError(
            f"{path}: opset {opset} is older than {OLDEST_OPSET}",
            hint=f"export with opset {OLDEST_OPSET} or newer",
        )
    newest = onnx.defs.onnx_opset_version()
    if opset > newest:
        raise UnsupportedError(
            f"{path}: opset {opset} is newer than {newest}, the newest that onnx "
            f"{onnx.__version__} knows",
            hint=f"pip install --upgrade onnx, or export with opset {newest} or older",
        )
    known = {*graph.inputs, *graph.initializers.values()}
    for node in graph:
        for value in node.inputs:
            if value is not None and value.producer() is None and value not in known:
                raise InputError(
                    f"{path}: node {node.name or node.op_type!r} reads {value.name!r}, "
                    "which nothing produces",
                    hint=hint,
                )
        known.update(node.outputs)
    for output in graph.outputs:
        if output not in known:
            raise InputError(f"{path}: output {output.name!r} is never produced", hint=hint)


def _check_embedded(path: Path, model: ir.Model) -> None:
    """Every weight in the file itself has as many bytes as its shape says; none is copied."""
    for name, tensor in _tensors(model):
        try:
            if isinstance(tensor, ir.TensorProtoTensor):
                tensor.numpy()
        # onnx_ir raises NotImplementedError for a data type that it does not know
        except (ValueError, TypeError, NotImplementedError, MemoryError) as error:
            raise InputError(
                f"{path}: weight {name!r} is damaged: {_first_line(error)}",
                hint="the file may be truncated or changed; export or copy it again",
            ) from error


def _check_external(path: Path, model: ir.Model) -> list[Path]:
    """The external data files, each inside the model's folder and long enough."""
    folder = path.parent.resolve()
    files: dict[Path, None] = {}
    for name, tensor in _tensors(model):
        if not isinstance(tensor, ir.ExternalTensor):
            continue
        location = os.fspath(tensor.location)
        file = (path.parent / location).resolve()
        if os.path.isabs(location) or not file.is_relative_to(folder):
            raise InputError(
                f"{path}: weight {name!r} points outside the model's folder: {location}",
                hint="do not use this file, or copy model and data into one folder, without links",
            )
        if not file.is_file():
            raise InputError(
                f"{path}: external data file {location} is missing",
                hint="copy it beside the model, under the name that the model gives",
            )
        if file.stat().st_nlink > 1:
            raise InputError(
                f"{path}: external data file {location} is a hard link, which may lead outside "
                "the model's folder",
                hint="replace it by a copy of its own",
            )
        offset, length = tensor.offset or 0, tensor.length or tensor.nbytes
        if offset < 0 or offset + length > file.stat().st_size or length < tensor.nbytes:
            raise InputError(
                f"{path}: external data file {location} ends before weight {name!r}",
                hint="the file is truncated; copy it again",
            )
        files[file] = None
    return sorted(files)


def _tensors(model: ir.Model) -> Iterator[tuple[str, ir.TensorProtocol]]:
    """Every tensor of a model with its name: initialisers and constants, in functions too."""
    bodies = [function.graph for function in model.functions.values()]
    for body in (model.graph, *bodies):
        for graph in (body, *body.subgraphs()):
            for value in graph.initializers.values():
                if value.const_value is not None:
                    yield str(value.name), value.const_value
        for node in ir.traversal.RecursiveGraphIterator(body):
            for attribute in node.attributes.values():
                if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
                    yield str(node.outputs[0].name), attribute.as_tensor()
                elif attribute.type == ir.AttributeType.TENSORS and not attribute.is_ref():
                    yield from ((str(node.name), tensor) for tensor in attribute.as_tensors())


def _check_domains(path: Path, model: ir.Model) -> None:
    opset = model.opset_imports.get("", OLDEST_OPSET)
    functions = {(function.domain, function.name) for function in model.functions.values()}
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.domain not in KNOWN_DOMAINS and (node.domain, node.op_type) not in functions:
            raise UnsupportedError(
                f"{path}: node {node.name!r} is {node.domain}::{node.op_type}, "
                "an operator that neither ONNX nor the model defines",
                hint="export it as standard ONNX operators, or add it to the model as an ONNX "
                "function",
            )
        known = (node.domain, node.op_type) in functions or node.op_type in BORROWED
        known = known or node.domain not in ("", "ai.onnx")
        if not known and not onnx.defs.has(node.op_type, opset, ""):
            raise UnsupportedError(
                f"{path}: node {node.name!r} is {node.op_type}, "
                f"an operator that ONNX does not have at opset {opset}",
                hint="export it as standard ONNX operators, or raise the model's opset",
            )


def _hash(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _first_line(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
