"""A histogram is a function of the numbers: no order, no batches, no pass can change it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from observed import numbers

from edgec.histogram import (
    BINS,
    COARSEST,
    EMPTY,
    FINEST,
    count,
    edges,
    exponent_of,
    magnitudes,
    merge,
    trimmed,
)
from edgec.types import Histogram

HIGHEST = float(np.finfo(np.float32).max)
SMALLEST = float(np.finfo(np.float32).smallest_subnormal)
HOSTILE = np.array([HIGHEST, -HIGHEST, SMALLEST, -SMALLEST, 0.0, -0.0, 1.0], np.float32)


def same(one: Histogram, other: Histogram) -> bool:
    return (one.exponent, one.first, one.counts.tolist()) == (
        other.exponent,
        other.first,
        other.counts.tolist(),
    )


def naive(array: np.ndarray) -> dict[int, int]:
    """Counts by bin, in exact fractions, straight from the definition."""
    exponent = FINEST
    exact = [Fraction(float(x)) for x in array.ravel()]
    while any(abs(x) / Fraction(2) ** exponent >= BINS for x in exact):
        exponent += 1
    found: dict[int, int] = {}
    for x, negative in zip(exact, np.signbit(array.ravel()), strict=True):
        whole = int(abs(x) / Fraction(2) ** exponent)
        index = -1 - whole if negative else whole
        found[index] = found.get(index, 0) + 1
    return found


@settings(deadline=None)
@given(numbers())
@example(HOSTILE)
def test_every_number_is_in_the_bin_of_the_definition(array: np.ndarray) -> None:
    found = count(array)
    used = found.first + np.flatnonzero(found.counts)
    assert dict(zip(used.tolist(), found.counts[found.counts > 0].tolist(), strict=True)) == naive(
        array
    )
    assert found.counts[0] > 0
    assert found.counts[-1] > 0
    assert found.counts.dtype == np.int64


@settings(deadline=None)
@given(numbers(), st.randoms(use_true_random=False))
@example(HOSTILE, None)
def test_the_order_and_the_shape_do_not_matter(array: np.ndarray, shuffle: object) -> None:
    order = list(range(array.size))
    if shuffle is not None:
        shuffle.shuffle(order)  # type: ignore[attr-defined]
    assert same(count(array), count(array[order][::-1].reshape(1, -1)))


@settings(deadline=None)
@given(st.lists(numbers(20), min_size=1, max_size=5))
def test_merging_is_counting_all_at_once(batches: list[np.ndarray]) -> None:
    merged = EMPTY
    for one in batches:
        merged = merge(merged, count(one))
    assert same(merged, count(np.concatenate(batches)))


@settings(deadline=None)
@given(numbers(20), numbers(20), numbers(20))
@example(HOSTILE[:1], HOSTILE[2:3], HOSTILE[4:5])
def test_merging_commutes_and_associates(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    one, two, three = count(a), count(b), count(c)
    assert same(merge(one, two), merge(two, one))
    assert same(merge(merge(one, two), three), merge(one, merge(two, three)))
    assert same(merge(one, EMPTY), one)


@settings(deadline=None)
@given(numbers(), st.integers(-20, 20))
def test_scaling_by_a_power_of_two_moves_the_exponent_alone(array: np.ndarray, power: int) -> None:
    array = np.clip(array, -1e9, 1e9)
    array[np.abs(array) < 1e-9] = 1  # stay clear of the finest and the coarsest bins
    found, moved = count(array), count(array * np.float32(2.0**power))
    assert same(moved, Histogram(found.exponent + power, found.first, found.counts))


@settings(deadline=None)
@given(numbers())
@example(HOSTILE)
def test_edges_hold_the_numbers_and_their_extremes(array: np.ndarray) -> None:
    found = count(array)
    bounds = edges(found)
    assert len(bounds) == len(found.counts) + 1
    assert np.array_equal(np.diff(bounds), np.full(len(found.counts), found.width))
    assert bounds[0] <= array.min() <= bounds[1]
    assert bounds[-2] <= array.max() <= bounds[-1]


@settings(deadline=None)
@given(numbers())
@example(HOSTILE)
def test_magnitudes_are_the_histogram_of_absolute_numbers(array: np.ndarray) -> None:
    found, absolute = count(array), count(np.abs(array))
    counts = magnitudes(found)
    assert counts.dtype == np.int64
    assert counts[-1] > 0
    assert np.array_equal(counts[absolute.first :], absolute.counts)
    assert not counts[: absolute.first].any()


@pytest.mark.parametrize(
    ("magnitude", "exponent"),
    [
        (0.0, FINEST),
        (SMALLEST, FINEST),
        (2.0**-89, FINEST + 1),
        (np.nextafter(np.float32(2.0**-89), np.float32(0)), FINEST),
        (1.0, -10),
        (np.nextafter(np.float32(1), np.float32(0)), -11),
        (2047.0, 0),
        (2048.0, 1),
        (HIGHEST, COARSEST),
    ],
)
def test_the_finest_bins_that_hold_a_number(magnitude: float, exponent: int) -> None:
    assert exponent_of(float(magnitude)) == exponent
    assert float(magnitude) / 2.0**exponent < BINS


@pytest.mark.parametrize("number", [1.0, -1.0, 3.25e-5, HIGHEST, -HIGHEST, 2.0**-89])
def test_one_number_has_one_bin_of_1024_to_2048(number: float) -> None:
    found = count(np.array([number] * 3, np.float32))
    assert found.counts.tolist() == [3]
    used = found.first if number > 0 else ~found.first
    assert 1024 <= used < BINS


def test_both_zeros_count_once_as_a_magnitude() -> None:
    found = count(np.array([0.0, -0.0, -0.0], np.float32))
    assert (found.exponent, found.first, found.counts.tolist()) == (FINEST, -1, [2, 1])
    assert magnitudes(found).tolist() == [3]


def test_subnormals_fall_into_the_bins_next_to_zero() -> None:
    found = count(np.array([SMALLEST, -SMALLEST], np.float32))
    assert (found.first, found.counts.tolist()) == (-1, [1, 1])


def test_one_side_needs_bins_on_that_side_alone() -> None:
    found = count(np.linspace(0, 1, 5000, dtype=np.float32))
    assert (found.first, len(found.counts)) == (0, 1025)
    assert magnitudes(found).tolist() == found.counts.tolist()
    mirrored = count(-np.linspace(0, 1, 5000, dtype=np.float32))
    assert mirrored.first + len(mirrored.counts) == 0
    assert magnitudes(mirrored).tolist() == found.counts.tolist()


def test_nothing_is_the_empty_histogram() -> None:
    nothing = count(np.zeros((0, 3), np.float32))
    for found in (nothing, merge(EMPTY, EMPTY), trimmed(5, np.zeros(2 * BINS))):
        assert same(found, EMPTY)
    assert magnitudes(EMPTY).tolist() == [0]
    assert edges(EMPTY).tolist() == [0.0]


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(1, 7))
def test_many_numbers_in_batches(seed: int, batches: int) -> None:
    rng = np.random.default_rng(seed)
    array = (rng.standard_t(2, 5000) * 10.0 ** rng.integers(-20, 20)).astype(np.float32)
    merged = EMPTY
    for one in np.array_split(array, batches):
        merged = merge(count(one), merged)
    assert same(merged, count(array))
    assert merged.counts.sum() == array.size
