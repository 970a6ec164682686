"""A small model as OpenVINO's IR, what goes in, and what has to come out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import small

from edgec.backends.openvino.ir import convert

TEXT = """g (float[n,t,32] x) => (float[n,t,24] y, float[n,24] last) {
  a = MatMul (x, w)
  b = Relu (a)
  y = MatMul (b, v)
  last = ReduceMax <axes = [1], keepdims = 0> (y)
}"""
FIXED = TEXT.replace("n,t,", "2,3,").replace("n,24", "2,24")


def written(folder: Path, text: str = TEXT) -> Path:
    """The model as IR: `engine.xml` and `engine.bin`."""
    made = small.model(text, w=small.normal(0, 32, 48) / 6, v=small.normal(1, 48, 24) / 6)
    small.save(made, folder / "engine.onnx")
    convert(folder / "engine.onnx", folder / "engine.xml", False)
    (folder / "engine.onnx").unlink()
    return folder / "engine.xml"


def feeds(seed: int = 0, n: int = 2, t: int = 3) -> dict[str, np.ndarray]:
    return {"x": small.normal(seed, n, t, 32)}


def expected(given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    weights = small.normal(0, 32, 48) / 6, small.normal(1, 48, 24) / 6
    y = np.maximum(given["x"].astype(np.float64) @ weights[0], 0) @ weights[1]
    return {"y": y, "last": y.max(axis=1)}


def close(found: dict[str, np.ndarray], given: dict[str, np.ndarray], least: float = 100) -> None:
    exact = expected(given)
    assert set(found) == set(exact)
    for name, array in exact.items():
        assert found[name].shape == array.shape
        assert found[name].dtype == np.float32
        assert small.sqnr(array, found[name]) > least, name
