"""onnx's converter of opsets, which passes a model through protobuf."""

from __future__ import annotations

import logging

import onnx_ir as ir
from onnxscript import version_converter

from edgec.external import tensors


def convert(model: ir.Model, version: int) -> None:
    """Bring a model to an opset, in place, as far as the converter can: see its imports then.

    Protobuf has no folder for data beside a model, which would be read from the working directory;
    so each tensor gets its folder back.
    """
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    outside = (one for _, one in tensors(model) if isinstance(one, ir.ExternalTensor))
    folder = next((one.base_dir for one in outside), "")
    version_converter.convert_version(model, version, fallback=True)
    for _, one in tensors(model):
        if isinstance(one, ir.ExternalTensor):
            one.base_dir = folder
