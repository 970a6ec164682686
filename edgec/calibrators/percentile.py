"""The range that holds 99.99 % of what was seen, by the histogram, the rest split over both ends.

Source: McKinstry et al. 2018, "Discovering Low-Precision Networks Close to Full-Precision Networks
for Efficient Embedded Inference", section 3.1 (99.99th percentile of activations).
"""

from __future__ import annotations

import numpy as np

from edgec.types import ValueStatistics

SHARE = 0.9999


def limits(value: ValueStatistics) -> tuple[float, float]:
    """Edges of histogram bins; the whole range where there is no histogram."""
    seen = value.histogram
    if seen is None or not seen.counts.any():
        return value.low, value.high
    edges = np.linspace(seen.low, seen.high, len(seen.counts) + 1)
    total = np.cumsum(seen.counts) / seen.counts.sum()
    tail = (1 - SHARE) / 2
    first = int(np.searchsorted(total, tail, side="right"))
    last = int(np.searchsorted(total, 1 - tail, side="left"))
    return float(edges[first]), float(edges[last + 1])
