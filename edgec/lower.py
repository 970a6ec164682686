"""Stage 9: what only this target needs: the newest opset and IR version that its stack accepts."""

from __future__ import annotations

import onnx_ir as ir
from onnxscript import version_converter

from edgec.errors import UnsupportedError
from edgec.graphs import opset
from edgec.types import Stack


def lower(model: ir.Model, stack: Stack) -> ir.Model:
    """Cap opset and IR version in place. Raises UnsupportedError where the opset cannot sink."""
    if opset(model) > stack.max_opset:
        before = opset(model)
        version_converter.convert_version(model, stack.max_opset, fallback=True)
        if opset(model) > stack.max_opset:
            raise UnsupportedError(
                f"the model's opset {before} is newer than {stack.name} accepts "
                f"({stack.max_opset}), and could not be lowered",
                hint=f"export it with opset {stack.max_opset} or older",
            )
    model.ir_version = min(model.ir_version or stack.max_ir, stack.max_ir)
    return model
