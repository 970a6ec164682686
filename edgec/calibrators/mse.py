"""The range with the least expected squared error of rounding and clipping, by the histogram.

    error(low, high) = sum over bins of count * (x - q(x))**2
    q(x) = the nearest of the 256 levels (k - zero) * scale of the grid for that range

A bin counts at its centre: its own spread adds the same to every range whose levels are not finer
than bins, and finer ones are no candidates. Symmetric grids have one threshold. For asymmetric
ones both ends shrink together, then in turns: with rounding as noise of scale**2 / 12 the error is
convex in (low, high), so that turns lead down to its least.

Source: `_compute_amax_mse` of NVIDIA's pytorch-quantization, which tries thresholds on bin centres;
the scale and the zero point are those of ONNX QuantizeLinear. The sum over levels is summed by
parts, so that a range costs 255 look-ups rather than a pass over all bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgec.calibrators.span import whole, within
from edgec.types import Grid, Histogram, ValueStatistics

SHRINK = np.geomspace(1, 1 / 1024, 128)  # an end moves by 5 %
TURNS = 4


def limits(value: ValueStatistics, grid: Grid) -> tuple[float, float]:
    """The whole range where no other is better, or where there is no histogram."""
    if value.histogram is None or not value.histogram.counts.any():
        return whole(value)
    moments, width = Moments.of(value.histogram), value.histogram.width
    if grid.symmetric_activations:
        most = max(-value.low, value.high) / width * SHRINK
        threshold = most[np.argmin(moments.errors(-most, most, grid))] * width
        return within(value, -threshold, threshold)
    lows, highs = min(value.low, 0) / width * SHRINK, max(value.high, 0) / width * SHRINK
    best = int(np.argmin(moments.errors(lows, highs, grid)))
    low, high = lows[best], highs[best]
    for _ in range(TURNS):
        before = (low, high)
        low = lows[np.argmin(moments.errors(lows, np.full_like(lows, high), grid))]
        high = highs[np.argmin(moments.errors(np.full_like(highs, low), highs, grid))]
        if (low, high) == before:
            break
    return within(value, float(low) * width, float(high) * width)


@dataclass(frozen=True)
class Moments:
    """A histogram summed up: how many bins lie below, what they count, and the sum of x there.

    Positions are in bins, so that no range is too large or too small. float64 [bins + 1] each.
    """

    first: int
    below: np.ndarray
    sums: np.ndarray
    squares: float

    @classmethod
    def of(cls, histogram: Histogram) -> Moments:
        """The cumulated moments of the bins' centres."""
        counts = histogram.counts.astype(np.float64)
        centres = histogram.first + np.arange(len(counts)) + 0.5
        below, sums = (np.concatenate([[0.0], np.cumsum(c)]) for c in (counts, counts * centres))
        return cls(histogram.first, below, sums, float(counts @ centres**2))

    def errors(self, lows: np.ndarray, highs: np.ndarray, grid: Grid) -> np.ndarray:
        """The squared error of all numbers for each range, in bins squared, float64 [ranges].

        Infinite where a level is narrower than a bin, unless that is the whole range, the first.
        """
        if grid.symmetric_activations:
            scale, zero = np.maximum(-lows, highs) / 127, np.full(len(lows), 128.0)
        else:
            scale = (highs - lows) / 255
            zero = np.rint(-lows / np.where(scale > 0, scale, 1))
        bounds = (np.arange(0.5, 255) - zero[:, None]) * scale[:, None]
        index = np.ceil(bounds - (self.first + 0.5)).astype(np.intp)
        below, sums = (c.take(index, mode="clip") for c in (self.below, self.sums))
        top = (255 - zero) * scale
        error = (
            self.squares
            + top * (top * self.below[-1] - 2 * self.sums[-1])
            - 2 * scale * (np.einsum("ij,ij->i", bounds, below) - sums.sum(axis=1))
        )
        return np.where((scale >= 1) | (np.arange(len(scale)) == 0), error, np.inf)
