"""Operators before opset 17 -> opset 17, the oldest with the forms that the other rules expect.

Weights stay where they are: the converter sees their types and shapes alone.
"""

from __future__ import annotations

import logging

import onnx_ir as ir
from onnxscript import version_converter

from edgec.errors import UnsupportedError
from edgec.kernels.marks import aside

NAME = "lift-opset"
WHOLE = True
LIFTED = 17


def apply(model: ir.Model) -> int:
    """Lift an older model to opset 17; returns 1 if it was older."""
    before = model.opset_imports.get("", LIFTED)
    if before >= LIFTED:
        return 0
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    with aside(model):
        version_converter.convert_version(model, LIFTED, fallback=True)
    if model.opset_imports.get("", 1) != LIFTED:
        raise UnsupportedError(
            f"the model's opset {before} could not be lifted to {LIFTED}",
            hint=f"export it again with opset {LIFTED} or newer",
        )
    return 1
