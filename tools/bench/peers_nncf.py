"""NNCF. A program: `peers_nncf.py MODEL CALIBRATION ARTIFACT SETTINGS`.

Settings: `form` is openvino (an IR file), onnx (a Q/DQ file) or weights (weight compression alone).
`advice` follows the documentation: transformer names the model type; accuracy takes asymmetric
activations (MIXED) and the slower bias correction. All samples are used, the rest is default.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np


def build(model: Path, calibration: Path, artifact: Path, settings: dict[str, Any]) -> None:
    """Write the compressed model to `artifact`."""
    import nncf
    import onnx
    import openvino

    form = settings["form"]
    source: Any = onnx.load(model) if form == "onnx" else openvino.Core().read_model(model)
    if form == "weights":
        compressed = nncf.compress_weights(source)
    else:
        files = sorted(calibration.glob("*.npz"))
        data = nncf.Dataset([dict(np.load(file)) for file in files])
        compressed = nncf.quantize(source, data, subset_size=len(files), **_options(settings))
    if form == "onnx":
        onnx.save(compressed, artifact)
    else:
        openvino.save_model(compressed, artifact)


def _options(settings: dict[str, Any]) -> dict[str, Any]:
    import nncf

    if settings.get("advice") == "transformer":
        return {"model_type": nncf.ModelType.TRANSFORMER}
    if settings.get("advice") == "accuracy":
        preset = nncf.QuantizationPreset.MIXED
        return {"preset": preset, "fast_bias_correction": False}
    return {}


if __name__ == "__main__":
    source, samples, target = (Path(text) for text in sys.argv[1:4])
    build(source, samples, target, json.loads(sys.argv[4]))
