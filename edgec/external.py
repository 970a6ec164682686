"""Weights: each has the bytes that it claims, and those beside the model lie in its folder.

A path in a model is a stranger's. It must be relative, stay inside of the model's folder through
all links, and name a plain file with one name; nothing else is ever opened.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir

from edgec.errors import InputError
from edgec.validate import DAMAGED, first_line, printable


def check_weights(path: Path, model: ir.Model) -> list[Path]:
    """Check every tensor of the model; returns the files beside it. No weight is copied.

    Raises InputError for a weight that is damaged, missing, or outside of the model's folder.
    """
    files: dict[Path, None] = {}
    for name, tensor in tensors(model):
        if isinstance(tensor, ir.ExternalTensor):
            tensor.base_dir = path.parent
            files[_check_external(path, name, tensor)] = None
        else:
            _check_embedded(path, name, tensor)
    return sorted(files)


def embed(model: ir.Model) -> None:
    """Map external tensors as arrays, so that a file that is written does not refer to theirs."""
    for body in (model.graph, *(function.graph for function in model.functions.values())):
        for graph in (body, *body.subgraphs()):
            for value in graph.initializers.values():
                if value.const_value is not None:
                    value.const_value = _mapped(value.const_value)
        for node in ir.traversal.RecursiveGraphIterator(body):
            for name, one in list(node.attributes.items()):
                if one.is_ref() or one.value is None:
                    continue
                if one.type == ir.AttributeType.TENSOR:
                    node.attributes[name] = ir.AttrTensor(name, _mapped(one.value))
                elif one.type == ir.AttributeType.TENSORS:
                    node.attributes[name] = ir.AttrTensors(name, [*map(_mapped, one.value)])


def _mapped(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    if not isinstance(tensor, ir.ExternalTensor):
        return tensor
    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)


def _check_embedded(path: Path, name: str, tensor: ir.TensorProtocol) -> None:
    """A weight in the file itself has as many bytes as its shape says."""
    try:
        if isinstance(tensor, ir.TensorProtoTensor):
            tensor.numpy()
        elif isinstance(tensor, ir.StringTensor):
            wrong = [t for t in tensor.string_data() if not isinstance(t, bytes)]
            if wrong or len(tensor.string_data()) != tensor.size:
                raise ValueError(f"{len(tensor.string_data())} texts for {tensor.size} elements")
    # onnx_ir raises NotImplementedError for a data type that it does not know
    except (ValueError, TypeError, NotImplementedError, MemoryError, AssertionError) as error:
        raise InputError(
            f"{path}: weight {printable(name)!r} is damaged: {first_line(error)}", hint=DAMAGED
        ) from error


def _check_external(path: Path, name: str, tensor: ir.ExternalTensor) -> Path:
    """The file of an external tensor: inside the model's folder, its own, and long enough."""
    location = os.fspath(tensor.location)
    told = f"{path}: weight {printable(name)!r}"
    shown = printable(str(location))[:200]
    if not isinstance(location, str) or not location or "\0" in location:
        raise InputError(f"{told} has a path that names no file: {shown!r}", hint=DAMAGED)
    folder = path.parent.resolve()
    try:
        file = (path.parent / location).resolve()
        leaves = os.path.isabs(location) or not file.is_relative_to(folder)
        # as it stands, too: onnx_ir opens the path without resolving it
        exists = not leaves and os.path.isfile(os.path.join(folder, location)) and file.is_file()
    except (OSError, RuntimeError) as error:  # a name too long, links in a circle
        raise InputError(
            f"{told} has a path that cannot be followed: {shown}: {first_line(error)}",
            hint=DAMAGED,
        ) from error
    if leaves:
        raise InputError(
            f"{told} points outside the model's folder: {shown}",
            hint="do not use this file, or copy model and data into one folder, without links",
        )
    if not exists:
        raise InputError(
            f"{path}: external data file {shown} is missing",
            hint="copy it beside the model, under the name that the model gives",
        )
    if file.stat().st_nlink > 1:
        raise InputError(
            f"{path}: external data file {shown} is a hard link, which may lead outside "
            "the model's folder",
            hint="replace it by a copy of its own",
        )
    try:
        sizes = tensor.shape.numpy()
        count, wanted = tensor.size, tensor.nbytes
    # onnx_ir raises NotImplementedError for a data type that it does not know; symbolic sizes
    # have no product
    except (ValueError, TypeError, NotImplementedError, AttributeError) as error:
        raise InputError(f"{told} is damaged: {first_line(error)}", hint=DAMAGED) from error
    if tensor.dtype in (ir.DataType.STRING, ir.DataType.UNDEFINED) or any(n < 0 for n in sizes):
        raise InputError(
            f"{told} is damaged: {count} elements of {tensor.dtype.name} cannot lie in a file",
            hint=DAMAGED,
        )
    offset, length = tensor.offset or 0, wanted if tensor.length is None else tensor.length
    if offset < 0 or length < 0:
        raise InputError(
            f"{told} is damaged: it lies at {offset} with {length} bytes in {shown}", hint=DAMAGED
        )
    if offset + length > file.stat().st_size or length < wanted:
        raise InputError(
            f"{path}: external data file {shown} ends before weight {printable(name)!r}",
            hint="the file is truncated; copy it again",
        )
    return file


def tensors(model: ir.Model) -> Iterator[tuple[str, ir.TensorProtocol]]:
    """Every tensor of a model with its name: initialisers and constants, in functions too."""
    bodies = [function.graph for function in model.functions.values()]
    for body in (model.graph, *bodies):
        for graph in (body, *body.subgraphs()):
            for value in graph.initializers.values():
                if value.const_value is not None:
                    yield str(value.name), value.const_value
        for node in ir.traversal.RecursiveGraphIterator(body):
            for attribute in node.attributes.values():
                # not as_tensor(): it asks a damaged tensor for its size
                if attribute.is_ref() or attribute.value is None:
                    continue
                if attribute.type == ir.AttributeType.TENSOR:
                    yield str(node.outputs[0].name), attribute.value
                elif attribute.type == ir.AttributeType.TENSORS:
                    yield from ((str(node.name), tensor) for tensor in attribute.value)
