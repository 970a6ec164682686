"""Spearman's rank correlation: Pearson's of ranks, equal values sharing the mean of theirs."""

from __future__ import annotations

import numpy as np

from edgec.metrics import Metric
from edgec.metrics.options import Options
from edgec.metrics.pearson import correlating, correlation


def make(options: Options) -> Metric:
    """Correlation of the ranks of scores and labels."""
    return correlating(options, rank_correlation)


def rank_correlation(rows: np.ndarray) -> float:
    """Of rows [samples, 2]; NaN where a column is constant or holds what is no number."""
    if np.isnan(rows).any():
        return float("nan")
    return correlation(np.stack([ranks(rows[:, 0]), ranks(rows[:, 1])], axis=1))


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks of values [n] from 1, equal ones by their mean."""
    _, place, often = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(often)
    return np.asarray((last - (often - 1) / 2)[place])
