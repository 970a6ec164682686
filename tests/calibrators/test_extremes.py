"""The two methods that need no histogram: the extremes, and their averages."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from observed import ASYMMETRIC, numbers, seen

from edgec.calibrators import minmax, moving_average

SAMPLES = (np.array([-1.0, 3.0]), np.array([-2.0, 9.0]), np.array([-6.0, 3.0]))


def test_the_extremes_are_those_of_all_samples() -> None:
    assert minmax.limits(seen(*SAMPLES), ASYMMETRIC) == (-6.0, 9.0)


def test_the_averages_are_those_of_each_sample() -> None:
    assert moving_average.limits(seen(*SAMPLES), ASYMMETRIC) == (-3.0, 5.0)


def test_zero_stays_inside_the_averages() -> None:
    value = seen(np.array([-1.0, 2.0]), np.array([5.0, 6.0]))
    assert value.mean_low == 2.0
    assert moving_average.limits(value, ASYMMETRIC) == (0.0, 4.0)
    positive = seen(np.array([1.0, 2.0]), np.array([5.0, 6.0]))
    assert moving_average.limits(positive, ASYMMETRIC) == (3.0, 4.0)


def test_without_averages_there_are_the_extremes() -> None:
    value = replace(seen(*SAMPLES), mean_low=math.nan)
    assert moving_average.limits(value, ASYMMETRIC) == (-6.0, 9.0)


@settings(deadline=None)
@given(st.lists(numbers(9), min_size=1, max_size=5))
def test_one_sample_or_equal_ones_have_their_extremes(samples: list[np.ndarray]) -> None:
    value = seen(samples[0], samples[0])
    assert moving_average.limits(value, ASYMMETRIC) == minmax.limits(value, ASYMMETRIC)
    low, high = moving_average.limits(seen(*samples), ASYMMETRIC)
    twin_low, twin_high = moving_average.limits(seen(*reversed(samples)), ASYMMETRIC)
    assert math.isclose(low, twin_low, rel_tol=1e-9, abs_tol=1e-9 * value_span(samples))
    assert math.isclose(high, twin_high, rel_tol=1e-9, abs_tol=1e-9 * value_span(samples))


def value_span(samples: list[np.ndarray]) -> float:
    return max(float(np.abs(a).max()) for a in samples)
