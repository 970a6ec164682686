"""f(x) with f defined in the model -> the body of f: model-local functions are inlined.

References of custom ops are written out later, by `kernel_references`.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from edgec.kernels.marks import aside

NAME = "inline-functions"
WHOLE = True


def apply(model: ir.Model) -> int:
    """Inline every model-local function; returns how many there were."""
    with aside(model):
        count = len(model.functions)
        if count:
            common.InlinePass()(model)
            common.RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]
    return count
