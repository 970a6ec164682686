"""Every method gives a range that is safe to quantize in, whatever was seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from observed import GRIDS, NEVER, numbers, seen

from edgec.calibrators import FROM_HISTOGRAMS, METHODS, limits
from edgec.errors import InternalError
from edgec.quantize.static import affine
from edgec.types import Grid, Method, Statistics, ValueStatistics

HIGHEST = np.finfo(np.float32).max
SMALLEST = np.finfo(np.float32).smallest_subnormal


def of(value: ValueStatistics, method: Method, grid: Grid) -> tuple[float, float]:
    return limits(Statistics({"x": value}, ("f",)), "x", method, grid)


def test_every_method_has_a_file() -> None:
    assert set(METHODS) == set(Method)
    for method, function in METHODS.items():
        assert function.__module__ == f"edgec.calibrators.{method}"


@settings(deadline=None)
@given(
    st.lists(numbers(40), min_size=1, max_size=3),
    st.sampled_from(list(Method)),
    st.sampled_from(GRIDS),
)
@example([np.array([HIGHEST, -HIGHEST, 0], np.float32)], Method.MSE, GRIDS[0])
@example([np.array([HIGHEST, -HIGHEST, 0], np.float32)], Method.ENTROPY, GRIDS[1])
@example([np.array([SMALLEST, -SMALLEST], np.float32)], Method.MSE, GRIDS[0])
@example([np.array([-0.0], np.float32)], Method.PERCENTILE, GRIDS[1])
def test_a_range_lies_in_what_was_seen_and_around_zero(
    samples: list[np.ndarray], method: Method, grid: Grid
) -> None:
    value = seen(*samples)
    low, high = of(value, method, grid)
    assert value.low <= low <= high <= value.high
    if value.low <= 0 <= value.high:
        assert low <= 0 <= high
    scale = affine(low, high, grid).scale
    assert np.isfinite(scale)
    assert scale > 0


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("method", list(Method))
@pytest.mark.parametrize("offset", [0.0, 5.0, -5.0])
def test_a_dense_value_on_one_side_or_both(method: Method, grid: Grid, offset: float) -> None:
    """More than 128 bins in use, so that every method really chooses."""
    value = seen(np.random.default_rng(1).normal(offset, 1, 50_000))
    low, high = of(value, method, grid)
    assert value.low <= low < high <= value.high
    assert low < offset - 1.5
    assert high > offset + 1.5


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("method", list(Method))
@pytest.mark.parametrize("number", [0.0, 2.0, -2.0, 1e-30, 1e-45, HIGHEST])
def test_a_constant_has_itself_as_range(method: Method, grid: Grid, number: float) -> None:
    value = seen(np.full(9, number))
    assert of(value, method, grid) == (value.low, value.high)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("method", list(Method))
def test_a_value_that_had_no_number_gets_a_safe_range(method: Method, grid: Grid) -> None:
    for value in (NEVER, replace(NEVER, histogram=None)):
        assert of(value, method, grid) == (0.0, 0.0)
        assert METHODS[method](value, grid) == (0.0, 0.0)
    assert affine(0.0, 0.0, grid).scale == 1


@pytest.mark.parametrize("method", list(Method))
def test_a_value_that_was_not_observed_is_our_defect(method: Method) -> None:
    with pytest.raises(InternalError, match="'x' was never observed"):
        limits(Statistics(), "x", method, GRIDS[0])


@pytest.mark.parametrize("method", list(Method))
def test_a_method_without_its_histogram_is_our_defect(method: Method) -> None:
    value = replace(seen(np.array([-1.0, 2.0])), histogram=None)
    assert METHODS[method](value, GRIDS[0]) == (-1.0, 2.0)
    if method in FROM_HISTOGRAMS:
        with pytest.raises(InternalError, match=f"without a histogram: {method} needs it"):
            of(value, method, GRIDS[0])
    else:
        assert of(value, method, GRIDS[0]) == (-1.0, 2.0)
