"""value -> value with a type and, where it follows, a shape; every node and value gets a name."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

NAME = "infer-types"
WHOLE = True


def apply(model: ir.Model) -> int:
    """Infer missing types and shapes; returns how many values gained a type."""
    common.NameFixPass()(model)
    missing = _untyped(model)
    common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
    return len(missing) - len(_untyped(model))


def _untyped(model: ir.Model) -> list[ir.Value]:
    return [value for node in model.graph for value in node.outputs if value.dtype is None]
