"""What every method keeps to: a range lies in what was seen, and around zero if that does."""

from __future__ import annotations

import numpy as np

from edgec.types import ValueStatistics


def whole(value: ValueStatistics) -> tuple[float, float]:
    """All that was seen; (0, 0) where no number was, for which any scale is safe."""
    return (value.low, value.high) if value.low <= value.high else (0.0, 0.0)


def within(value: ValueStatistics, low: float, high: float) -> tuple[float, float]:
    """`low` to `high`, as far as it was seen; zero stays inside if it was."""
    least, most = whole(value)
    if least <= 0.0 <= most:
        low, high = min(low, 0.0), max(high, 0.0)
    return float(np.clip(low, least, most)), float(np.clip(high, least, most))
