"""Stage 1: read an ONNX file, check that it can be trusted, leave its weights on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path

import onnx
import onnx_ir as ir

from edgec.errors import EdgecError, InputError
from edgec.external import check_weights
from edgec.graphs import every_value
from edgec.kernels import Kernels, find
from edgec.kernels.marks import op
from edgec.kernels.reference import NOTHING, attach, every_node
from edgec.operators import check_model
from edgec.types import Graph
from edgec.validate import check_proto, first_line

MOST_BYTES = 2**31  # a protobuf cannot be larger; weights beyond it are external


def load(path: Path, kernels: Kernels | None = None, stay: Mapping[str, bool] = NOTHING) -> Graph:
    """Read `path`; external data is checked and memory-mapped, never copied through protobuf.

    `kernels`: custom ops that are known, by default the shipped ones; `stay`: see `attach`.
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
    model = _read(path)
    _forget_sizes(model)
    attach(model, find() if kernels is None else kernels, stay)
    custom = frozenset(op(node) for node in every_node(model) if op(node))
    check_model(path, model)
    data = check_weights(path, model)
    digest = cache(partial(_hash, (path, *data)))  # a calibration needs none
    total = size + sum(os.stat(file).st_size for file in data)
    return Graph(model=model, source=path.name, digest=digest, bytes=total, custom_ops=custom)


def _read(path: Path) -> ir.Model:
    """The graph of a file, sorted; what is wrong with its structure is said first."""
    try:
        proto = onnx.load(path, load_external_data=False)
        check_proto(path, proto)
        model = ir.from_proto(proto)
        for graph in (model.graph, *(function.graph for function in model.functions.values())):
            graph.sort()
        return model
    except EdgecError:
        raise
    except Exception as error:  # the parsers raise types of their own
        deep = isinstance(error, RecursionError) or "MaxDepth" in str(error)
        raise InputError(
            f"{path}: not a readable ONNX model: {first_line(error)}",
            hint="its graphs are nested too deeply: export it with fewer If and Loop in each other"
            if deep
            else "the file may be truncated, or of another format; export or copy it again",
        ) from error


def _forget_sizes(model: ir.Model) -> None:
    """Old exporters write -1 for a dimension that varies; it gets a name of its own."""
    for value in every_value(model):
        if value.shape is not None and any(isinstance(d, int) and d < 0 for d in value.shape):
            value.shape = ir.Shape(
                [
                    f"{value.name}_{axis}" if isinstance(dim, int) and dim < 0 else dim
                    for axis, dim in enumerate(value.shape)
                ]
            )


def _hash(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
