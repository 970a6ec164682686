"""onnxruntime's own quantizer. A program: `peers_ort.py MODEL CALIBRATION ARTIFACT SETTINGS`.

Settings: `form` is static, dynamic or split (static for what an image reaches, dynamic for the
rest: what a person would write by hand). `default` leaves every option as the documentation's
shortest example has it; otherwise the model is preprocessed, weights are per channel and
activations unsigned, which is what the documentation recommends for CPUs with VNNI.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.version_converter
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

PER_CHANNEL_OPSET = 13  # the first DequantizeLinear with an axis


class Samples(CalibrationDataReader):  # type: ignore[misc]
    """The calibration files, one at a time."""

    def __init__(self, folder: Path) -> None:
        self._files: Iterator[Path] = iter(sorted(folder.glob("*.npz")))

    def get_next(self) -> dict[str, np.ndarray] | None:
        path = next(self._files, None)
        if path is None:
            return None
        with np.load(path) as arrays:
            return dict(arrays)


def build(model: Path, calibration: Path, artifact: Path, settings: dict[str, Any]) -> None:
    """Write the quantized model to `artifact`."""
    with tempfile.TemporaryDirectory() as folder:
        form, source = settings["form"], model
        notes: list[str] = []
        if not settings.get("default"):
            source = Path(folder) / "preprocessed.onnx"
            _preprocess(model, source, notes)
        if form == "dynamic":
            quantize_dynamic(str(source), str(artifact), **_dynamic(settings))
        elif form == "static":
            quantize_static(str(source), str(artifact), Samples(calibration), **_static(settings))
        else:
            first, rest = split(source, "image")
            half = Path(folder) / "half.onnx"
            quantize_static(
                str(source),
                str(half),
                Samples(calibration),
                nodes_to_quantize=first,
                **_static(settings),
            )
            quantize_dynamic(str(half), str(artifact), nodes_to_quantize=rest, **_dynamic({}))
        artifact.with_name("note.txt").write_text("; ".join(notes), encoding="utf-8")


def _preprocess(model: Path, into: Path, notes: list[str]) -> None:
    """What the documentation asks for, and what a person would do where that fails."""
    source = into.with_name("raised.onnx")
    found = onnx.load(model)
    opset = next(one.version for one in found.opset_import if one.domain in ("", "ai.onnx"))
    if opset < PER_CHANNEL_OPSET:
        notes.append(f"opset {opset} raised by hand, or the result is an invalid model")
        found = onnx.version_converter.convert_version(found, PER_CHANNEL_OPSET)
    onnx.save(found, source)
    try:
        quant_pre_process(str(source), str(into))
    except Exception as error:  # whatever sympy or it raise; its own message names the way out
        print(f"symbolic shape inference failed: {error}")
        notes.append("preprocessed without symbolic shapes, which fail")
        quant_pre_process(str(source), str(into), skip_symbolic_shape=True)


def _static(settings: dict[str, Any]) -> dict[str, Any]:
    if settings.get("default"):
        return {}
    options = {
        "activation_type": QuantType.QUInt8,
        "weight_type": QuantType.QInt8,
        "per_channel": True,
    }
    return {**options, **({"op_types_to_quantize": settings["ops"]} if "ops" in settings else {})}


def _dynamic(settings: dict[str, Any]) -> dict[str, Any]:
    if settings.get("default"):
        return {}
    # ConvInteger exists for unsigned weights alone
    unsigned = settings.get("weights") == "unsigned"
    return {
        "weight_type": QuantType.QUInt8 if unsigned else QuantType.QInt8,
        "per_channel": not unsigned,
    }


def split(model: Path, image: str) -> tuple[list[str], list[str]]:
    """Names of the nodes that the image alone reaches, and of all others that have weights."""
    nodes = onnx.load(model, load_external_data=False).graph.node
    reached, others = {image}, {"input_ids", "attention_mask"}
    first, rest = [], []
    for node in nodes:
        seen, mixed = (any(name in group for name in node.input) for group in (reached, others))
        if seen:
            reached.update(node.output)
        if mixed:
            others.update(node.output)
        if seen and not mixed:
            first.append(node.name)
        elif node.op_type in ("MatMul", "Gemm", "Gather"):
            rest.append(node.name)
    return first, rest


if __name__ == "__main__":
    source, samples, target = (Path(text) for text in sys.argv[1:4])
    build(source, samples, target, json.loads(sys.argv[4]))
