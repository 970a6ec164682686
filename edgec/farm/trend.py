"""Where a series of results changed its level, with a statistical reason.

E-divisive means (Matteson and James, "A nonparametric approach for multiple change point analysis
of multivariate data", JASA 109, 2014): the split with the largest energy distance between its sides
is a change if few permutations of the series have one as good; then each side is split again. It is
what MongoDB's and others' CI use for benchmarks (Daly et al., ICPE 2020). A run is one value:
rounds of one run share the state of the machine and are no independent samples (Kalibera and Jones,
"Rigorous benchmarking in reasonable time", ISMM 2013).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

TEST = "E-divisive means, permutation test"
LEVEL = 0.01  # as many series are looked at, night after night
EFFECT = 0.02  # a smaller change of the median is no finding, however sure it is
PERMUTATIONS = 499
LEAST = 10  # runs: of fewer, no order can be that improbable (5 and 5: 2 in 252)
SIDE = 2  # runs on a side, at least
MOST = 200  # runs that are looked at, the newest


@dataclass(frozen=True)
class Change:
    """From run `index` on, the median is `after` instead of `before`. `p`: of the permutations."""

    index: int
    before: float
    after: float
    p: float

    @property
    def factor(self) -> float:
        """The new level over the old one."""
        return self.after / self.before


def changes(values: Sequence[float], level: float = LEVEL) -> list[Change]:
    """The changes of a series of positive values, in order. Too short a series has none."""
    skipped = max(0, len(values) - MOST)
    found: list[tuple[int, float]] = []
    _bisect(np.log(np.asarray(values[skipped:], dtype=np.float64)), skipped, level, found)
    cuts = [skipped, *sorted(index for index, _ in found), len(values)]
    sure = dict(found)
    told = []
    for begin, cut, end in zip(cuts, cuts[1:], cuts[2:], strict=False):
        before, after = statistics.median(values[begin:cut]), statistics.median(values[cut:end])
        if abs(math.log(after / before)) >= math.log1p(EFFECT):
            told.append(Change(cut, before, after, sure[cut]))
    return told


def _bisect(x: np.ndarray, offset: int, level: float, found: list[tuple[int, float]]) -> None:
    if len(x) < LEAST:
        return
    distances = np.abs(x[:, None] - x[None, :])
    cut, best = _split(distances)
    random = np.random.default_rng(0)  # the same series, the same answer
    as_good = 1
    for _ in range(PERMUTATIONS):
        order = random.permutation(len(x))
        as_good += _split(distances[np.ix_(order, order)])[1] >= best - 1e-12
        if as_good > level * (1 + PERMUTATIONS):
            return
    found.append((offset + cut, as_good / (1 + PERMUTATIONS)))
    _bisect(x[:cut], offset, level, found)
    _bisect(x[cut:], offset + cut, level, found)


def _split(distances: np.ndarray) -> tuple[int, float]:
    """The best split and its statistic: the scaled energy distance of both sides."""
    n = len(distances)
    sums = distances.cumsum(axis=0).cumsum(axis=1)
    cut = np.arange(SIDE, n - SIDE + 1)
    left = sums[cut - 1, cut - 1] / 2
    across = sums[cut - 1, n - 1] - sums[cut - 1, cut - 1]
    right = sums[n - 1, n - 1] / 2 - left - across
    a, b = cut, n - cut
    energy = 2 * across / (a * b) - 2 * left / (a * (a - 1)) - 2 * right / (b * (b - 1))
    scaled = energy * a * b / (a + b)
    place = int(np.argmax(scaled))
    return int(cut[place]), float(scaled[place])
