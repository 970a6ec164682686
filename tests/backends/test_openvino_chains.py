"""INT8 products in a row on matrices: right with the setting that the plan gives, noise without."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import engines
import numpy as np
import openvino
import pytest
import small

from edgec.backends.openvino.chains import has_dense_chain
from edgec.target import cpu_flags
from edgec.types import Scheme

STATIC = engines.everywhere(Scheme.INT8_STATIC)
# first product's output -> second product's input
MIDDLES = {
    "nothing": "m = Identity (a)",
    "relu": "m = Relu (a)",
    "bias": "b = Add (a, c) m = Relu (b)",
    "tanh": "m = Tanh (a)",
}
LOUD = np.ones(32, np.float32)
LOUD[[3, 17]] = 40, 15


def chain(middle: str, rows: str = "4") -> str:
    return f"""g (float[{rows},32] x) => (float[{rows},24] y) {{
      a = MatMul (x, w)
      {middle}
      y = MatMul (m, v)
    }}"""


def weights() -> dict[str, np.ndarray]:
    return {
        "w": small.normal(0, 32, 48) / LOUD[:, None],
        "v": small.normal(1, 48, 24),
        "c": small.normal(2, 48),
    }


def fed(seed: int) -> dict[str, np.ndarray]:
    return {"x": small.normal(seed, 4, 32) * LOUD}


@pytest.mark.parametrize("rows", ["4", "n"])
@pytest.mark.parametrize("middle", MIDDLES)
def test_a_chain_is_computed_right(middle: str, rows: str, tmp_path: Path) -> None:
    """Also where the rows are fixed on the device alone, by the first call."""
    found = small.canonical(small.model(chain(MIDDLES[middle], rows), **weights()))
    feeds = [fed(seed) for seed in range(4)]
    made, plan = engines.engine(found, "x86-vnni", feeds, STATIC, "openvino")
    products = [d for d in plan.decisions.values() if d.op_type == "MatMul"]
    assert all(d.smooth and d.scheme is Scheme.INT8_STATIC for d in products)
    artifact = engines.emit(made, plan, tmp_path)
    assert artifact.settings["snippets"] is False
    assert artifact.planned == artifact.optimised
    exact = small.run(found.model, feeds[0])["y"]
    assert small.sqnr(exact, engines.run(artifact, feeds[0])["y"]) > 25


@pytest.mark.skipif(
    not openvino.get_version().startswith("2026.4.1") or "avx512_vnni" not in cpu_flags(),
    reason="the bug was seen in OpenVINO 2026.4.1 on AVX512-VNNI; others may compute it right",
)
def test_without_the_setting_the_chain_is_noise(tmp_path: Path) -> None:
    """Where this fails, `wrong_dense_chains` may leave the table."""
    found = small.canonical(small.model(chain(MIDDLES["relu"]), **weights()))
    feeds = [fed(seed) for seed in range(4)]
    made, plan = engines.engine(found, "x86-vnni", feeds, STATIC, "openvino")
    artifact = engines.emit(made, plan, tmp_path)
    spoilt = replace(artifact, settings={**artifact.settings, "snippets": True})
    exact = small.run(found.model, feeds[0])["y"]
    assert small.sqnr(exact, engines.run(spoilt, feeds[0])["y"]) < 5


ALONE = "g (float[4,32] x) => (float[4,48] y) { a = MatMul (x, w) y = Relu (a) }"
APART = """g (float[4,32] x) => (float[4,24] y) {
  a = MatMul (x, w)
  m = LpNormalization (a)
  y = MatMul (m, v)
}"""
CUBE = chain(MIDDLES["relu"]).replace("[4,", "[1,4,")


@pytest.mark.parametrize("text", [ALONE, APART, CUBE], ids=["one product", "another op", "rank 3"])
def test_what_is_no_chain_keeps_its_code_generator(text: str, tmp_path: Path) -> None:
    found = small.canonical(small.model(text, **weights()))
    feeds = [fed(seed) for seed in range(2)]
    if text is CUBE:
        feeds = [{"x": one["x"][None]} for one in feeds]
    made, plan = engines.engine(found, "x86-vnni", feeds, STATIC, "openvino")
    assert not has_dense_chain(made.model)
    artifact = engines.emit(made, plan, tmp_path)
    assert "snippets" not in artifact.settings
    exact = small.run(found.model, feeds[0])["y"]
    assert small.sqnr(exact, engines.run(artifact, feeds[0])["y"]) > 25


def test_a_chain_in_float_or_in_dynamic_int8_is_none() -> None:
    found = small.canonical(small.model(chain(MIDDLES["relu"]), **weights()))
    for scheme in (Scheme.FLOAT32, Scheme.INT8_DYNAMIC, Scheme.INT8_WEIGHT_ONLY):
        policy = engines.everywhere(scheme)
        made, _ = engines.engine(found, "x86-vnni", [], policy, "openvino")
        assert not has_dense_chain(made.model)
