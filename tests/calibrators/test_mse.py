"""The MSE range costs what the emitted grid costs, and no other range costs clearly less."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from observed import ASYMMETRIC, GRIDS, SYMMETRIC, error, seen

from edgec.calibrators.mse import Moments, limits
from edgec.histogram import edges
from edgec.types import Grid, Histogram, ValueStatistics

RNG = np.random.default_rng(0)
ARRAYS = {
    "normal": RNG.normal(0, 1, 50_000),
    "laplace": RNG.laplace(0, 1, 50_000),
    "relu": np.maximum(RNG.laplace(0, 1, 50_000), 0),
    "relu6": np.clip(RNG.normal(0, 3, 50_000), 0, 6),
    "heavy": RNG.standard_t(3, 50_000),
    "gelu": (lambda x: x / (1 + np.exp(-1.702 * x)))(RNG.normal(0, 2, 50_000)),
    "one outlier": np.append(RNG.normal(0, 1, 50_000), -60.0),
    "two outliers": np.append(RNG.normal(0, 1, 50_000), [-40.0, 100.0]),
    "positive": RNG.uniform(5, 6, 50_000),
    "negative": -RNG.exponential(1, 50_000),
}


def histograms() -> st.SearchStrategy[Histogram]:
    counts = st.lists(
        st.one_of(st.just(0), st.integers(1, 9), st.integers(1, 10**9)), min_size=1, max_size=200
    )
    return st.builds(
        lambda c, first, exponent: Histogram(exponent, first, np.array([1, *c, 1])),
        counts,
        st.integers(-300, 300),
        st.sampled_from([-100, -7, 0, 117]),
    )


def of(found: Histogram) -> ValueStatistics:
    bounds = edges(found)
    return ValueStatistics(float(bounds[0]), float(bounds[-1]), 1, histogram=found)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", ARRAYS)
def test_no_range_is_clearly_better(name: str, grid: Grid) -> None:
    value = seen(ARRAYS[name])
    found = value.histogram
    assert found is not None
    low, high = min(value.low, 0.0), max(value.high, 0.0)
    ratios = np.geomspace(1, 0.03, 40)
    if grid.symmetric_activations:
        most = max(-low, high)
        ranges = [(-most * r, most * r) for r in ratios if most * r / 127 >= found.width]
    else:
        ranges = [(low * a, high * b) for a in ratios for b in ratios]
        ranges = [(a, b) for a, b in ranges if (b - a) / 255 >= found.width]
    least = min(error(found, *one, grid) for one in [*ranges, (value.low, value.high)])
    assert error(found, *limits(value, grid), grid) <= 1.02 * least


@settings(deadline=None)
@given(histograms(), st.sampled_from(GRIDS))
def test_it_is_never_worse_than_the_whole_range(found: Histogram, grid: Grid) -> None:
    value = of(found)
    whole = error(found, value.low, value.high, grid)
    assert error(found, *limits(value, grid), grid) <= whole * (1 + 1e-4)


@settings(deadline=None)
@given(
    histograms(),
    st.sampled_from(GRIDS),
    st.lists(st.tuples(st.floats(0, 900), st.floats(0, 900)), min_size=1, max_size=5),
)
def test_the_errors_are_those_of_rounding_and_clipping(
    found: Histogram, grid: Grid, ranges: list[tuple[float, float]]
) -> None:
    ranges = [(600.0, 600.0), *((a, b) for a, b in ranges if max(a, b) > 256)]
    lows, highs = (np.array(side) for side in zip(*((-a, b) for a, b in ranges), strict=True))
    errors = Moments.of(found).errors(lows, highs, grid)
    total = found.counts.sum()
    for one, low, high in zip(errors, lows, highs, strict=True):
        if np.isfinite(one):
            direct = error(found, low * found.width, high * found.width, grid) * total
            assert one * found.width**2 == pytest.approx(
                direct, rel=1e-3
            )  # the grid's scale is float32
        else:
            assert high - low < 255


def test_levels_are_never_finer_than_bins() -> None:
    """Nearly all numbers in one bin: finer levels would fit its centre, which says nothing."""
    array = np.append(np.full(10**6, 0.01), 1.0)
    for grid in GRIDS:
        value = seen(array)
        assert value.histogram is not None
        levels = 127 if grid.symmetric_activations else 255
        assert limits(value, grid)[1] >= levels * value.histogram.width


def test_a_rare_end_shrinks_and_a_dense_one_stays() -> None:
    value = seen(np.append(np.random.default_rng(0).uniform(0, 50, 10**6), -50.0))
    found = value.histogram
    assert found is not None
    low, high = limits(value, ASYMMETRIC)
    assert -20 < low < 0
    assert high == value.high
    joint = [error(found, value.low * r, value.high * r, ASYMMETRIC) for r in np.geomspace(1, 0.3)]
    assert error(found, low, high, ASYMMETRIC) < 0.6 * min(joint)


def test_a_symmetric_grid_has_one_threshold() -> None:
    low, high = limits(seen(ARRAYS["one outlier"]), SYMMETRIC)
    assert -55 < low < -40
    assert high == float(np.float32(ARRAYS["one outlier"].max()))


def test_the_whole_range_stays_where_it_is_best() -> None:
    for name in ("relu6", "positive"):
        value = seen(ARRAYS[name])
        for grid in GRIDS:
            assert limits(value, grid) == (value.low, value.high)
