"""LayerNormalization written out, and guards against NaN: against float64, with their edges."""

from __future__ import annotations

import equal
import numpy as np
import pytest
import small

from edgec.rules import layer_norm, nan_guards

TOLERANCE = 4e-6  # roundings of the mean, divided by a deviation
EPSILON = 1e-5


def reference(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray) -> np.ndarray:
    wide = x.astype(np.float64)
    centred = wide - wide.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + EPSILON) * gamma + beta


def written_out(opset: int, square: str, quotient: str, shift: str) -> str:
    mean = "<axes = [-1]>" if opset < 18 else ""
    axis = "" if opset < 18 else ", axis"
    return f"""g (float[n,t,16] x) => (float[n,t,16] y) {{
        m = ReduceMean {mean} (x{axis}) c = Sub (x, m) q = {square}
        v = ReduceMean {mean} (q{axis}) e = Add (v, eps) r = Sqrt (e) {quotient}
        {"s = Mul (u, gamma) y = Add (s, beta)" if shift else "y = Mul (gamma, u)"}
    }}"""


@pytest.mark.parametrize("spread", [1.0, 100.0, 1e-4])
@pytest.mark.parametrize("shift", ["", "shift"], ids=["scale", "scale and shift"])
@pytest.mark.parametrize(
    "quotient",
    ["u = Div (c, r)", "i = Reciprocal (r) u = Mul (c, i)", "i = Reciprocal (r) u = Mul (i, c)"],
)
@pytest.mark.parametrize("square", ["Mul (c, c)", "Pow (c, two)"])
@pytest.mark.parametrize("opset", [17, 18])
def test_layer_norm(opset: int, square: str, quotient: str, shift: str, spread: float) -> None:
    gamma, beta = small.normal(1, 16), small.normal(2, 1, 16)
    made = small.model(
        written_out(opset, square, quotient, shift),
        opset,
        eps=np.float32(EPSILON),
        two=np.float32(2),
        axis=np.array([-1]),
        gamma=gamma,
        beta=beta,
    )
    x = small.normal(0, 2, 3, 16) * spread
    expected = reference(x, gamma, beta[0] if shift else np.zeros(16))
    found = equal.prove(made, layer_norm, {"x": x}, {"y": expected}, tolerance=TOLERANCE)
    assert found == {"LayerNormalization": 1}


@pytest.mark.parametrize(
    "change",
    [
        ("Sub (x, m)", "Sub (m, x)"),
        ("<axes = [-1]> (q)", "<axes = [-2]> (q)"),
        ("<axes = [-1]> (x)", "<axes = [-1], keepdims = 1> (z)"),
        ("Pow (c, two)", "Pow (c, eps)"),
        ("Pow (c, two)", "Pow (x, two)"),
    ],
)
def test_what_only_looks_like_it_stays(change: tuple[str, str]) -> None:
    text = written_out(17, "Pow (c, two)", "u = Div (c, r)", "shift").replace(*change)
    text = text.replace("float[n,t,16] x)", "float[n,t,16] x, float[n,t,16] z)")
    made = small.model(
        text,
        eps=np.float32(EPSILON),
        two=np.float32(2),
        gamma=small.normal(1, 16),
        beta=small.normal(2, 16),
    )
    assert layer_norm.apply(equal.named(made)) == 0


def test_a_deviation_that_others_read_stays_for_them() -> None:
    text = written_out(17, "Pow (c, two)", "u = Div (c, r)", "")
    made = small.model(
        text.replace("=> (float[n,t,16] y)", "=> (float[n,t,16] y, float[n,t,1] r)"),
        eps=np.float32(EPSILON),
        two=np.float32(2),
        gamma=small.normal(1, 16),
    )
    x = small.normal(0, 2, 3, 16)
    found = equal.prove(made, layer_norm, {"x": x}, tolerance=TOLERANCE)
    assert found["LayerNormalization"] == 1
    assert found["Sqrt"] == 1


def guarded(scores: str, **weights: np.ndarray) -> object:
    return small.model(
        f"""g (float[2,4,6] q, float[2,6,4] k, bool[2,4,4] hide, float[2,4,4] given)
               => (float[2,4,4] y) {{
              p = MatMul (q, k) {scores} s = Softmax <axis = -1> (z) n = IsNaN (s)
              w = Where (n, zero, s) y = Identity (w)
            }}""",
        zero=np.float32(0),
        lowest=np.float32(-3.4028234663852886e38),
        never=np.float32(-np.inf),
        eight=np.float32(8),
        **weights,
    )


FEEDS = {
    "q": small.normal(0, 2, 4, 6, spread=50),
    "k": small.normal(1, 2, 6, 4, spread=50),
    "hide": np.triu(np.ones((2, 4, 4), bool), 1),
    "given": np.where(np.triu(np.ones((2, 4, 4), bool), 0), -np.inf, 0).astype(np.float32),
}


@pytest.mark.parametrize(
    "scores",
    [
        "z = Div (p, eight)",
        "z = Mul (p, eight)",
        "m = Where (hide, lowest, zero) z = Add (p, m)",
        "f = Cast <to = 1> (hide) m = Mul (f, lowest) d = Div (p, eight) z = Add (d, m)",
    ],
)
@pytest.mark.parametrize("hidden", ["some", "all"])
def test_a_guard_that_guards_nothing(scores: str, hidden: str) -> None:
    feeds = FEEDS if hidden == "some" else {**FEEDS, "hide": np.ones((2, 4, 4), bool)}
    made = guarded(scores)
    found = equal.prove(made, nan_guards, feeds, tolerance=0)  # type: ignore[arg-type]
    assert "IsNaN" not in found
    assert "Softmax" in found


@pytest.mark.parametrize(
    "scores",
    [
        "m = Where (hide, never, zero) z = Add (p, m)",
        "m = Where (hide, lowest, zero) t = Add (p, m) z = Add (t, m)",
        "z = Add (p, given)",
        "z = Where (hide, never, p)",
    ],
    ids=["minus infinity", "twice the lowest", "a mask from outside", "scores replaced"],
)
def test_a_guard_that_is_needed_stays(scores: str) -> None:
    made = guarded(scores)
    assert nan_guards.apply(equal.named(made)) == 0  # type: ignore[arg-type]
