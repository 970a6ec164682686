"""Histograms that do not depend on order: counts over bins whose width is a power of two.

    bin(x) = trunc(|x| / 2**e) for x >= 0, and -1 - trunc(|x| / 2**e) below;
    e is the least exponent at which every bin lies in [-2048, 2048)

A larger number doubles the width and joins neighbours: trunc(trunc(m / w) / 2) = trunc(m / 2w). So
the result is a function of the set of numbers: batches, threads, an interruption or a second run
cannot change it, and two histograms merge exactly. Scaling by a power of two is exact in float32,
so that native code and numpy count alike, bit for bit.

A value has 1,024 to 2,048 bins between zero and its largest magnitude.
"""

from __future__ import annotations

import numpy as np

from edgec.types import Histogram

BINS = 2048  # on either side of zero
FINEST, COARSEST = -100, 117  # exponents: what both scale factors can express in float32
EMPTY = Histogram(FINEST, 0, np.zeros(0, np.int64))


def exponent_of(magnitude: float) -> int:
    """The least exponent at which numbers up to `magnitude`, which is finite, fit the bins."""
    _, power = np.frexp(np.float32(magnitude))  # magnitude < 2**power
    return max(FINEST, int(power) - 11) if magnitude > 0 else FINEST


def bin_of(number: float, histogram: Histogram) -> int:
    """The bin of a number; those of another exponent lie beyond all bins."""
    place = int(min(abs(number) / histogram.width, 2.0**31))
    return -1 - place if number < 0 else place


def count(array: np.ndarray) -> Histogram:
    """The histogram of a float32 array of any shape, all of whose numbers are finite."""
    flat = np.asarray(array, np.float32).ravel()
    if not flat.size:
        return EMPTY
    magnitude = np.abs(flat)
    exponent = exponent_of(float(magnitude.max()))
    bins = (magnitude * np.float32(2.0**-exponent)).astype(np.int32)
    np.invert(bins, out=bins, where=np.signbit(flat))
    return trimmed(exponent, np.bincount(bins + BINS, minlength=2 * BINS))


def merge(one: Histogram, other: Histogram) -> Histogram:
    """The histogram of all numbers of both."""
    exponent = max(one.exponent, other.exponent)
    counts = np.zeros(2 * BINS, np.int64)
    for histogram in (one, other):
        used = np.arange(histogram.first, histogram.first + len(histogram.counts))
        shift = min(exponent - histogram.exponent, 31)
        np.add.at(counts, (used >> shift) + BINS, histogram.counts)
    return trimmed(exponent, counts)


def trimmed(exponent: int, counts: np.ndarray) -> Histogram:
    """A histogram of counts over all 4,096 bins, without the unused ones at both ends."""
    used = np.flatnonzero(counts)
    if not used.size:
        return EMPTY
    first, last = int(used[0]), int(used[-1])
    return Histogram(exponent, first - BINS, counts[first : last + 1].astype(np.int64))


def magnitudes(histogram: Histogram) -> np.ndarray:
    """Counts of |x| over bins of the same width from zero on, int64 [bins]."""
    used = np.arange(histogram.first, histogram.first + len(histogram.counts))
    return np.bincount(
        np.where(used < 0, ~used, used), weights=histogram.counts, minlength=1
    ).astype(np.int64)


def edges(histogram: Histogram) -> np.ndarray:
    """The bounds of all bins, float64 [bins + 1]."""
    return (histogram.first + np.arange(len(histogram.counts) + 1)) * histogram.width
