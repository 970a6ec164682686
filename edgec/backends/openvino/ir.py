"""ONNX to OpenVINO's IR, in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from edgec.errors import EmitError


def convert(source: Path, path: Path, half: bool) -> None:
    """Write `path` (.xml) and its weights (.bin). `half`: float weights as FP16, which holds more
    than the engine's own precision uses.

    Raises EmitError with OpenVINO's own words.
    """
    import openvino

    try:
        model = openvino.Core().read_model(str(source))
        _name(model, source)
        openvino.save_model(model, str(path), compress_to_fp16=half)
    except RuntimeError as error:
        raise EmitError(
            f"OpenVINO cannot read the engine: {' '.join(str(error).split())[:500]}",
            hint="keep the part on another backend by a policy",
        ) from error


def _name(model: Any, path: Path) -> None:
    """Ports keep the names of the ONNX graph alone: an operator's body may add names of its own.

    Raises EmitError for bfloat16, which OpenVINO's Python hands out as float16.
    """
    graph = onnx.load(path, load_external_data=False).graph
    named = {value.name for value in (*graph.input, *graph.output)}
    for port in (*model.inputs, *model.outputs):
        tensor = port.get_tensor()
        if own := tensor.get_names() & named:
            tensor.set_names(own)
    for port in model.outputs:
        if port.get_element_type().get_type_name() == "bf16":
            raise EmitError(
                f"OpenVINO cannot hand out {port.get_any_name()} in bfloat16",
                hint="export the model with float32 outputs",
            )
