"""The range that holds 99.99 % of what was seen, by the histogram.

Asymmetric grids lose half of the rest at either end. Symmetric grids have one threshold, for |x|.

Source: McKinstry et al. 2018, "Discovering Low-Precision Networks Close to Full-Precision Networks
for Efficient Embedded Inference", section 3.1 (99.99th percentile of activations).
"""

from __future__ import annotations

import numpy as np

from edgec.calibrators.span import whole, within
from edgec.histogram import edges, magnitudes
from edgec.types import Grid, ValueStatistics

ONE_IN = 10_000  # numbers, of which at most one lies outside


def limits(value: ValueStatistics, grid: Grid) -> tuple[float, float]:
    """Edges of histogram bins, or the extremes where these are nearer to zero.

    The extremes where there is no histogram.
    """
    seen = value.histogram
    if seen is None or not seen.counts.any():
        return whole(value)
    if grid.symmetric_activations:
        counts = magnitudes(seen)
        threshold = (len(counts) - _spare(counts[::-1], ONE_IN)) * seen.width
        return within(value, -threshold, threshold)
    bounds = edges(seen)
    first = _spare(seen.counts, 2 * ONE_IN)
    last = len(seen.counts) - _spare(seen.counts[::-1], 2 * ONE_IN)
    return within(value, float(bounds[first]), float(bounds[last]))


def _spare(counts: np.ndarray, one_in: int) -> int:
    """How many of the first bins hold together at most one number in `one_in`."""
    return int(np.searchsorted(np.cumsum(counts), int(counts.sum()) // one_in, side="right"))
