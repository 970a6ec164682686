"""f(x) with f defined in the model -> the body of f: model-local functions are inlined."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

NAME = "inline-functions"
WHOLE = True


def apply(model: ir.Model) -> int:
    """Inline every model-local function; returns how many there were."""
    count = len(model.functions)
    if count:
        common.InlinePass()(model)
        common.RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]
    return count
