"""ONNX to OpenVINO's IR, in a process of its own."""

from __future__ import annotations

from pathlib import Path

from edgec.errors import EmitError


def convert(onnx: Path, path: Path, half: bool) -> None:
    """Write `path` (.xml) and its weights (.bin). `half`: float weights as FP16, which holds more
    than the engine's own precision uses.

    Raises EmitError with OpenVINO's own words.
    """
    import openvino

    try:
        model = openvino.Core().read_model(str(onnx))
        openvino.save_model(model, str(path), compress_to_fp16=half)
    except RuntimeError as error:
        raise EmitError(
            f"OpenVINO cannot read the engine: {' '.join(str(error).split())[:500]}",
            hint="keep the part on another backend by a policy",
        ) from error
