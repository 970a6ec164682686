"""The smallest and the largest number that were seen."""

from __future__ import annotations

from edgec.types import ValueStatistics


def limits(value: ValueStatistics) -> tuple[float, float]:
    """Exact over all samples, whatever their order."""
    return value.low, value.high
