"""The average over samples of each sample's own extremes.

    low = mean of min(x) over samples, high = mean of max(x) over samples

NNCF calls this `mean_min_max` (statistic MIN or MAX, aggregator MEAN). ONNX Runtime's
`CalibMovingAverage` is the same mean, over batches instead of samples, for all that one call of
`collect_data` reads; a further call moves it by `averaging_constant` (0.01) of the difference,
like PyTorch's MovingAverageMinMaxObserver, so that the order decides. Here it never does.
"""

from __future__ import annotations

import math

from edgec.calibrators.span import whole, within
from edgec.types import Grid, ValueStatistics


def limits(value: ValueStatistics, grid: Grid) -> tuple[float, float]:
    """Inside the extremes; the extremes themselves where no averages were taken."""
    if math.isnan(value.mean_low) or math.isnan(value.mean_high):
        return whole(value)
    return within(value, value.mean_low, value.mean_high)
