"""Casts that come back, and clamps in a row: the same bit by bit."""

from __future__ import annotations

import equal
import numpy as np
import pytest
import small

from edgec.rules import casts, clamps

EDGES = np.float32([[0, -0.0, 1e-45, 3.4e38], [np.inf, -np.inf, np.nan, 1 + 2**-23]])


@pytest.mark.parametrize(
    ("own", "wide", "to_wide", "to_own", "x"),
    [
        ("float", "double", 11, 1, EDGES),
        ("int32", "int64", 7, 6, np.int32([[2**31 - 1, -(2**31), 0, 1]])),
        ("int32", "double", 11, 6, np.int32([[2**31 - 1, -(2**31), 0, 1]])),
        ("float16", "float", 1, 10, np.float16(EDGES[:, :3])),
    ],
)
def test_a_cast_that_comes_back(own: str, wide: str, to_wide: int, to_own: int, x: object) -> None:
    array = np.asarray(x)
    made = small.model(
        f"""g ({own}[n,m] x) => ({own}[n,m] y) {{
              i = Identity (x) w = Cast <to = {to_wide}> (i) o = Cast <to = {to_own}> (w)
              y = Identity (o)
            }}"""
    )
    found = equal.prove(made, casts, {"x": array}, tolerance=0)
    assert found == {"Identity": 2}


def test_a_cast_that_comes_back_as_an_output() -> None:
    made = small.model(
        "g (float[n,m] x) => (float[n,m] y) { w = Cast <to = 11> (x) y = Cast <to = 1> (w) }"
    )
    assert equal.prove(made, casts, {"x": EDGES}, tolerance=0) == {"Identity": 1}


@pytest.mark.parametrize(("first", "second"), [(6, 1), (10, 1), (11, 6), (9, 1)])
def test_what_loses_numbers_stays(first: int, second: int) -> None:
    """Rounding is what such a cast is for."""
    made = small.model(
        f"""g (float[n] x) => ({"int32" if second == 6 else "float"}[n] y) {{
              w = Cast <to = {first}> (x) y = Cast <to = {second}> (w)
            }}"""
    )
    assert casts.apply(equal.named(made)) == 0


@pytest.mark.parametrize(
    ("chain", "count"),
    [
        ("a = Max (x, low) y = Min (a, high)", 1),
        ("a = Min (x, high) y = Max (a, low)", 1),
        ("a = Clip (x, low, high) y = Relu (a)", 1),
        ("a = Relu (x) y = Clip (a, low, high)", 1),
        ("a = Relu (x) y = Relu (a)", 1),
        ("a = Clip (x, low, high) b = Clip (a, other, ) y = Min (b, high, other)", 2),
        ("a = Relu (x) b = Clip (a, low) c = Clip (b, , high) y = Relu (c)", 3),
    ],
)
@pytest.mark.parametrize("bounds", [(-1, 6, 2), (-5, -1, 3), (4, 2, 1), (0, 6, -3)])
def test_clamps_in_a_row(chain: str, count: int, bounds: tuple[int, int, int]) -> None:
    """Also where the bounds of one lie beyond those of the other, or are the wrong way round."""
    low, high, other = map(np.float32, bounds)
    made = small.model(
        f"g (float[n,m] x) => (float[n,m] y) {{ {chain} }}", low=low, high=high, other=other
    )
    x = np.concatenate([EDGES[:, :3], small.normal(0, 2, 9, spread=5)], axis=1)
    x[np.isnan(x)] = 0
    equal.named(made)
    before = small.run(made, {"x": x})
    assert clamps.apply(made) == count
    np.testing.assert_array_equal(small.run(made, {"x": x})["y"], before["y"])
    assert len(made.graph) == 1


def test_what_lets_infinity_pass_is_no_clip() -> None:
    made = small.model(
        "g (float[n,m] x) => (float[n,m] y) { a = Relu (x) y = Max (a, low) }", low=np.float32(2)
    )
    assert clamps.apply(equal.named(made)) == 0


def test_a_limit_per_channel_is_no_clip() -> None:
    made = small.model(
        "g (float[n,3] x) => (float[n,3] y) { a = Max (x, low) y = Min (a, high) }",
        low=np.float32([0, 1, 2]),
        high=np.float32(6),
    )
    assert clamps.apply(equal.named(made)) == 0
