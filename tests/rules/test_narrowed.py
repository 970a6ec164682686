"""float64 and int64 that nothing needs: narrower, and the same bit by bit."""

from __future__ import annotations

from collections import Counter

import equal
import numpy as np
import pytest
import small

from edgec.rules import casts, narrowed

TINY = np.float32([1e-45, 1.1754944e-38, -1.1e-38, 3e-39])
ODD = np.float32([0, -0.0, np.inf, -np.inf, np.nan, 3.4028235e38, 1 + 2**-23, 1 - 2**-24])
X = np.concatenate([TINY, ODD, small.normal(0, 500, spread=3)]).reshape(-1, 8)
Y = np.concatenate([ODD, TINY, small.normal(1, 500, spread=3)]).reshape(-1, 8)


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
def test_one_operation_rounds_the_same(op: str) -> None:
    made = small.model(
        f"""g (float[n,8] x, float[n,8] y) => (float[n,8] z) {{
              a = Cast <to = 11> (x) b = Cast <to = 11> (y)
              c = {op} (a, b) d = Cast <to = 1> (c) z = Identity (d)
            }}"""
    )
    found = equal.prove(made, narrowed, {"x": X, "y": Y}, tolerance=0)
    assert found == {op: 1, "Identity": 1}


def test_a_root_and_a_constant() -> None:
    made = small.model(
        """g (float[n,8] x) => (float[n,8] y, float[n,8] z) {
             a = Cast <to = 11> (x) b = Sqrt (a) y = Cast <to = 1> (b)
             c = Mul (half, a) z = Cast <to = 1> (c)
           }""",
        half=np.float64(0.125),
    )
    found = equal.prove(made, narrowed, {"x": np.abs(X)}, tolerance=0, count=2)
    assert found == {"Sqrt": 1, "Mul": 1}


def test_a_constant_that_float32_does_not_hold_stays() -> None:
    made = small.model(
        """g (float[n,8] x) => (float[n,8] z) {
             a = Cast <to = 11> (x) c = Mul (a, tenth) z = Cast <to = 1> (c)
           }""",
        tenth=np.float64(0.1),
    )
    assert narrowed.apply(equal.named(made)) == 0


def test_two_operations_stay() -> None:
    """float64 rounds less: x * x / x there is no x * x / x of float32."""
    made = small.model(
        """g (float[n,8] x) => (float[n,8] z) {
             a = Cast <to = 11> (x) c = Mul (a, a) d = Div (c, a) z = Cast <to = 1> (d)
           }"""
    )
    assert narrowed.apply(equal.named(made)) == 0


@pytest.mark.parametrize(
    ("own", "code", "wide", "x"),
    [
        ("float", 1, 11, X),
        (
            "int32",
            6,
            7,
            np.random.default_rng(0).integers(-(2**31), 2**31, (4, 8)).astype(np.int32),
        ),
    ],
)
def test_what_moves_and_selects(own: str, code: int, wide: int, x: np.ndarray) -> None:
    made = small.model(
        f"""g ({own}[n,8] x) => ({own}[m,8] y, bool[m,8] p) {{
              a = Cast <to = {wide}> (x) t = Transpose (a) r = Reshape (t, sizes)
              k = Max (r, low) c = Concat <axis = 0> (k, row)
              p = Greater (c, low) y = Cast <to = {code}> (c)
            }}""",
        sizes=np.array([-1, 8]),
        low=np.array(3, np.float64 if own == "float" else np.int64),
        row=np.arange(8)[None].astype(np.float64 if own == "float" else np.int64),
    )
    x = np.where(np.isnan(x), 0, x).astype(x.dtype)  # onnxruntime's Max does not pass NaN on
    equal.named(made)
    before = small.run(made, {"x": x})
    assert narrowed.apply(made) == 5
    assert casts.apply(made) == 1
    after = small.run(made, {"x": x})
    for name, array in before.items():
        assert array.dtype == after[name].dtype
        np.testing.assert_array_equal(after[name], array)
    ops = Counter(small.ops(made))
    assert not ops["Cast"]
    assert narrowed.apply(made) == 0


def test_numbers_that_int32_does_not_hold_stay() -> None:
    made = small.model(
        """g (int32[n] x) => (bool[n] y) { a = Cast <to = 7> (x) y = Less (a, big) }""",
        big=np.int64(2**31),
    )
    assert narrowed.apply(equal.named(made)) == 0


def test_sums_of_integers_stay() -> None:
    """They overflow in int32."""
    made = small.model(
        """g (int32[n] x) => (int32[n] y) {
             a = Cast <to = 7> (x) b = Add (a, a) y = Cast <to = 6> (b)
           }"""
    )
    assert narrowed.apply(equal.named(made)) == 0
