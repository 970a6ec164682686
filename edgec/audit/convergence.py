"""How many samples are enough: how far the ranges of the first n are from those of all.

For a value v and an order of the N samples, range(n) = max of the first n highs - min of the first
n lows; gap(n, v) = 1 - range(n) / range(N), averaged over seeded orders, so that the order of files
does not decide. It never grows with n and is 0 at N, so that N samples can judge numbers up to
N / 2: the other half stands for samples that nobody has seen. A sample in which a value is empty or
not finite adds nothing to the range of that value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgec.audit.extremes import Extremes

ORDERS = 16
STILL = 0.05  # the gap below which a range counts as settled
WORST = 0.9  # the quantile of values that must be
LEAST = 8  # samples, below which nothing is said


@dataclass(frozen=True)
class Curve:
    """`median` and `worst` (the 90 % quantile over values) float64 [samples]: the gap at 1 … N.

    `enough`: the least n whose worst gap is below 5 %, if that is at most half of N; else 0. No
    values, or fewer than two samples: empty arrays.
    """

    samples: int
    values: int
    median: np.ndarray
    worst: np.ndarray
    enough: int

    @property
    def points(self) -> tuple[int, ...]:
        """1, 2, 4, … and N."""
        powers = [1 << k for k in range(self.samples.bit_length()) if 1 << k < self.samples]
        return (*powers, self.samples) if len(self.median) else ()


def converge(found: Extremes) -> Curve:
    """The curve; values that never vary are left out."""
    low, high = np.where(found.seen, found.low, np.inf), np.where(found.seen, found.high, -np.inf)
    count = len(low)
    empty = np.empty(0)
    if count < 2 or not found.values:
        return Curve(count, 0, empty, empty, 0)
    whole = high.max(axis=0) - low.min(axis=0)
    low, high, whole = low[:, whole > 0], high[:, whole > 0], whole[whole > 0]
    if not len(whole):
        return Curve(count, 0, empty, empty, 0)
    generator = np.random.default_rng(0)
    gap = np.zeros_like(low)
    for _ in range(ORDERS):
        order = generator.permutation(count)
        upto = np.maximum.accumulate(high[order]) - np.minimum.accumulate(low[order])
        gap += (1 - np.maximum(upto, 0) / whole) / ORDERS  # -inf: of nothing yet
    worst = np.quantile(gap, WORST, axis=1)
    first = int(np.argmax(worst < STILL)) + 1
    enough = first if count >= LEAST and first <= count // 2 else 0
    return Curve(count, len(whole), np.median(gap, axis=1), worst, enough)
