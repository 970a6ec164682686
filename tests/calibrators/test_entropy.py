"""The threshold is that of the published algorithm, written out here as loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from observed import GRIDS, seen

from edgec.calibrators.entropy import EQUAL, LEVELS, bins, divergences, limits

ROUNDING = 1e-11  # nats; far below EQUAL, so that both sides see the same ties


def expanded(kept: list[int], levels: int) -> list[float]:
    """Merge bins into levels, and spread each over its bins that are not empty."""
    members: list[list[int]] = [[] for _ in range(levels)]
    for index, number in enumerate(kept):
        if number:
            members[levels * index // len(kept)].append(index)
    spread = [0.0] * len(kept)
    for level in members:
        total = sum(kept[index] for index in level)
        for index in level:
            spread[index] = total / len(level)
    return spread


def divergence(reference: list[int], candidate: list[float]) -> float:
    """KL(P, Q) in nats of two distributions that are not normalised yet."""
    p_sum, q_sum = sum(reference), math.fsum(candidate)
    terms = []
    for p, q in zip(reference, candidate, strict=True):
        if p and not q:
            return math.inf
        if p:
            terms.append(p / p_sum * math.log(p / p_sum / (q / q_sum)))
    return math.fsum(terms)


def naive(counts: list[int], end: int) -> float:
    """The divergence of the threshold that keeps `end` bins."""
    kept = [counts[1], *counts[1:end]]
    reference = [*kept[:-1], kept[-1] + sum(counts[end:])]
    if sum(number > 0 for number in kept) < LEVELS:
        return math.inf
    return divergence(reference, expanded(kept, LEVELS))


def all_naive(counts: list[int]) -> list[float]:
    """The divergence of every threshold from 128 bins on."""
    return [naive(counts, end) for end in range(LEVELS, len(counts) + 1)]


def naive_bins(counts: list[int]) -> int:
    if len(counts) <= LEVELS:
        return len(counts)
    found = all_naive(counts)
    least = min(found)
    return LEVELS + max(i for i, one in enumerate(found) if one <= least + EQUAL)


def agrees(counts: list[int]) -> int:
    """Check that both give the same; the bins that are kept."""
    kept = bins(np.array(counts, np.int64))
    assert kept == naive_bins(counts)
    if len(counts) > LEVELS:
        found, expected = divergences(np.array(counts, np.int64)), np.array(all_naive(counts))
        assert np.array_equal(np.isinf(found), np.isinf(expected))
        finite = np.isfinite(expected)
        np.testing.assert_allclose(found[finite], expected[finite], rtol=0, atol=ROUNDING)
    return kept


def test_the_example_of_the_slides() -> None:
    assert expanded([1, 0, 2, 3, 5, 3, 1, 7], 2) == [2, 0, 2, 2, 4, 4, 4, 4]


NUMBERS = st.one_of(st.just(0), st.integers(1, 3), st.integers(0, 1000), st.integers(0, 2**40))
RUNS = st.lists(st.tuples(NUMBERS, st.integers(1, 80)), min_size=1, max_size=9)


@settings(deadline=None, max_examples=50)
@given(st.lists(NUMBERS, max_size=320))
@example([0] * 300)
@example([1] * 300)
@example([0, 2**50] + [1] * 300)
@example([2**50, 0] + [1] * 300)
@example([1, 2] * 140)
@example([3, 0] * 150)
def test_it_is_the_published_algorithm_on_any_histogram(counts: list[int]) -> None:
    assert 0 < agrees([*counts, 1]) <= len(counts) + 1


@settings(deadline=None, max_examples=50)
@given(RUNS)
def test_it_is_the_published_algorithm_where_many_divergences_are_equal(
    runs: list[tuple[int, int]],
) -> None:
    agrees([*(number for number, length in runs for _ in range(length)), 1][-330:])


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(129, 360), st.floats(0.2, 4), st.integers(3, 9))
def test_it_is_the_published_algorithm_on_bells(
    seed: int, length: int, power: float, digits: int
) -> None:
    rng = np.random.default_rng(seed)
    density = np.exp(-((np.arange(length) / length * 4) ** power))
    counts = rng.poisson(10.0**digits * density / density.sum())
    agrees([*counts.tolist(), 1])


@pytest.mark.parametrize("name", ["laplace", "standard_cauchy"])
def test_it_is_the_published_algorithm_on_long_histograms(name: str) -> None:
    array = np.abs(getattr(np.random.default_rng(5), name)(size=200_000))
    counts = np.histogram(array, bins=1100, range=(0, array.max()))[0]
    assert agrees(counts.tolist()) > LEVELS


def test_all_2048_bins_have_the_divergences_of_the_definition() -> None:
    array = np.abs(np.random.default_rng(5).laplace(size=200_000))
    counts = np.histogram(array, bins=2048, range=(0, array.max()))[0]
    found = divergences(counts)
    assert len(found) == 1921
    for end in (128, 129, 255, 256, 257, 300, 777, 1023, 1024, 1025, 1500, 2047, 2048):
        assert found[end - LEVELS] == pytest.approx(naive(counts.tolist(), end), abs=ROUNDING)
    assert bins(counts) == LEVELS + np.flatnonzero(found <= found.min() + EQUAL)[-1]


def test_the_search_is_real() -> None:
    """A long thin tail is cut, at a threshold inside the candidates."""
    array = np.random.default_rng(0).standard_t(3, 400_000)
    value = seen(array)
    assert value.histogram is not None
    for grid in GRIDS:
        low, high = limits(value, grid)
        assert LEVELS * value.histogram.width < high < 0.5 * value.high
        assert low == -high


def test_zeros_alone_do_not_choose_the_threshold() -> None:
    dense = np.random.default_rng(0).laplace(0, 1, 200_000)
    plain = limits(seen(dense), GRIDS[0])
    assert limits(seen(np.append(dense, np.zeros(10**6))), GRIDS[0]) == plain


@pytest.mark.parametrize("used", [1, 2, 127])
def test_fewer_than_128_bins_are_kept_whole(used: int) -> None:
    counts = [0] * 1024 + [0] * 900
    for index in range(used):
        counts[1923 - 14 * index] = 1 + index
    assert agrees(counts) == len(counts)
    assert agrees([5] * used) == used


def test_numbers_far_from_zero_are_not_clipped_at_their_nearest() -> None:
    value = seen(np.random.default_rng(0).uniform(5, 6, 100_000))
    for grid in GRIDS:
        assert limits(value, grid) == (value.low, value.high)


def test_a_threshold_with_nothing_in_its_last_bin_is_infinitely_far() -> None:
    counts = np.array([3] * 200 + [0] * 50 + [3] * 50)
    found = divergences(counts)
    assert np.isinf(found[201 - LEVELS : 251 - LEVELS]).all()
    assert np.isfinite(np.delete(found, np.arange(201 - LEVELS, 251 - LEVELS))).all()
    agrees(counts.tolist())
