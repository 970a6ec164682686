"""value -> value with a type and, where it follows, a shape; every node and value gets a name."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from edgec.graphs import infer_shapes

NAME = "infer-types"
WHOLE = True


def apply(model: ir.Model) -> int:
    """Infer missing types and shapes; returns how many values gained a type."""
    common.NameFixPass()(model)
    common.RemoveUnusedNodesPass()(model)  # an output that nothing reads needs no name
    missing = _untyped(model)
    infer_shapes(model)
    return len(missing) - len(_untyped(model))


def _untyped(model: ir.Model) -> list[ir.Value]:
    return [value for node in model.graph for value in node.outputs if value.dtype is None]
