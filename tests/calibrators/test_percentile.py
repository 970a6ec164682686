"""The percentile is numpy's within a bin, and never cuts more than it may."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from observed import ASYMMETRIC, GRIDS, SYMMETRIC, seen

from edgec.calibrators.percentile import ONE_IN, limits
from edgec.histogram import edges
from edgec.types import Grid, Histogram, ValueStatistics


@pytest.mark.parametrize("name", ["normal", "laplace", "exponential"])
def test_both_ends_are_those_of_numpy(name: str) -> None:
    array = getattr(np.random.default_rng(0), name)(size=200_000).astype(np.float32)
    value = seen(array)
    assert value.histogram is not None
    width = value.histogram.width
    ordered = np.sort(array)  # 10 of 200,000 may lie outside at either end
    assert limits(value, ASYMMETRIC) == pytest.approx((ordered[10], ordered[-11]), abs=width)
    threshold = np.sort(np.abs(array))[-21]
    low, high = limits(value, SYMMETRIC)
    assert high == pytest.approx(threshold, abs=width)
    assert low == pytest.approx(max(-threshold, value.low), abs=width)


def test_an_outlier_is_cut() -> None:
    array = np.append(np.random.default_rng(0).normal(0, 1, 1_000_000), 100.0)
    for grid in GRIDS:
        low, high = limits(seen(array), grid)
        assert 3.5 < high < 4.5
        assert -4.5 < low < -3.5


@pytest.mark.parametrize(("outliers", "kept"), [(4, False), (5, False), (6, True)])
def test_one_number_in_ten_thousand_is_cut_and_not_one_more(outliers: int, kept: bool) -> None:
    """5 of 100,000 at either end is what asymmetric grids may lose; symmetric ones 10 in all."""
    bulk = np.linspace(-1, 1, 100_000 - 2 * outliers)
    value = seen(np.concatenate([bulk, [-9.0] * outliers, [9.0] * outliers]))
    for grid in (ASYMMETRIC, SYMMETRIC):
        low, high = limits(value, grid)
        assert (low == -9.0) is kept
        assert (high == 9.0) is kept


@settings(deadline=None)
@given(
    st.lists(st.one_of(st.just(0), st.integers(0, 10**6)), min_size=1, max_size=300),
    st.integers(-200, 200),
    st.sampled_from(GRIDS),
)
def test_what_is_cut_is_at_most_its_share(counts: list[int], first: int, grid: Grid) -> None:
    counts[0] = counts[0] or 1
    counts[-1] = counts[-1] or 1
    found = Histogram(-3, first, np.array(counts))
    bounds = edges(found)
    value = ValueStatistics(float(bounds[0]), float(bounds[-1]), 1, histogram=found)
    low, high = limits(value, grid)
    outside = int(found.counts[(bounds[1:] <= low) | (bounds[:-1] >= high)].sum())
    assert outside * ONE_IN <= found.counts.sum()
    assert {low, high} <= {*bounds.tolist(), *(-bounds).tolist(), 0.0}
