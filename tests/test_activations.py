"""Ranges fall behind the activation that a convolution's kernel computes, however it is written."""

from __future__ import annotations

from pathlib import Path

import engines
import numpy as np
import pytest
import small

from edgec.placement import place
from edgec.types import Graph, Scheme

BODIES = {
    "Swish": "s = Sigmoid (c) a = Mul (c, s)",
    "Swish, turned": "s = Sigmoid (c) a = Mul (s, c)",
    "Mish": "p = Softplus (c) t = Tanh (p) a = Mul (c, t)",
    "HardSwish": "q = Add (c, three) k = Clip (q, zero, six) m = Mul (c, k) a = Div (m, six)",
}
PLAIN = {"an attention": "s = Sigmoid (x) a = Mul (c, s)", "two readers": BODIES["Swish"]}


def network(body: str, more: str = "") -> Graph:
    outputs = "float[1,16,12,12] y" + (", float[1,16,12,12] c" if more else "")
    made = small.model(
        f"""g (float[1,16,12,12] x) => ({outputs}) {{
              [first] c = Conv <pads = [1,1,1,1]> (x, w, b) {body}
              [second] y = Conv <pads = [1,1,1,1]> (a, v, b)
            }}""",
        w=small.normal(1, 16, 16, 3, 3) / 8,
        v=small.normal(2, 16, 16, 3, 3) / 8,
        b=small.normal(3, 16),
        three=np.float32(3),
        zero=np.float32(0),
        six=np.float32(6),
    )
    return small.canonical(made)


FEEDS = [{"x": small.normal(seed, 1, 16, 12, 12) * 2} for seed in range(4)]
STATIC = engines.everywhere(Scheme.INT8_STATIC)


@pytest.mark.parametrize("body", BODIES)
def test_openvino_gets_one_range_behind_it(body: str, tmp_path: Path) -> None:
    found = network(BODIES[body])
    made, plan = engines.engine(found, "x86-vnni", FEEDS, STATIC, "openvino")
    placed = place(found.model, plan.decisions, made.runtime)
    assert "c" not in placed.values
    assert {"x", "a"} <= placed.values
    artifact = engines.emit(made, plan, tmp_path)
    assert artifact.optimised == artifact.planned
    assert artifact.optimised.int8 == 2
    got = engines.run(artifact, FEEDS[0])["y"]
    assert small.sqnr(small.run(found.model, FEEDS[0])["y"], got) > 30


def test_what_is_in_the_kernel_says_so() -> None:
    plan = small.plan(network(BODIES["Swish"]), "x86-vnni", STATIC, backend="openvino")
    reasons = {one.reason for one in plan.decisions.values() if one.op_type in ("Sigmoid", "Mul")}
    assert reasons == {"the kernel of the convolution before it computes it: its range comes after"}


@pytest.mark.parametrize("body", PLAIN)
def test_what_is_no_activation_of_the_convolution_alone_has_a_range(body: str) -> None:
    found = network(PLAIN[body], "output" if body == "two readers" else "")
    plan = small.plan(found, "x86-vnni", STATIC, backend="openvino")
    placed = place(found.model, plan.decisions, small.runtime("x86-vnni", "openvino"))
    assert "c" in placed.values


@pytest.mark.parametrize("body", ["Swish", "HardSwish"])
def test_onnxruntime_needs_a_range_behind_the_convolution(body: str) -> None:
    found = network(BODIES[body])
    plan = small.plan(found, "x86-vnni", STATIC)
    placed = place(found.model, plan.decisions, small.runtime("x86-vnni"))
    assert {"x", "c", "a"} <= placed.values
