"""A model with its weights as one file, written without a copy of the weights in memory.

A protobuf message is a sequence of fields, and a long field says how many bytes follow; so the
fields of the model and of its graph are serialized without large weights, and these are appended to
the graph's field from where they lie, be it a mapped file.
Field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
Encoding: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgec.errors import InternalError
from edgec.external import embed

LARGE = 4096  # bytes of a weight from which it is written by itself
GRAPH, INITIALIZER, RAW_DATA = 7, 5, 9  # of ModelProto, GraphProto, TensorProto


def write(model: ir.Model, path: Path) -> None:
    """Write `model` to `path`; its weights must fit into a protobuf, 2 GiB in all.

    Weights in other files are mapped from there, and become arrays of the model.
    """
    embed(model)
    large = {
        str(value.name): value.const_value
        for value in model.graph.initializers.values()
        if value.const_value is not None and _plain(value.const_value)
    }
    with _without(model, large):
        proto = ir.to_proto(model)
    heads: dict[str, bytes] = {}
    for index in reversed(range(len(proto.graph.initializer))):
        tensor = proto.graph.initializer[index]
        if tensor.name in large:
            del tensor.external_data[:]
            tensor.ClearField("data_location")
            heads[tensor.name] = tensor.SerializeToString(deterministic=True)
            del proto.graph.initializer[index]
    graph = proto.graph.SerializeToString(deterministic=True)
    proto.ClearField("graph")
    starts = {
        name: _start(RAW_DATA, int(tensor.nbytes), before=heads[name])
        for name, tensor in large.items()
    }
    sizes = {name: len(starts[name]) + int(tensor.nbytes) for name, tensor in large.items()}
    fields = {name: _start(INITIALIZER, size) for name, size in sizes.items()}
    total = len(graph) + sum(len(fields[name]) + sizes[name] for name in large)
    with path.open("wb") as stream:
        stream.write(proto.SerializeToString(deterministic=True))
        stream.write(_start(GRAPH, total) + graph)
        for name, tensor in large.items():
            stream.write(fields[name] + starts[name])
            array = np.ascontiguousarray(tensor.numpy())
            if array.nbytes != tensor.nbytes:
                raise InternalError(f"weight {name} has another size than it says")
            stream.write(array.reshape(-1).view(np.uint8).data)


def _plain(tensor: ir.TensorProtocol) -> bool:
    """Whether a weight is large, and its bytes are its numbers."""
    whole = tensor.dtype != ir.DataType.STRING and float(tensor.dtype.itemsize).is_integer()
    return whole and tensor.nbytes >= LARGE


@contextmanager
def _without(model: ir.Model, large: dict[str, ir.TensorProtocol]) -> Iterator[None]:
    """The model with places in no file instead of its large weights."""
    values = {name: model.graph.initializers[name] for name in large}
    try:
        for name, tensor in large.items():
            values[name].const_value = ir.ExternalTensor(
                location="-",
                offset=0,
                length=int(tensor.nbytes),
                dtype=tensor.dtype,
                shape=ir.Shape(tensor.shape.numpy()),
                name=name,
            )
        yield
    finally:
        for name, tensor in large.items():
            values[name].const_value = tensor


def _start(field: int, size: int, before: bytes = b"") -> bytes:
    """The head of a field of `size` bytes."""
    return before + _number(field << 3 | 2) + _number(size)


def _number(value: int) -> bytes:
    """A varint."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)
