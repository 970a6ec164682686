"""Swish, Mish and HardSwish written out: against their equations in float64, with their edges."""

from __future__ import annotations

import equal
import numpy as np
import onnx_ir as ir
import pytest
import small

from edgec.rules import hard_swish, mish, swish

EDGES = np.float32([[0, -0.0, 3, -3, 2.999, -2.999, 1e-30, 20, -20, 80, -80]])
X = np.concatenate([EDGES, small.normal(0, 4, 11) * 4])
# The kernels approximate exp and tanh.
TOLERANCE = 2e-6


def model(body: str, opset: int = 17) -> ir.Model:
    return small.model(
        f"g (float[n,m] i) => (float[n,m] y) {{ x = Identity (i) {body} }}",
        opset,
        one=np.float32(1),
        minus=np.float32(-1),
        three=np.float32(3),
        six=np.float32(6),
        sixth=np.float32(1 / 6),
        zero=np.float32(0),
        five=np.float32(5),
    )


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x.astype(np.float64)))


@pytest.mark.parametrize("opset", [17, 24])
@pytest.mark.parametrize("power", ["p = Neg (x)", "p = Mul (x, minus)"])
@pytest.mark.parametrize(
    ("last", "product", "ops"),
    [
        ("y = Div (x, d)", True, {"Sigmoid": 1, "Mul": 1}),
        ("s = Div (one, d) y = Mul (s, x)", True, {"Sigmoid": 1, "Mul": 1}),
        ("s = Reciprocal (d) y = Mul (x, s)", True, {"Sigmoid": 1, "Mul": 1}),
        ("y = Reciprocal (d)", False, {"Sigmoid": 1}),
    ],
)
def test_swish(last: str, product: bool, ops: dict[str, int], power: str, opset: int) -> None:
    made = model(f"{power} e = Exp (p) d = Add (e, one) {last}", opset)
    wide = sigmoid(X) * (X if product else 1)
    found = equal.prove(made, swish, {"i": X}, {"y": wide}, tolerance=TOLERANCE)
    assert found == {"Identity": 1, **ops}


@pytest.mark.parametrize("opset", [17, 18])
@pytest.mark.parametrize(
    "inner", ["s = Softplus (x)", "e = Exp (x) d = Add (e, one) s = Log (d)"], ids=["op", "log"]
)
def test_mish(inner: str, opset: int) -> None:
    made = model(f"{inner} t = Tanh (s) y = Mul (t, x)", opset)
    wide = X.astype(np.float64) * np.tanh(np.logaddexp(0, X.astype(np.float64)))
    count = 0 if opset < 18 and "Softplus" in inner else 1
    found = equal.prove(made, mish, {"i": X}, {"y": wide}, tolerance=TOLERANCE, count=count)
    ops = {"Mish": 1} if opset >= 18 else {"Softplus": 1, "Tanh": 1, "Mul": 1}
    assert found == {"Identity": 1, **ops}


@pytest.mark.parametrize(
    "last",
    [
        "m = Mul (x, c) y = Div (m, six)",
        "m = Mul (c, x) y = Mul (m, sixth)",
        "h = Div (c, six) y = Mul (x, h)",
        "h = Mul (sixth, c) y = Mul (h, x)",
        "s = Mul (x, sixth) y = Mul (s, c)",
        "s = Div (x, six) y = Mul (c, s)",
    ],
)
def test_hard_swish(last: str) -> None:
    made = model(f"a = Add (x, three) c = Clip (a, zero, six) {last}")
    wide = X.astype(np.float64)
    expected = {"y": wide * np.clip(wide + 3, 0, 6) / 6}
    found = equal.prove(made, hard_swish, {"i": X}, expected)
    assert found == {"Identity": 1, "HardSwish": 1}


def test_hard_swish_by_hard_sigmoid() -> None:
    made = model("h = HardSigmoid <alpha = 0.16666667, beta = 0.5> (x) y = Mul (x, h)")
    wide = X.astype(np.float64)
    expected = {"y": wide * np.clip(wide / 6 + 0.5, 0, 1)}
    assert equal.prove(made, hard_swish, {"i": X}, expected) == {"Identity": 1, "HardSwish": 1}


def test_a_gate_alone_is_a_hard_sigmoid() -> None:
    made = model("a = Add (three, x) c = Clip (a, zero, six) y = Div (c, six)")
    expected = {"y": np.clip(X.astype(np.float64) + 3, 0, 6) / 6}
    assert equal.prove(made, hard_swish, {"i": X}, expected) == {"Identity": 1, "HardSigmoid": 1}


@pytest.mark.parametrize(
    ("rule", "body"),
    [
        (hard_swish, "a = Add (x, three) c = Clip (a, zero, five) m = Mul (x, c) y = Div (m, six)"),
        (hard_swish, "a = Add (x, one) c = Clip (a, zero, six) m = Mul (x, c) y = Div (m, six)"),
        (hard_swish, "a = Add (x, three) c = Clip (a, zero, six) m = Mul (i, c) y = Div (m, six)"),
        (hard_swish, "h = HardSigmoid <alpha = 0.2> (x) y = Mul (x, h)"),
        (swish, "e = Exp (x) d = Add (e, one) y = Div (x, d)"),
        (swish, "p = Neg (x) e = Exp (p) d = Add (e, three) y = Div (x, d)"),
        (mish, "s = Softplus (i) t = Tanh (s) y = Mul (t, x)"),
    ],
)
def test_what_only_looks_like_it_stays(rule: object, body: str) -> None:
    made = equal.named(model(body, 18))
    before = list(made.graph)
    assert rule.apply(made) == 0  # type: ignore[attr-defined]
    assert list(made.graph) == before


def test_a_constant_that_adds_dimensions_stays() -> None:
    made = small.model(
        """g (float[n] x) => (float[1,1,n] y, float[1,n] z) {
             p = Neg (x) e = Exp (p) d = Add (e, one) y = Div (x, d)
             a = Add (x, three) c = Clip (a, zero, six) m = Mul (x, c) z = Div (m, sixes)
           }""",
        one=np.ones((1, 1, 1), np.float32),
        three=np.float32(3),
        zero=np.float32(0),
        six=np.float32(6),
        sixes=np.full((1, 1), 6, np.float32),
    )
    equal.named(made)
    assert swish.apply(made) == 0
    assert hard_swish.apply(made) == 0


def test_a_mobile_net_block_has_one_node_behind_its_convolution() -> None:
    made = small.model(
        """g (float[1,3,8,8] x) => (float[1,4,8,8] y) {
             c = Conv (x, w) a = Add (c, three) r = Relu (a) k = Min (r, six)
             m = Mul (c, k) y = Div (m, six)
           }""",
        w=small.normal(1, 4, 3, 1, 1),
        three=np.float32(3),
        six=np.float32(6),
    )
    assert small.ops(small.canonical(made).model) == ["Conv", "HardSwish"]
