"""value -> value with a type and, where it follows, a shape; every node and value gets a name."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from edgec.graphs import infer_shapes
from edgec.kernels.reference import type_outputs

NAME = "infer-types"
MOST_ROUNDS = 64  # one for each custom op behind another of which ONNX infers nothing
WHOLE = True


def apply(model: ir.Model) -> int:
    """Infer missing types and shapes; returns how many values gained a type."""
    common.NameFixPass()(model)
    common.RemoveUnusedNodesPass()(model)  # an output that nothing reads needs no name
    missing = _untyped(model)
    for _ in range(MOST_ROUNDS):
        infer_shapes(model)
        if not type_outputs(model):
            break
    return len(missing) - len(_untyped(model))


def _untyped(model: ir.Model) -> list[ir.Value]:
    return [value for node in model.graph for value in node.outputs if value.dtype is None]
