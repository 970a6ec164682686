"""Pearson's correlation of a score that the model gives with a number that people gave.

r = sum (x - mean x)(y - mean y) / sqrt(sum (x - mean x)^2 sum (y - mean y)^2)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from edgec.metrics import Measure, Metric, Outputs, Scored
from edgec.metrics.labels import Labels, Wants
from edgec.metrics.options import Options
from edgec.metrics.outputs import is_single, pick

MOST_PAIRS = 1_000_000


def make(options: Options) -> Metric:
    """Correlation of the scores themselves."""
    return correlating(options, correlation)


def correlating(options: Options, reduce: Callable[[np.ndarray], float]) -> Metric:
    """A metric that reduces rows (score, label)."""
    return Metric(
        name=options.metric,
        labels=Wants.NUMBERS,
        take=partial(_take, name=options.text("output")),
        score=_score,
        measures=(Measure(options.metric, reduce),),
        answer="order of two",
        agreement=concordance,
    )


def correlation(rows: np.ndarray) -> float:
    """Of rows [samples, 2]; NaN where a column is constant or holds what is no number."""
    # a constant's deviation from its mean may be a rounding error instead of nothing
    if not np.isfinite(rows).all() or not np.ptp(rows, axis=0).all():
        return float("nan")
    x, y = (rows - rows.mean(axis=0)).T
    product = float(np.sqrt((x @ x) * (y @ y)))
    return min(1.0, max(-1.0, float(x @ y) / product)) if product else float("nan")


def concordance(one: Scored, other: Scored) -> float:
    """The share of pairs of samples that both models put into the same order.

    Of all pairs, or of a million drawn with a seed where there are more. NaN for a single sample.
    """
    x, y = np.array(one.answers), np.array(other.answers)
    if len(x) < 2:
        return float("nan")
    if len(x) * (len(x) - 1) // 2 <= MOST_PAIRS:
        first, second = np.triu_indices(len(x), 1)
    else:
        generator = np.random.default_rng(0)
        first = generator.integers(0, len(x), MOST_PAIRS)
        second = (first + generator.integers(1, len(x), MOST_PAIRS)) % len(x)
    return float(np.mean(np.sign(x[first] - x[second]) == np.sign(y[first] - y[second])))


def _take(outputs: Outputs, count: int, name: str) -> list[float]:
    found = pick(outputs, count, name, is_single, "one number a sample")
    return [float(one.item()) for one in found]


def _score(taken: Sequence[float], labels: Labels) -> Scored:
    return Scored(np.stack([np.array(taken), np.array(labels.values)], axis=1), taken)
