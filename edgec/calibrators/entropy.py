"""The threshold that loses the least information, by the histogram of |x|.

    P = bin[0 .. i), with all numbers beyond i added to its last bin
    Q = bin[0 .. i), merged into 128 levels, each spread evenly over its bins that are not empty
    threshold = i * width for the i of 128, 129, .. bins with the least KL(P / sum P, Q / sum Q)

Source: Migacz, "8-bit Inference with TensorRT", GTC 2017, "Entropy Calibration - pseudocode". What
the slides leave open is as in `_compute_amax_entropy` of NVIDIA's pytorch-quantization: bin j goes
to level floor(128 j / i); nothing is smoothed, so that KL is infinite where Q alone is empty; the
first bin, which holds the zeros that every grid has, counts as much as the second; of equal
divergences the widest range wins; the threshold is the edge of bin i (the slides add half a bin).

Two things are our own. Divergences are equal when less than 1e-9 nats apart, far above the rounding
of the sums. And KL is infinite below 128 bins in use, which 128 levels express without a loss: else
numbers between 5 and 6 would be clipped at 5, where P and Q are one and the same bin.
"""

from __future__ import annotations

import functools

import numpy as np

from edgec.calibrators.span import whole, within
from edgec.histogram import BINS, magnitudes
from edgec.types import Grid, ValueStatistics

LEVELS = 128
EQUAL = 1e-9  # nats
ROWS = 128  # candidates at a time, so that they stay in the cache


def limits(value: ValueStatistics, grid: Grid) -> tuple[float, float]:
    """Clips at -T and T. The extremes without a histogram, or with fewer than 128 bins in use."""
    if value.histogram is None or not value.histogram.counts.any():
        return whole(value)
    threshold = bins(magnitudes(value.histogram)) * value.histogram.width
    return within(value, -threshold, threshold)


def bins(counts: np.ndarray) -> int:
    """How many bins of |x| to keep. `counts`: int64 [bins], at most 2048, the last not empty."""
    if len(counts) <= LEVELS:
        return len(counts)
    found = divergences(counts)
    return LEVELS + int(np.flatnonzero(found <= found.min() + EQUAL)[-1])


def divergences(counts: np.ndarray) -> np.ndarray:
    """KL in nats for 128, 129, .. bins of `counts`, float64 [bins - 127].

    With c the counts, C the sum of c below i, E the sum of c ln c below i - 1, b the last bin, N
    the sum of all, O = N - C the numbers beyond, S and n a level's sum and number of used bins:
        N KL = E + (b + O) ln (b + O) - sum S ln (S / n) - O ln (S / n of the last) + N ln (C / N)
    """
    counts = np.concatenate([counts[1:2], counts[1:]]).astype(np.float64)
    below, used, informed = (
        np.concatenate([[0.0], np.cumsum(c)]) for c in (counts, counts > 0, _c_ln_c(counts))
    )
    ends = np.arange(LEVELS, len(counts) + 1)
    merged, top = np.empty(len(ends)), np.empty(len(ends))
    for start in range(0, len(ends), ROWS):
        rows = slice(start, start + ROWS)
        bounds = _bounds()[: len(ends)][rows]
        mass, spread = (np.diff(c.take(bounds, mode="clip")) for c in (below, used))
        logarithms = np.maximum(mass, 1)
        logarithms /= np.maximum(spread, 1, out=spread)
        np.log(logarithms, out=logarithms)
        merged[rows] = np.einsum("ij,ij->i", mass, logarithms)
        top[rows] = logarithms[:, -1]
    last, beyond, total = counts[ends - 1], below[-1] - below[ends], below[-1]
    reference = informed[ends - 1] + _c_ln_c(last + beyond)
    kept = np.log(np.maximum(below[ends], 1) / total)
    known = (used[ends] >= LEVELS) & ((last > 0) | (beyond == 0))
    return np.where(known, (reference - merged - beyond * top) / total + kept, np.inf)


def _c_ln_c(counts: np.ndarray) -> np.ndarray:
    return np.asarray(counts * np.log(np.maximum(counts, 1)))


@functools.cache
def _bounds() -> np.ndarray:
    """The bins at which the 128 levels of i = 128 .. 2048 bins begin and end, [1921, 129]."""
    return -(-np.arange(LEVELS + 1) * np.arange(LEVELS, BINS + 1)[:, None] // LEVELS)
