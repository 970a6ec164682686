"""Numbers: shapes, dtypes, constants."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgec.errors import InputError
from edgec.runtime.read_numbers import NumbersReader


def reader(shape: list[int | None], dtype: str = "float32", **changed: Any) -> NumbersReader:
    inputs = {"numbers": {"name": "x", "dtype": dtype, "layout": "as given"}}
    page = {"kind": "numbers", "column": "x", "inputs": inputs, "shape": shape, **changed}
    return NumbersReader(page, lambda _: b"")


@pytest.mark.parametrize(
    ("shape", "item", "wanted"),
    [
        ([None, 3], [1, 2, 3], [[1, 2, 3]]),
        ([None, 3], [[1, 2, 3]], [[1, 2, 3]]),
        ([None, 3], "[1, 2, 3.5]", [[1, 2, 3.5]]),
        ([1], 7, [7]),
        ([], 7, 7),
        ([], "7", 7),
        ([1, None, 2], np.ones((4, 2)), np.ones((1, 4, 2))),
    ],
)
def test_shapes(shape: list[int | None], item: Any, wanted: Any) -> None:
    found = reader(shape).read(item, "it")["x"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.float32(wanted), strict=True)


@pytest.mark.parametrize(
    ("dtype", "item", "ok"),
    [
        ("int64", [1, 2], True),
        ("int64", [1.0, 2.0], True),
        ("int64", [1.5, 2.0], False),
        ("uint8", [1, 255], True),
        ("uint8", [1, 256], False),
        ("uint8", [-1, 2], False),
        ("bool", [True, False], True),
        ("bool", [1, 0], True),
        ("bool", [2, 0], False),
        ("float16", [1, 1e5], False),
        ("float32", [1, float("nan")], False),
        ("float32", "[1, NaN]", False),
        ("float32", "[1, 1e999]", False),
    ],
)
def test_dtypes(dtype: str, item: Any, ok: bool) -> None:
    if ok:
        found = reader([2], dtype).read(item, "it")["x"]
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, np.array(item))
        return
    with pytest.raises(InputError, match=f"it: numbers that {dtype} does not hold"):
        reader([2], dtype).read(item, "it")


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ([1, 2, 3, 4], r"shape \[1, 4\], the input wants \?x3"),
        ([[[1, 2, 3]]], r"shape \[1, 1, 3\]"),
        ([[1, 2, 3], [4, 5]], "inhomogeneous"),
        ("[1, 2", "no numbers in JSON"),
        ("[" * 100_000, "no numbers in JSON"),
        ('"red"', "no numbers in JSON|not numbers"),
        ("red", "no numbers in JSON"),
        ({"a": 1}, "not numbers"),
        (["a", "b", "c"], "not numbers"),
        (None, "not numbers"),
        ([10**30, 1, 2], "not numbers"),
    ],
)
def test_items_that_are_no_numbers(item: Any, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        reader([None, 3]).read(item, "it")
    assert caught.value.message.startswith("it: ")
    assert "a list of numbers" in caught.value.hint


def test_a_constant() -> None:
    found = reader([2, 1, 3], value=0.5)
    first, second = found.read(None, "it")["x"], found.read(None, "it")["x"]
    np.testing.assert_array_equal(first, np.full((2, 1, 3), 0.5, np.float32), strict=True)
    first[:] = 9
    assert (second == 0.5).all()
    assert (found.read(None, "it")["x"] == 0.5).all()


@pytest.mark.parametrize(
    ("shape", "dtype", "value", "words"),
    [
        ([None, 3], "float32", 0, "'x' is not fixed in shape"),
        ([2], "int64", 0.5, "value: numbers that int64 does not hold"),
        ([2], "float16", 1e9, "value: numbers that float16 does not hold"),
        ([2], "int64", 10**29, "value: "),
        ([1 << 20, 1 << 20], "int8", 0, "are too many"),
        ([1 << 30] * 32, "int8", 0, "are too many"),
    ],
)
def test_constants_that_cannot_be(shape: Any, dtype: str, value: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        reader(shape, dtype, value=value)
