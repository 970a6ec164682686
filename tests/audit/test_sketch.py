"""What is remembered of an array, and that alike is found without comparing all at once."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.audit.checks.duplicates import BLOCK, _clusters
from edgec.audit.sketch import look


@pytest.mark.parametrize(
    ("ids", "tokens"),
    [
        ([[5, 6, 7, 0, 0, 0]], 4),
        ([[5, 6, 7, 8]], 4),
        ([[0, 0, 0]], 1),
        ([[5, 0, 0, 0], [5, 6, 7, 0]], 4),
    ],
)
def test_tokens_before_the_padding(ids: list[list[int]], tokens: int) -> None:
    assert look(np.array(ids), mask=False).tokens == tokens


def test_a_mask_keeps_what_its_longest_row_keeps() -> None:
    assert look(np.array([[1, 1, 0, 0], [1, 1, 1, 0]]), mask=True).tokens == 3
    assert look(np.zeros((1, 4), np.int64), mask=True).tokens == 0


def test_a_bag_of_ids_ignores_order_and_width() -> None:
    one = look(np.array([[4, 9, 9, 7, 0, 0, 0]]), mask=False).sketch
    other = look(np.array([[9, 4, 7, 9, 0]]), mask=False).sketch
    np.testing.assert_array_equal(one, other)
    assert (one != look(np.array([[4, 9, 8, 7, 0]]), mask=False).sketch).any()


@pytest.mark.parametrize(
    "shape", [(1, 3, 224, 224), (1, 80, 3000), (2, 16), (1, 1, 1, 1), (1, 4, 9, 30, 31), (7,), ()]
)
def test_sketches_are_small_and_keep_the_mean(shape: tuple[int, ...]) -> None:
    array = np.full(shape, 2.5, np.float32)
    sight = look(array, mask=False)
    assert sight.sketch.size <= 4096
    np.testing.assert_array_equal(sight.sketch, np.float32(2.5))
    assert (sight.low, sight.high, sight.spread) == (2.5, 2.5, 0)


def test_the_digest_tells_shape_and_type() -> None:
    arrays = [
        np.zeros((2, 3), np.float32),
        np.zeros((3, 2), np.float32),
        np.zeros((2, 3), np.int32),
    ]
    assert len({look(array, mask=False).digest for array in arrays}) == 3


def test_near_ones_are_found_across_blocks() -> None:
    generator = np.random.default_rng(0)
    rows = generator.normal(0, 1, (2 * BLOCK + 50, 48)).astype(np.float32)
    pairs = [(0, 2 * BLOCK + 3), (BLOCK - 1, BLOCK), (7, 9)]
    for one, other in pairs:
        rows[other] = rows[one] + generator.normal(0, 1e-3, 48)
    assert sorted(map(tuple, _clusters([rows]))) == sorted(pairs)
    # alike in one input alone is not alike
    assert _clusters([rows, generator.normal(0, 1, (len(rows), 8)).astype(np.float32)]) == []
