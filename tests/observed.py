"""What calibration would have seen of an array, and what a range then costs."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgec.histogram import EMPTY, count
from edgec.quantize.static import affine
from edgec.types import Grid, Histogram, ValueStatistics

ASYMMETRIC = Grid("uint8", False, "int8", True, False, "test", "test")
SYMMETRIC = Grid("int8", True, "int8", True, False, "test", "test")
SHIFTED = Grid("uint8", True, "int8", True, False, "test", "test")
GRIDS = (ASYMMETRIC, SYMMETRIC, SHIFTED)

NEVER = ValueStatistics(low=np.inf, high=-np.inf, histogram=EMPTY)


def seen(*samples: np.ndarray) -> ValueStatistics:
    """The statistics of a value that had these numbers, an array a sample."""
    kept = [np.asarray(one, np.float32) for one in samples]
    lows, highs = [float(a.min()) for a in kept], [float(a.max()) for a in kept]
    return ValueStatistics(
        low=min(lows),
        high=max(highs),
        seen=len(kept),
        mean_low=float(np.mean(lows)),
        mean_high=float(np.mean(highs)),
        histogram=count(np.concatenate([a.ravel() for a in kept])),
    )


def error(histogram: Histogram, low: float, high: float, grid: Grid) -> float:
    """The mean squared error of the bins' centres, quantized as the emitted model does it."""
    x = (histogram.first + np.arange(len(histogram.counts)) + 0.5) * histogram.width
    found = affine(low, high, grid)
    kind, zero = np.iinfo(found.zero_point.dtype), int(found.zero_point)
    integers = np.clip(np.rint(x / float(found.scale)) + zero, kind.min, kind.max)
    squared = (x - (integers - zero) * float(found.scale)) ** 2
    return float(np.average(squared, weights=histogram.counts))


def numbers(most: int = 60) -> st.SearchStrategy[np.ndarray]:
    """Arrays of any finite float32: subnormal, huge, both zeros."""
    return arrays.arrays(
        np.float32,
        st.integers(1, most),
        elements=st.floats(allow_nan=False, allow_infinity=False, width=32),
    )
