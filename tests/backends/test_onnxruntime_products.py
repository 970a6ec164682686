"""Static INT8 products stay INT8 on ONNX Runtime, whatever is added to them."""

from pathlib import Path

import engines
import numpy as np
import pytest
import small

from edgec.backends.onnxruntime.products import FUSION, adds_to_int8
from edgec.types import Scheme

TEXT = """g (float[1,10,32] x) => (float[1,10,16] y) {{
    h = MatMul (x, w) a = Add (h, b) s = Softmax (a) {last}
}}"""
WEIGHTS = {"w": small.normal(1, 32, 24), "b": small.normal(2, 24), "v": small.normal(3, 24, 16)}


@pytest.mark.parametrize("scheme", [Scheme.INT8_STATIC, Scheme.FLOAT32])
def test_a_product_with_an_addition_behind_it(scheme: Scheme, tmp_path: Path) -> None:
    static = scheme is Scheme.INT8_STATIC
    found = small.canonical(small.model(TEXT.format(last="y = MatMul (s, v)"), 17, **WEIGHTS))
    feeds = [{"x": small.normal(seed, 1, 10, 32)} for seed in range(4)]
    made, plan = engines.engine(found, "x86-vnni", feeds, engines.everywhere(scheme))
    assert adds_to_int8(made.model) is static
    artifact = engines.emit(made, plan, tmp_path)
    assert (FUSION in artifact.settings["disabled_optimizers"]) is static  # type: ignore[operator]
    assert artifact.optimised == artifact.emitted
    assert artifact.optimised.int8 == (2 if static else 0)
    before, after = small.run(found.model, feeds[0])["y"], engines.run(artifact, feeds[0])["y"]
    assert small.sqnr(before, np.asarray(after)) > 25
