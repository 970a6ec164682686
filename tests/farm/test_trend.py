"""A change of level is found where there is one, and not where there is none."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from edgec.farm.compare import mann_whitney
from edgec.farm.trend import LEAST, MOST, SIDE, _split, changes


def noisy(seed: int, *levels: tuple[float, int], spread: float = 0.02) -> list[float]:
    rng = np.random.default_rng(seed)
    return [float(level * math.exp(rng.normal(0, spread))) for level, n in levels for _ in range(n)]


def test_a_step_is_found_at_its_place() -> None:
    (change,) = changes(noisy(0, (10.0, 15), (12.0, 12)))
    assert change.index == 15
    assert change.factor == pytest.approx(1.2, rel=0.03)
    assert change.p <= 0.01


def test_two_steps_are_found() -> None:
    found = changes(noisy(1, (10.0, 12), (14.0, 12), (11.0, 12)))
    assert [change.index for change in found] == [12, 24]
    assert [change.factor > 1 for change in found] == [True, False]


def test_noise_alone_is_rarely_a_change() -> None:
    """The level is 1 %: of 60 series without a change hardly one may have one."""
    alarms = sum(bool(changes(noisy(seed, (10.0, 20)))) for seed in range(60))
    assert alarms <= 3  # binomial(60, 0.01): more have a chance of 0.3 %


def test_a_small_effect_is_none_however_sure() -> None:
    assert changes(noisy(2, (10.0, 40), (10.1, 40), spread=0.001)) == []


def test_an_outlier_is_no_level() -> None:
    assert changes([10.0, 10.1, 9.9, 10.0, 10.2, 30.0, 10.1, 9.8, 10.0, 10.1, 9.9, 10.0]) == []


def test_short_series_are_not_judged() -> None:
    assert changes([]) == changes([1.0]) == []
    assert changes([10.0] * (LEAST // 2) + [99.0] * (LEAST // 2 - 1)) == []
    assert changes([10.0] * (LEAST // 2 + 2) + [99.0] * (LEAST // 2 + 2)) != []


def test_a_long_series_is_looked_at_from_its_end() -> None:
    (change,) = changes(noisy(3, (10.0, 100), (20.0, MOST)) + noisy(4, (30.0, 30)))
    assert change.index == 100 + MOST
    assert change.factor == pytest.approx(1.5, rel=0.05)


def test_the_statistic_is_the_energy_distance() -> None:
    x = np.random.default_rng(5).random(11)
    distances = np.abs(x[:, None] - x[None, :])
    by_hand = {}
    for cut in range(SIDE, len(x) - SIDE + 1):
        a, b = x[:cut], x[cut:]
        across = np.abs(a[:, None] - b[None, :]).mean()
        within = [
            np.mean([abs(one - two) for one, two in itertools.combinations(side, 2)])
            for side in (a, b)
        ]
        by_hand[cut] = len(a) * len(b) / len(x) * (2 * across - sum(within))
    best = max(by_hand, key=by_hand.__getitem__)
    assert _split(distances) == (best, pytest.approx(by_hand[best]))


def test_mann_whitney_by_hand() -> None:
    assert mann_whitney([1, 2, 3, 4], [5, 6, 7, 8]) == pytest.approx(2 / 70)
    assert mann_whitney([1, 2, 3], [4, 5, 6]) == pytest.approx(0.1)
    assert mann_whitney([1, 3, 5], [2, 4, 6]) == pytest.approx(0.7)
    assert mann_whitney([1, 1, 1], [1, 1, 1]) == 1.0


def test_mann_whitney_with_ties_is_the_permutation_test() -> None:
    a, b = [1.0, 2.0, 2.0, 5.0], [2.0, 4.0, 5.0, 5.0, 7.0]
    both = np.array(a + b)
    ranks = np.array([(both < x).sum() + ((both == x).sum() + 1) / 2 for x in both])
    mean = len(a) * ranks.mean()
    sums = [
        ranks[list(chosen)].sum() for chosen in itertools.combinations(range(len(both)), len(a))
    ]
    far = abs(ranks[: len(a)].sum() - mean)
    assert mann_whitney(a, b) == pytest.approx(np.mean([abs(s - mean) >= far - 1e-9 for s in sums]))


def test_mann_whitney_agrees_with_the_normal_approximation() -> None:
    a, b = noisy(6, (10.0, 50)), noisy(7, (10.15, 50))
    u = sum((x > y) + (x == y) / 2 for x in a for y in b)
    z = (abs(u - 1250) - 0.5) / math.sqrt(50 * 50 * 101 / 12)
    assert mann_whitney(a, b) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=0.05)
