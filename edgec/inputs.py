"""The inputs of a graph that a caller feeds: names, types, dimensions and their bounds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgec.errors import InputError, UnsupportedError
from edgec.types import Graph, Range

NUMERIC = frozenset(
    {
        ir.DataType.FLOAT,
        ir.DataType.DOUBLE,
        ir.DataType.FLOAT16,
        ir.DataType.BOOL,
        *(
            getattr(ir.DataType, f"{sign}INT{bits}")
            for sign in ("", "U")
            for bits in (8, 16, 32, 64)
        ),
    }
)


@dataclass(frozen=True)
class Input:
    """A graph input: dtype as numpy has it, and the dimensions with their bounds, if any."""

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int | str, ...] | None
    ranges: tuple[Range, ...]


def inputs(graph: Graph) -> tuple[Input, ...]:
    """The inputs that a caller must feed, initialisers excluded."""
    weights = set(graph.model.graph.initializers)
    found = []
    for value in graph.model.graph.inputs:
        if value.name in weights:
            continue
        dtype = _check_type(value, "input")
        shape = None
        if value.shape is not None:
            shape = tuple(d if isinstance(d, int) else str(d.value or "?") for d in value.shape)
        name = str(value.name)
        found.append(Input(name, dtype.numpy(), shape, tuple(graph.shapes.get(name, ()))))
    if not found:
        raise UnsupportedError(
            "the model has no inputs", hint="there is nothing to compile: run it once instead"
        )
    known = {one.name for one in found}
    for value in graph.model.graph.outputs:
        _check_type(value, "output")
        if value.name in known:
            raise UnsupportedError(
                f"output {value.name!r} is an input handed through, or stands there twice",
                hint="remove it from the model's outputs",
            )
        known.add(str(value.name))
    return tuple(found)


def _check_type(value: ir.Value, what: str) -> ir.DataType:
    """The type of an input or output, which must be a numeric tensor that numpy can hold."""
    tensor = value.type is None or isinstance(value.type, ir.TensorType)
    if tensor and value.dtype is None and what == "input":
        raise InputError(f"input {value.name!r} has no type", hint="export the model again")
    if not tensor or (value.dtype is not None and value.dtype not in NUMERIC):
        kind = value.dtype.name.lower() if tensor and value.dtype is not None else "no tensor"
        raise UnsupportedError(
            f"{what} {value.name!r} is {kind}, which a bundle cannot pass",
            hint="cut the model so that its inputs and outputs are float, integer or bool tensors",
        )
    return value.dtype or ir.DataType.FLOAT
